# SPDX-License-Identifier: Apache-2.0
"""Speaks one text through a C library: ``python synthesizer_worker.py flite slt RATE PITCH < text``.

In a process of its own, because both libraries carry state from one text to the next (a fresh one repeats itself to the
sample), and because a fault in a C library must not end the program that asked. Standard library only: starts quickly.

Output: one line of JSON (``rate`` in Hz; ``segments``: backend symbol, start and end in seconds, stressed, word;
``words``: their texts), then the samples as 16-bit little-endian. Exit status 3: the library is missing, the reason is
on stderr.
"""

from __future__ import annotations

import ctypes
import json
import sys
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_short,
    c_uint,
    c_void_p,
)
from typing import Any

MISSING = 3  # exit status
FLITE_PITCH = {"slt": 170.0, "rms": 95.0, "awb": 120.0, "kal16": 95.0}  # [Hz] mean of a voice's melody
ESPEAK_WORDS_A_MINUTE, ESPEAK_PITCH = 165, 50
# Phonemes of espeak-ng that begin with the burst: the closure before it is 60 ms of the sound in front.
ESPEAK_PLOSIVES = ("p", "t", "t2", "k", "tS")


class FliteWave(Structure):
    """cst_wave"""

    _fields_ = [
        ("type", c_char_p),
        ("sample_rate", c_int),
        ("num_samples", c_int),
        ("num_channels", c_int),
        ("samples", POINTER(c_short)),
    ]


class FliteVoice(Structure):
    """The first fields of cst_voice"""

    _fields_ = [("name", c_char_p), ("features", c_void_p)]


FLITE_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
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
}


def flite(voice_name: str, rate: float, pitch: float, text: str) -> tuple[dict[str, Any], bytes]:
    """One text by CMU flite: what to print, and the samples."""
    lib = ctypes.CDLL("libflite.so.1")
    ctypes.CDLL("libflite_usenglish.so.1")
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{voice_name}.so.1"), f"register_cmu_us_{voice_name}")
    for name, (result, arguments) in FLITE_FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    register.restype, register.argtypes = c_void_p, [c_char_p]
    lib.flite_init()
    voice = register(None)
    features = FliteVoice.from_address(voice).features
    lib.feat_set_float(features, b"duration_stretch", 1.0 / rate)
    lib.feat_set_float(features, b"int_f0_target_mean", FLITE_PITCH[voice_name] * pitch)
    utterance = lib.flite_synth_text(text.encode("ascii", "ignore"), voice)
    wave = FliteWave.from_address(lib.utt_wave(utterance))
    samples = ctypes.string_at(wave.samples, 2 * wave.num_samples)
    segments: list[list[Any]] = []
    words: list[str] = []
    start, last = 0.0, None
    item = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
    while item:
        syllable = lib.item_as(item, b"SylStructure")
        parent = lib.item_parent(syllable) if syllable else None
        word = lib.item_parent(parent) if parent else None
        if word and word != last:
            words.append(lib.item_feat_string(word, b"name").decode())
        last = word
        stressed = lib.ffeature_string(item, b"R:SylStructure.parent.stress") == b"1"
        end = float(lib.item_feat_float(item, b"end"))
        name = lib.item_feat_string(item, b"name").decode()
        segments.append([name, start, end, stressed, len(words) - 1 if word else -1])
        start, item = end, lib.item_next(item)
    return {"rate": int(wave.sample_rate), "segments": segments, "words": words}, samples


class EspeakId(Union):
    """The field ``id`` of espeak_EVENT"""

    _fields_ = [("number", c_int), ("name", c_char_p), ("string", c_char * 8)]


class EspeakEvent(Structure):
    """espeak_EVENT"""

    _fields_ = [
        ("type", c_int),
        ("unique_identifier", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),  # [ms]
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", EspeakId),
    ]


def espeak(voice_name: str, rate: float, pitch: float, text: str) -> tuple[dict[str, Any], bytes]:
    """One text by espeak-ng: what to print, and the samples. Stress is not among its events: always false."""
    lib = ctypes.CDLL("libespeak-ng.so.1")
    synchronous, phoneme_events, no_exit = 2, 0x0001, 0x8000
    sample_rate = int(lib.espeak_Initialize(synchronous, 0, None, phoneme_events | no_exit))
    if sample_rate <= 0:
        raise OSError("espeak-ng-data not found")
    blocks: list[bytes] = []
    segments: list[list[Any]] = []
    words: list[str] = []
    callback_type = CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(EspeakEvent))

    def receive(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type != 0:
            event, now = events[i], events[i].audio_position / 1000
            if event.type == 1:  # a word begins
                words.append(
                    text[event.text_position - 1 : event.text_position - 1 + event.length].strip(".,!?;: ")
                )
            elif event.type == 7:  # a phoneme begins
                name = event.id.string.decode("utf-8", "replace")
                if segments and name in ESPEAK_PLOSIVES:
                    now -= min(0.06, 0.5 * (now - segments[-1][1]))
                if segments:
                    segments[-1][2] = now
                segments.append([name, now, now, False, len(words) - 1])
            i += 1
        return 0

    callback = callback_type(receive)
    lib.espeak_SetSynthCallback(callback)
    lib.espeak_SetVoiceByName(voice_name.encode())
    lib.espeak_SetParameter(1, round(ESPEAK_WORDS_A_MINUTE * rate), 0)
    lib.espeak_SetParameter(3, max(0, min(99, round(ESPEAK_PITCH * pitch))), 0)
    data = text.encode()
    by_character, utf8 = 1, 1
    lib.espeak_Synth(data, len(data) + 1, 0, by_character, 0, utf8, None, None)
    lib.espeak_Synchronize()
    samples = b"".join(blocks)
    if segments:
        segments[-1][2] = max(segments[-1][1], len(samples) / 2 / sample_rate)
    return {"rate": sample_rate, "segments": segments, "words": words}, samples


def main() -> int:
    library, voice, rate, pitch = sys.argv[1:5]
    text = sys.stdin.buffer.read().decode()
    try:
        header, samples = {"flite": flite, "espeak": espeak}[library](voice, float(rate), float(pitch), text)
    except (OSError, AttributeError) as error:
        print(error, file=sys.stderr)
        return MISSING
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
