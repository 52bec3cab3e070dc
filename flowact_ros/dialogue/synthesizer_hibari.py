# SPDX-License-Identifier: Apache-2.0
"""Speech by hibari-tts (PyPI, Apache-2.0): a distilled Kokoro voice, ~100 times real time on one thread.

Its ONNX graph computes how long every symbol lasts (tensor ``/Clip_output_0``, units of 25 ms) but does not return it.
The file is a protobuf message, and appending a message to a protobuf merges the two: a few bytes behind the file make
the tensor a seventh output, and neither the package nor a copy of its model has to be changed.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue.speech import NothingToSay, Phoneme, Speech, SynthesizerError, Word, check_request
from flowact_ros.dialogue.synthesizer_phonemes import FROM_HIBARI, SILENCE, VOWELS, tile
from flowact_ros.timebase import SAMPLE_RATE

DURATION_UNIT = 0.025  # [s]
# The sound runs ahead of the durations. Found by correlating the level expected from the phonemes (vowel loud, plosive
# closed) with the level heard: the best shift is -45 .. -58 ms at rates 0.8, 1.0 and 1.3 alike.
SOUND_LEAD = 0.052  # [s]
STRESS = "ˈ"
MARKS = "ˈˌːʰʲ"
PAUSES = set(";:,.!?—…")
MAX_SYMBOLS = 400
_SPEAKING = threading.Lock()
SENTENCE_GAP = 0.12  # [s] of silence between two sentences, beside the ~0.5 s the voice itself leaves


def with_output(model: bytes, tensor: str) -> bytes:
    """ONNX bytes -> the same graph with ``tensor`` as its last output (ModelProto.graph.output.name)."""

    def message(tag: int, payload: bytes) -> bytes:
        return bytes([tag, len(payload)]) + payload

    value_info = message(0x0A, tensor.encode())  # ValueInfoProto.name = 1
    graph = message(0x62, value_info)  # GraphProto.output = 12
    return model + message(0x3A, graph)  # ModelProto.graph = 7


@cache
def _reader(british: bool) -> tuple[Any, Any]:
    """hibari with what reads text for that accent, and its vocoder, once a process. Raises SynthesizerError."""
    try:
        from hibari import Hibari, dsp
        from hibari.g2p import G2P

        return Hibari("heart", g2p=G2P(british=british)), dsp  # which imports onnxruntime
    except ImportError as error:
        raise SynthesizerError(
            f"speech needs the package hibari-tts, which is not installed ({error}): pip install hibari-tts"
        ) from error


@cache
def _session(path: Path, durations: str) -> Any:
    """The network of a file, once a process: Kokoro's voices share one. Raises SynthesizerError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep memory for every length of a sentence
    try:
        network = with_output(path.read_bytes(), durations)
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes have no common public base
        raise SynthesizerError(
            f"{path.name} has no tensor {durations} ({error}); tested with hibari-tts 0.2.1"
        ) from error


