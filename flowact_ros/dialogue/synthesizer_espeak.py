# SPDX-License-Identifier: Apache-2.0
"""Speech by espeak-ng (Debian ``libespeak-ng1``), optional: a formant voice for listening and experiments.

The library is called through ctypes: phoneme times arrive as events of its synthesis callback. Its generator carries
state (the phase of its flutter) from one text to the next, so a repeated text is not the same to the sample; the
training clips, which must be, do not use it.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import CFUNCTYPE, POINTER, Structure, Union, c_char, c_char_p, c_int, c_short, c_uint, c_void_p

import numpy as np

from flowact_ros.dialogue.synthesizer import Phoneme, Speech, SynthesizerError, Word, check_request
from flowact_ros.dialogue.synthesizer_phonemes import FROM_ESPEAK, SILENCE, VOWELS, tile
from flowact_ros.media.resample import resample
from flowact_ros.timebase import SAMPLE_RATE

REMEDY = "apt-get install libespeak-ng1 (it is optional)"
_END, _WORD, _PHONEME = 0, 1, 7  # espeak_EVENT_TYPE
_SYNCHRONOUS, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x0001, 0x8000
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_BY_CHARACTER, _UTF8 = 1, 1
_NORMAL_RATE, _NORMAL_PITCH = 165, 50  # words a minute; 0 .. 99
_lock = threading.Lock()  # the library has one global state
_rate = 0  # [Hz] of the initialised library


class _Id(Union):
    _fields_ = [("number", c_int), ("name", c_char_p), ("string", c_char * 8)]


class _Event(Structure):
    _fields_ = [
        ("type", c_int),
        ("unique_identifier", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),  # [ms]
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", _Id),
    ]


_Callback = CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(_Event))


Row = tuple[int, float, str, int, int]


class EspeakSynthesizer:
    """The ``espeak`` backend, voice en-us. Its sound is mechanical: for experiments, not for visitors."""

    voices = ("en-us", "en-gb")

    def __init__(self, voice: str = "en-us") -> None:
        global _rate
        if voice not in self.voices:
            raise SynthesizerError(f"unknown espeak voice {voice!r}; available: {', '.join(self.voices)}")
        try:
            self._lib = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise SynthesizerError(f"the espeak-ng library is not installed ({error}): {REMEDY}") from error
        with _lock:
            if not _rate:
                _rate = int(self._lib.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT))
            if _rate <= 0:
                _rate = 0
                raise SynthesizerError("espeak-ng found no data: apt-get install espeak-ng-data")
        self._voice = voice.encode()

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        """See Synthesizer."""
        text = check_request(text, rate, pitch)
        pcm, events = self._speak(text, rate, pitch)
        phonemes, words = _spans(text, events, len(pcm) / _rate)
        if not phonemes:
            raise SynthesizerError(f"espeak-ng has nothing to say for {text[:40]!r}")
        sound = resample(pcm, _rate, SAMPLE_RATE)
        return Speech(sound, tile(phonemes, sound), words)

    def _speak(self, text: str, rate: float, pitch: float) -> tuple[np.ndarray, list[Row]]:
        """Sound float32 [T] at the library's rate, and events (type, seconds, phoneme, text position, length)."""
        blocks: list[np.ndarray] = []
        events: list[Row] = []

        def receive(samples: object, count: int, incoming: object) -> int:
            if samples and count > 0:
                blocks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768.0)
            i = 0
            while incoming[i].type != _END:  # type: ignore[index]
                e = incoming[i]  # type: ignore[index]
                if e.type in (_WORD, _PHONEME):
                    name = e.id.string.decode("utf-8", "replace") if e.type == _PHONEME else ""
                    events.append((e.type, e.audio_position / 1000, name, e.text_position, e.length))
                i += 1
            return 0

        callback = _Callback(receive)
        data = text.encode()
        with _lock:
            self._lib.espeak_SetSynthCallback(callback)
            self._lib.espeak_SetVoiceByName(self._voice)
            self._lib.espeak_SetParameter(_PARAMETER_RATE, round(_NORMAL_RATE * rate), 0)
            # 50 steps up double the base pitch
            height = int(np.clip(_NORMAL_PITCH + 50 * np.log2(pitch), 0, 99))
            self._lib.espeak_SetParameter(_PARAMETER_PITCH, height, 0)
            self._lib.espeak_Synth(data, len(data) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None)
            self._lib.espeak_Synchronize()
            self._lib.espeak_SetSynthCallback(_Callback())  # nothing may call into this frame later
        return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), events


def _spans(text: str, events: list[Row], end: float) -> tuple[list[Phoneme], list[Word]]:
    """Events -> phonemes (stressed: the longest full vowel of a word of at least four letters) and words."""
    words: list[tuple[str, float]] = []
    rows: list[tuple[str, float, int]] = []  # symbol, start, word
    for kind, at, name, position, length in events:
        if kind == _WORD:
            words.append((text[position - 1 : position - 1 + length].strip(".,!?;: "), at))
        else:
            rows.append((FROM_ESPEAK.get(name, SILENCE), at, len(words) - 1))
    bounds = [at for _, at, _ in rows[1:]] + [end]
    spans = [(symbol, at, stop, word) for (symbol, at, word), stop in zip(rows, bounds, strict=True)]
    stressed: dict[int, tuple[float, int]] = {}
    for i, (symbol, at, stop, word) in enumerate(spans):
        if symbol in VOWELS and symbol != "AX" and word >= 0 and len(words[word][0]) >= 4:
            stressed[word] = max(stressed.get(word, (0.0, -1)), (stop - at, i))
    chosen = {i for _, i in stressed.values()}
    for i in range(1, len(spans)):  # its unvoiced plosives begin with the burst; the lips close before that
        symbol, at, stop, word = spans[i]
        before = spans[i - 1]
        if symbol in ("P", "T", "K", "CH"):
            closed = at - min(0.06, 0.5 * (at - before[1]))
            spans[i - 1] = (before[0], before[1], closed, before[3])
            spans[i] = (symbol, closed, stop, word)
    phonemes = [Phoneme(s, a, b, i in chosen) for i, (s, a, b, _) in enumerate(spans)]
    ends = {w: b for s, _, b, w in spans if s != SILENCE}
    return phonemes, [Word(t, at, ends[i]) for i, (t, at) in enumerate(words) if i in ends and t]
