# SPDX-License-Identifier: Apache-2.0
"""`flowact render`: a character says a sound file, written as a film; on one device or several.

flowact render hello.wav out.mp4 --character mia
flowact render hello.wav out.mp4 --devices cpu,cpu            # two processes share the denoiser
flowact render hello.wav out.mp4 --preset avatar_14b --weights DIR --devices cuda:0,cuda:1 --decoder cuda:2

As fast as it can be made, through the engine's session, without its clock and without ROS. Two runs of the same
command on the same machine give the same hash of all frames.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowact_ros.engine.interfaces import Frame, Pipeline
from flowact_ros.timebase import FRAME_RATE

TAIL_S = 0.5  # of silence after the last sample, for the mouth to close


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="flowact render", description=__doc__, formatter_class=raw)
    parser.add_argument("wav", type=Path, help="what it says: wav, flac, ogg or mp3")
    parser.add_argument("out", type=Path, help="the film, an .mp4 file")
    parser.add_argument("--preset", default="avatar_cpu", help="model preset (default: avatar_cpu)")
    parser.add_argument("--weights", metavar="DIR", help="its weights (default: the shipped ones); random: untrained")
    parser.add_argument("--character", default="mia", help="name of a shipped character (default: mia)")
    parser.add_argument("--instruction", default="", metavar="TEXT", help="what it is to do")
    parser.add_argument("--seed", type=int, default=0, help="of the stream's noise")
    parser.add_argument("--seconds", type=float, metavar="N", help="of film (default: as long as the sound)")
    parser.add_argument(
        "--devices", default="cpu", metavar="LIST", help="of the denoiser, one process each (default: cpu)"
    )
    parser.add_argument("--decoder", metavar="DEVICE", help="a device of its own for the decoder, in one more process")
    parser.add_argument("--precision", default="auto", help="of the denoiser (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 a command line that cannot be carried out."""
    options = _parser().parse_args(argv)
    try:
        result = _render(options)
    except (ValueError, OSError, MemoryError) as error:
        print(f"flowact render: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"flowact render: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{options.out}: {result['frames']} frames in {result['seconds']:.1f} s, hash {result['hash']}")
    return 0


def _render(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from flowact_ros.engine.characters import load_character
    from flowact_ros.engine.session import Session
    from flowact_ros.media.mp4 import Mp4Writer
    from flowact_ros.media.wav import read_audio

    if options.out.suffix.lower() != ".mp4" or not options.out.resolve().parent.is_dir():
        raise ValueError(f"{options.out} must be an .mp4 file in a folder that exists")
    if options.seconds is not None and not 0 < options.seconds <= 86_400:
        raise ValueError(f"--seconds: {options.seconds:g} is not more than 0 and at most 86400")
    pcm, rate = read_audio(options.wav)
    picture = load_character(options.character)
    seconds = options.seconds or len(pcm) / rate + TAIL_S
    count, digest = max(1, round(seconds * FRAME_RATE)), hashlib.blake2b(digest_size=8)
    with _pipeline(options) as pipeline:
        session = Session(pipeline, picture, seed=options.seed, reference_id=options.character)
        if options.instruction:
            session.set_instruction(options.instruction)
        session.push_audio(pcm, rate, utterance_id=options.wav.stem, last=True)
        began = time.monotonic()
        with session, Mp4Writer(options.out, pipeline.width, pipeline.height) as writer:
            for frame in _shown(session.frames(realtime=False), count, quiet=options.json):
                writer.write_frame(frame.rgb)
                writer.write_audio(frame.audio)
                digest.update(np.ascontiguousarray(frame.rgb).data)
        took, provenance = time.monotonic() - began, pipeline.provenance
    return {
        "frames": count, "seconds": round(took, 3), "fps": round(count / took, 2), "hash": digest.hexdigest(),
        "preset": options.preset, "denoiser": provenance.denoiser, "device": options.devices,
        "decoder": options.decoder or "",
    }  # fmt: skip


@contextmanager
def _pipeline(options: argparse.Namespace) -> Iterator[Pipeline]:
    """On one device, or on as many processes as devices are named."""
    from flowact_ros.engine.parallel.build import build_across
    from flowact_ros.engine.parallel.ranks import Layout
    from flowact_ros.engine.pipeline import build_pipeline

    layout = Layout(tuple(filter(None, options.devices.replace(" ", "").split(","))), options.decoder)
    settings = {"weights": options.weights, "precision": options.precision}
    if layout.size == 1:
        yield build_pipeline(options.preset, layout.devices[0], **settings)
        return
    with build_across(layout, options.preset, **settings) as pipeline:
        yield pipeline


def _shown(frames: Iterator[Frame], count: int, *, quiet: bool) -> Iterator[Frame]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True, quiet=quiet)
    for _ in track(range(count), "frames", console=console, disable=quiet):
        yield next(frames)


if __name__ == "__main__":
    sys.exit(main())
