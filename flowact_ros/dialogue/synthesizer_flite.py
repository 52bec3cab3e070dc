# SPDX-License-Identifier: Apache-2.0
"""Speech by CMU flite (Debian ``libflite1``), optional: four more voices for training data, three of them male.

The library is called through ctypes, because its command prints no stress and starts anew for every sentence. Times
come from the utterance's ``Segment`` relation; the sound (16 kHz) is resampled to 24 kHz.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_short, c_void_p
from typing import Any

import numpy as np

from flowact_ros.dialogue.synthesizer import Phoneme, Speech, SynthesizerError, Word, check_request
from flowact_ros.dialogue.synthesizer_phonemes import FROM_FLITE, SILENCE, VOWELS, tile
from flowact_ros.media.resample import resample
from flowact_ros.timebase import SAMPLE_RATE

REMEDY = "apt-get install libflite1 (it is optional: only training data use it)"
# voice -> mean of its melody [Hz], which the pitch factor scales
MEAN_PITCH = {"slt": 170.0, "rms": 95.0, "awb": 120.0, "kal16": 95.0}
_lock = threading.Lock()  # flite keeps global tables


class _Wave(Structure):
    _fields_ = [
        ("type", c_char_p),
        ("sample_rate", c_int),
        ("num_samples", c_int),
        ("num_channels", c_int),
        ("samples", POINTER(c_short)),
    ]


class _Voice(Structure):
    _fields_ = [("name", c_char_p), ("features", c_void_p)]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "flite_synth_text": (c_void_p, [c_char_p, c_void_p]),
    "utt_relation": (c_void_p, [c_void_p, c_char_p]),
    "utt_wave": (c_void_p, [c_void_p]),
    "relation_head": (c_void_p, [c_void_p]),
    "item_next": (c_void_p, [c_void_p]),
    "item_as": (c_void_p, [c_void_p, c_char_p]),
    "item_parent": (c_void_p, [c_void_p]),
    "item_feat_float": (c_float, [c_void_p, c_char_p]),
    "item_feat_string": (c_char_p, [c_void_p, c_char_p]),
    "ffeature_string": (c_char_p, [c_void_p, c_char_p]),
    "feat_set_float": (None, [c_void_p, c_char_p, c_float]),
    "delete_utterance": (None, [c_void_p]),
}


Row = tuple[str, float, bool, str, int]


class FliteSynthesizer:
    """The ``flite`` backend. Voices: slt (female), rms, awb (Scottish), kal16 (an old diphone voice)."""

    voices = tuple(MEAN_PITCH)

    def __init__(self, voice: str = "slt") -> None:
        if voice not in MEAN_PITCH:
            raise SynthesizerError(f"unknown flite voice {voice!r}; available: {', '.join(MEAN_PITCH)}")
        try:
            self._libc = ctypes.CDLL(None)
            self._lib = ctypes.CDLL("libflite.so.1")
            ctypes.CDLL("libflite_usenglish.so.1")
            register = getattr(ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1"), f"register_cmu_us_{voice}")
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self._lib, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise SynthesizerError(f"the flite library is not installed ({error}): {REMEDY}") from error
        register.restype, register.argtypes = c_void_p, [c_char_p]
        with _lock:
            self._lib.flite_init()
            self._voice = register(None)
        if not self._voice:
            raise SynthesizerError(f"flite could not load its voice {voice!r}; reinstall it: {REMEDY}")
        self._name = voice

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        """See Synthesizer."""
        text = check_request(text, rate, pitch)
        with _lock:
            pcm, sample_rate, segments = self._utterance(text, rate, pitch)
        if not segments or not len(pcm):
            raise SynthesizerError(f"flite has nothing to say for {text[:40]!r}")
        sound = resample(pcm, sample_rate, SAMPLE_RATE)
        seconds = len(sound) / SAMPLE_RATE  # the diphone voice leaves out part of its last pause
        phonemes, words, last = [], [], 0
        start = 0.0
        for name, end, stressed, word, address in segments:
            symbol = FROM_FLITE.get(name, SILENCE)
            end = min(end, seconds)
            phonemes.append(Phoneme(symbol, start, end, stressed and symbol in VOWELS))
            if address:
                if address == last:
                    words[-1] = Word(words[-1].text, words[-1].start_s, end)
                else:
                    words.append(Word(word, start, end))
            start, last = end, address
        return Speech(sound, tile(phonemes, sound), words)

    def _utterance(self, text: str, rate: float, pitch: float) -> tuple[np.ndarray, int, list[Row]]:
        """Sound float32 [T], its rate, and per segment (name, end, stressed, word, the word's address)."""
        lib = self._lib
        self._libc.srand(1)  # the breath in the voice is drawn from rand(); the same text sounds the same
        features = _Voice.from_address(self._voice).features
        lib.feat_set_float(features, b"duration_stretch", 1.0 / rate)
        lib.feat_set_float(features, b"int_f0_target_mean", MEAN_PITCH[self._name] * pitch)
        utterance = lib.flite_synth_text(text.encode("ascii", "ignore"), self._voice)
        if not utterance:
            return np.zeros(0, np.float32), SAMPLE_RATE, []
        try:
            wave = _Wave.from_address(lib.utt_wave(utterance))
            pcm = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768.0
            sample_rate = int(wave.sample_rate)
            segments = []
            item = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
            while item:
                stress = lib.ffeature_string(item, b"R:SylStructure.parent.stress") == b"1"
                syllable = lib.item_as(item, b"SylStructure")
                parent = lib.item_parent(syllable) if syllable else None
                word = lib.item_parent(parent) if parent else None
                text_of = lib.item_feat_string(word, b"name").decode() if word else ""
                name = lib.item_feat_string(item, b"name").decode()
                segments.append((name, float(lib.item_feat_float(item, b"end")), stress, text_of, word or 0))
                item = lib.item_next(item)
        finally:
            lib.delete_utterance(utterance)
        return pcm, sample_rate, segments
