# SPDX-License-Identifier: Apache-2.0
"""`flowact bench hearing`: how well and how soon recorded speech becomes text.

    flowact bench hearing --model tiny.en
    flowact bench hearing --recognizer whisper --model base --language en --wavs ~/recordings --json
    flowact bench hearing --model base.en --fast --wavs ~/LibriSpeech/test-clean

Recordings pass through what the node `speech_recognizer` runs, at the pace of a microphone: voice activity, utterances,
partial texts, and a recogniser in a thread. Time from speech end is counted from the last voiced sample to the moment
the final text is there, so that the detector's own wait (--hangover) is part of it. --fast does not wait for the pace:
word errors and speed only. Sound NAME.wav needs its words in NAME.txt beside it, or in a LibriSpeech *.trans.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from flowact_ros.dialogue.ear import Ear
from flowact_ros.dialogue.hearing import Hearing, HearingConfig, Request
from flowact_ros.dialogue.recognition import Answer, Recognition
from flowact_ros.dialogue.recognizer import (
    BACKENDS,
    RATE,
    Hypothesis,
    Recognizer,
    RecognizerConfig,
    load_recognizer,
)
from flowact_ros.dialogue.vad import BACKENDS as DETECTORS
from flowact_ros.dialogue.vad import EnergyVadConfig, load_vad
from flowact_ros.dialogue.vad_silero import SileroVadConfig
from flowact_ros.evaluation.recordings import Recording, find_recordings, word_errors
from flowact_ros.media.wav import read_audio

DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech"  # beside the checkout
BLOCK_S = 0.04  # of a microphone's chunk
QUIET_S = 1.5  # after a recording, so that its last utterance ends
# [%] word error rate on LibriSpeech test-clean, greedy decoding (Radford et al. 2022, appendix D.1).
PUBLISHED = {"tiny.en": 5.6, "tiny": 7.6, "base.en": 4.2, "base": 5.0, "small.en": 3.1, "small": 3.4}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact bench hearing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recognizer", choices=tuple(BACKENDS), default="faster-whisper")
    parser.add_argument(
        "--model", default="tiny.en", help="name (`flowact weights list`) or path (default: tiny.en)"
    )
    parser.add_argument("--language", default="", help="BCP 47 tag (default: the model decides)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="of the recogniser (default: 1)")
    parser.add_argument("--beam-size", type=int, default=1, help="of final recognitions (default: 1)")
    parser.add_argument(
        "--vad", choices=DETECTORS, default="auto", help="voice activity detector (default: auto)"
    )
    parser.add_argument(
        "--hangover", type=float, default=0.6, metavar="S", help="silence that ends (default: 0.6)"
    )
    parser.add_argument(
        "--partial-interval", type=float, default=1.5, metavar="S", help="0: no partial texts"
    )
    parser.add_argument(
        "--pause", type=float, default=0.2, metavar="S", help="recognised ahead of its end; 0: not"
    )
    parser.add_argument(
        "--wavs", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="recorded speech with its words"
    )
    parser.add_argument("--fast", action="store_true", help="do not wait for the pace of a microphone")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    args = _parser().parse_args(argv)
    try:
        recordings = find_recordings(args.wavs.expanduser())
        hearing = HearingConfig(partial_interval_s=args.partial_interval, pause_s=args.pause)
        config = RecognizerConfig(
            args.recognizer, args.model, args.language, args.device, args.threads, args.beam_size
        )
        detectors = {
            "energy": EnergyVadConfig(hangover_s=args.hangover),
            "silero": SileroVadConfig(hangover_s=args.hangover),
        }
        load_vad(args.vad, RATE, **detectors)
    except ValueError as error:
        print(f"flowact bench hearing: {error}", file=sys.stderr)
        return 2
    try:
        began = time.perf_counter()
        recognizer = Timed(load_recognizer(config))
        recognizer.recognize(np.zeros(RATE, np.float32))  # the first one is slow, and the node does so, too
        loading = time.perf_counter() - began
        recognizer.runs.clear()
        files = [
            listen(
                recording,
                recognizer,
                Hearing(RATE, hearing),
                load_vad(args.vad, RATE, **detectors),
                args.fast,
            )
            for recording in _with_progress(recordings, args.json)
        ]
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        print(f"flowact bench hearing: {error}", file=sys.stderr)
        return 1
    result = summary(files, recognizer.runs, loading, args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


class Timed:
    """A recogniser that notes (seconds of sound, seconds it took, final)."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.runs: list[tuple[float, float, bool]] = []

    def recognize(self, pcm: np.ndarray, *, final: bool = True) -> Hypothesis:
        began = time.perf_counter()
        found = self._recognizer.recognize(pcm, final=final)
        self.runs.append((len(pcm) / RATE, time.perf_counter() - began, final))
        return found