class HibariSynthesizer:
    """The ``hibari`` backend. One thread; calls from several threads are served one after another.

    Kokoro's voices (``synthesizer_kokoro``) share all of it but the network: the same symbols, the same durations.
    """

    voices: tuple[str, ...] = ("heart",)
    durations = "/Clip_output_0"  # the tensor

    def __init__(self, voice: str = "heart") -> None:
        if voice not in self.voices:
            raise SynthesizerError(f"unknown hibari voice {voice!r}; available: {', '.join(self.voices)}")
        self._open()

    def _open(self, british: bool = False, model: Path | None = None) -> None:
        """Loads what reads text, in one of two accents, and the network. model: None: hibari's own.

        Raises SynthesizerError.
        """
        self._tts, self._dsp = _reader(british)
        self._session = _session(model or Path(self._tts.model_path), self.durations)

    def synthesize(self, text: str, *, rate: float = 1.0, pitch: float = 1.0) -> Speech:
        """See Synthesizer. The pitch changes the harmonic source only, so the vowels keep their colour."""
        text = check_request(text, rate, pitch)
        with _SPEAKING:
            pieces = [p for s in self._tts.split_sentences(text) for p in self._symbols(s)]
            if not pieces:
                raise NothingToSay(f"nothing of the text {text[:40]!r} can be pronounced")
            pcm: list[np.ndarray] = []
            phonemes: list[Phoneme] = []
            words: list[Word] = []
            offset = 0
            for number, piece in enumerate(pieces):
                sound, spoken, spans = self._piece(piece, rate, pitch)
                if number:
                    pcm.append(np.zeros(round(SENTENCE_GAP / rate * SAMPLE_RATE), np.float32))
                    offset += len(pcm[-1])
                shift = offset / SAMPLE_RATE
                phonemes += [p.moved(shift) for p in spoken]
                words += [Word(w.text, w.start_s + shift, w.end_s + shift) for w in spans]
                pcm.append(sound)
                offset += len(sound)
        whole = np.concatenate(pcm)
        return Speech(whole, tile(phonemes, whole), words)

    def _symbols(self, sentence: str) -> list[list[tuple[str, str]]]:
        """A sentence -> pieces of at most MAX_SYMBOLS (symbol, word it belongs to); spaces belong to no word."""
        from hibari.g2p.normalize import normalize

        g2p = self._tts.g2p
        symbols: list[tuple[str, str]] = []
        for number, token in enumerate(g2p.phonemize_tokens(g2p.tokenize(normalize(sentence)))):
            name = f"{number}:{token.text}"
            symbols += [(c, name if c != " " else "") for c in token.phonemes or "" if c in self._tts.vocab]
            symbols += [(" ", "")] if token.whitespace else []
        while symbols and symbols[0][0] == " ":
            symbols.pop(0)
        while symbols and symbols[-1][0] == " ":
            symbols.pop()
        pieces = []
        while len(symbols) > MAX_SYMBOLS:
            spaces = [i for i, (c, _) in enumerate(symbols[:MAX_SYMBOLS]) if c == " "]
            clauses = [i for i in spaces if symbols[i - 1][0] in PAUSES]
            cut = (clauses or spaces or [MAX_SYMBOLS])[-1]
            pieces.append(symbols[:cut])
            symbols = symbols[cut:]
        return [p for p in [*pieces, symbols] if any(FROM_HIBARI.get(c) for c, _ in p)]

    def _piece(
        self, symbols: list[tuple[str, str]], rate: float, pitch: float
    ) -> tuple[np.ndarray, list[Phoneme], list[Word]]:
        """One run of the network: sound [T], phonemes and words."""
        ids = np.asarray([self._tts.ids("".join(c for c, _ in symbols))], np.int64)
        pcm, durations = self._run(ids, rate, pitch)
        edges = np.cumsum(durations) - SOUND_LEAD  # the first duration is the pad before the text
        phonemes, words = _spans(symbols, np.clip(edges, 0.0, len(pcm) / SAMPLE_RATE))
        return pcm, phonemes, words

    def _run(self, ids: np.ndarray, rate: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """Sound [T] of symbols int64 [1, n], and how long each of them lasts [n] in seconds."""
        outputs = self._session.run(None, {"ids": ids, "speed": np.asarray([rate], np.float32)})
        *spectrum, melody = [o[0] for o in outputs[:6]]
        # The noise part of the voice is drawn from the text, so a sentence always sounds the same.
        rng = np.random.default_rng(int(ids.sum()) * 1000 + ids.shape[1])
        pcm = self._dsp.synth(*spectrum, melody * np.float32(pitch), rng).astype(np.float32)
        return pcm, np.asarray(outputs[6], np.float64) * DURATION_UNIT


def _spans(symbols: list[tuple[str, str]], edges: np.ndarray) -> tuple[list[Phoneme], list[Word]]:
    """(symbol, word) with edges [n + 1 or more] in seconds -> phonemes and words.

    A stress mark takes time of its own (~75 ms): it belongs to the vowel behind it. A space between two sounding words
    is shared by its neighbours; with a comma or a full stop it is a pause.
    """
    spans: list[list[Any]] = []  # symbol, word, start, end, stressed
    begin: float | None = None
    stressed = False
    for (symbol, word), start, end in zip(symbols, edges[:-1], edges[1:], strict=False):
        if symbol in MARKS:
            if symbol == "ː" and spans:
                spans[-1][3] = end
                continue
            begin = start if begin is None else begin
            stressed = stressed or symbol == STRESS
            continue
        ours = FROM_HIBARI.get(symbol, SILENCE if symbol in PAUSES else "")
        spans.append([ours, word, start if begin is None else begin, end, stressed and ours in VOWELS])
        if ours in VOWELS or not ours:
            stressed = False
        begin = None
    for i, span in enumerate(spans):
        if span[0] == "":
            left = spans[i - 1] if i else None
            right = spans[i + 1] if i + 1 < len(spans) else None
            if left and right and left[0] not in ("", SILENCE) and right[0] not in ("", SILENCE):
                left[3] = right[2] = (span[2] + span[3]) / 2
            else:
                span[0] = SILENCE
    phonemes = [Phoneme(s, float(a), float(b), bool(x)) for s, _, a, b, x in spans if s]
    words: list[Word] = []
    last = ""
    for symbol, word, start, end, _ in spans:
        if not word or symbol in ("", SILENCE):
            continue
        if word == last:
            words[-1] = Word(words[-1].text, words[-1].start_s, float(end))
        else:
            words.append(Word(word.partition(":")[2], float(start), float(end)))
        last = word
    return phonemes, words