def listen(
    recording: Recording, recognizer: Timed, hearing: Hearing, detector: Any, fast: bool
) -> dict[str, Any]:
    """One recording, as a microphone would bring it. Raises ValueError for sound that cannot be read."""
    pcm, rate = read_audio(recording.path)
    sound = np.concatenate([pcm, np.zeros(round(QUIET_S * rate), np.float32)])
    answers: list[tuple[Answer, float]] = []
    recognition = Recognition(recognizer, lambda answer: answers.append((answer, time.monotonic())))
    ear, block, began = Ear(rate, detector, hearing), round(BLOCK_S * rate), time.monotonic()
    try:
        for start in range(0, len(sound), block):
            piece = sound[start : start + block]
            if not fast:
                # A chunk is sent when its last sample was heard.
                time.sleep(max(0.0, began + (start + len(piece)) / rate - time.monotonic()))
            for request in ear.hear(piece)[1]:
                _put(recognition, request, fast)
        for request in ear.finish():
            recognition.put(request)
        recognition.wait_idle()
    finally:
        recognition.close()
    failed = [answer.error for answer, _ in answers if answer.error]
    if failed:
        raise RuntimeError(f"{recording.path.name}: {failed[0]}")
    finals = [(answer, at) for answer, at in answers if answer.request.final]
    text = " ".join(answer.hypothesis.text for answer, _ in finals if answer.hypothesis.text)
    errors, count = word_errors(recording.text, text)
    after = (
        [] if fast else [at - began - answer.request.end_s for answer, at in finals if answer.hypothesis.text]
    )
    return {
        "name": recording.path.name,
        "seconds": round(len(pcm) / rate, 2),
        "words": count,
        "errors": errors,
        "utterances": len(finals),
        "partials": len(answers) - len(finals),
        "partials_dropped": recognition.dropped,
        "final_text_after_s": [round(seconds, 3) for seconds in after],
        "text": text,
    }


def _put(recognition: Recognition, request: Request, fast: bool) -> None:
    recognition.put(request)
    if fast:
        recognition.wait_idle()  # nothing is dropped for being late


def _with_progress(recordings: list[Recording], quiet: bool) -> Any:
    if quiet:
        return recordings
    from rich.console import Console
    from rich.progress import track

    return track(recordings, "listening", console=Console(stderr=True))


def summary(
    files: list[dict[str, Any]],
    runs: list[tuple[float, float, bool]],
    loading: float,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """The figures of all files together, beside what they were measured with."""
    words = sum(file["words"] for file in files)
    errors = sum(file["errors"] for file in files)
    after = [seconds for file in files for seconds in file["final_text_after_s"]]
    seconds = sum(file["seconds"] for file in files)
    whole = [(sound, took) for sound, took, final in runs if final and sound]
    speed = sum(took for _, took in whole) / max(sum(sound for sound, _ in whole), 1e-9)
    name = Path(args.model).name.removeprefix("faster-whisper-").removeprefix("whisper-").removesuffix(".pt")
    return {
        "recognizer": args.recognizer,
        "model": name,
        "beam_size": args.beam_size,
        "threads": args.threads,
        "device": args.device,
        "vad": args.vad,
        "hangover_s": args.hangover,
        "seconds": round(seconds, 1),
        "words": words,
        "word_error_rate": round(errors / words, 4),
        "published_word_error_rate": PUBLISHED[name] / 100 if name in PUBLISHED else None,
        "real_time_factor": round(speed, 4),  # of recognitions of whole pieces: seconds a second of sound
        "recognition_s": {**_percentiles([took for _, took in whole])},
        "share_of_a_core": round(
            sum(took for _, took, _ in runs) / seconds, 4
        ),  # partial recognitions included
        "final_text_after_s": _percentiles(after) if after else None,
        "load_s": round(loading, 2),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_average": round(os.getloadavg()[0], 2),
        "files": files,
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(values, share)), 3) for share in (50, 95)}


def show(result: dict[str, Any]) -> None:
    """A table of the files, and the figures of them all."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(100, Console().width) if not sys.stdout.isatty() else None)
    table = Table(box=None)
    for title in ("recording", "seconds", "words", "errors", "utterances", "final text after [s]"):
        table.add_column(title, justify="left" if title == "recording" else "right")
    for file in result["files"]:
        after = ", ".join(f"{seconds:.2f}" for seconds in file["final_text_after_s"]) or "-"
        numbers = (f"{file['seconds']:.1f}", file["words"], file["errors"], file["utterances"], after)
        table.add_row(file["name"], *map(str, numbers))
    console.print(table)
    rate, published = 100 * result["word_error_rate"], result["published_word_error_rate"]
    beside = f" ({100 * published:.1f} % published, LibriSpeech test-clean)" if published else ""
    after = result["final_text_after_s"]
    took, threads = result["recognition_s"], result["threads"]
    lines = [
        f"{result['recognizer']}, {result['model']}, {threads} thread(s), load average {result['load_average']}",
        f"word error rate        {rate:.1f} %{beside}",
        f"real-time factor       {result['real_time_factor']:.3f}; a core is busy {result['share_of_a_core']:.0%}",
        f"a recognition takes    p50 {took['p50']:.2f} s, p95 {took['p95']:.2f} s",
    ]
    if after:
        lines.append(
            f"final text after       p50 {after['p50']:.2f} s, p95 {after['p95']:.2f} s from the end of speech"
        )
    lines.append(f"memory                 {result['rss_mb']} MB; loaded in {result['load_s']:.1f} s")
    for line in lines:
        console.print(line, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
