# SPDX-License-Identifier: Apache-2.0
"""The command line of `flowact replay`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flowact_ros.engine.comparison import Comparison
from flowact_ros.engine.interfaces import EngineError, Frame
from flowact_ros.engine.provenance import Provenance
from flowact_ros.engine.replay import replay
from flowact_ros.launcher import environment
from flowact_ros.media.bag import BagError
from flowact_ros.media.errors import MediaError
from flowact_ros.nodes.bag_outputs import Hashes, Output, Topics, Video
from flowact_ros.nodes.bag_records import Recorded, Stream, open_bag, read_records
from flowact_ros.nodes.bag_replay import (
    Machine,
    Tally,
    Variant,
    check_model,
    pipeline_for,
    references_for,
    same_denoiser,
    send,
    side_by_side,
    varied,
)
from flowact_ros.nodes.bag_rerun import rerun
from flowact_ros.nodes.bag_tables import FORMATS, write_tables
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Reference
    from flowact_ros.engine.pipeline import AvatarPipeline

EXAMPLES = """examples:
  flowact replay talk --verify                 are its frames the same, bit for bit?
  flowact replay talk --mp4 talk.mp4
  flowact replay talk --hashes talk.txt        a line a frame
  flowact replay talk --publish                image_raw, audio and motion in real time
  flowact replay talk --mp4 both.mp4 --with seed=5 --with character=mia,seed=5
  flowact replay talk --from-inputs --mp4 again.mp4     from speech, instruction and look_at instead
  flowact replay talk --tables talk_tables     motion, transcript and latencies as CSV (--format parquet)"""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _carry_out(options)
    except (MediaError, ValueError, RuntimeError, OSError) as error:  # of our own rooms, written for people
        print(f"flowact replay: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact replay",
        description="Makes the frames of a recording again, from the records of its steps.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", metavar="BAG", help="folder or file of a rosbag2 recording (mcap, sqlite3)")
    parser.add_argument("--verify", action="store_true", help="end with status 1 where frames differ")
    parser.add_argument("--mp4", metavar="FILE", help="write a video with sound")
    parser.add_argument("--hashes", metavar="FILE", help="write a line a frame: index, hashes of picture and sound")
    parser.add_argument("--publish", action="store_true", help="publish image_raw, audio and motion in real time")
    parser.add_argument("--tables", metavar="FOLDER", help="write tables of motion, transcript and latencies instead")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the tables (default: csv)")
    parser.add_argument(
        "--with", dest="variants", action="append", default=[], metavar="WHAT",
        help="show another run beside it: seed=N, character=NAME or IMAGE, weights=FOLDER, or some of them with commas "
        "between; may be given again",
    )  # fmt: skip
    parser.add_argument("--from-inputs", action="store_true", help="run it anew from speech, instruction and look_at")
    parser.add_argument("--realtime", action="store_true", help="with --from-inputs: in real time, as live")
    parser.add_argument("--seed", type=int, help="with --from-inputs: another one")
    parser.add_argument("--character", help="with --from-inputs: another one, a shipped name or an image")
    parser.add_argument("--stream", type=int, metavar="N", help="which one, where a recording has several (from 1 on)")
    parser.add_argument("--namespace", default="", help="of which avatar, where several were recorded")
    parser.add_argument("--to", default="avatar", metavar="NS", help="with --publish: namespace (default: avatar)")
    parser.add_argument("--reference", default="", metavar="IMAGE", help="a picture that the recording does not hold")
    parser.add_argument("--weights", metavar="FOLDER", help="weights to use (default: those that are installed)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: as recorded)")
    parser.add_argument("--runtime", choices=("openvino", "eager"), help="of the renderer (default: as recorded)")
    return parser


def _carry_out(options: argparse.Namespace) -> int:
    variants = [_variant(text) for text in options.variants]
    if variants and not options.mp4:
        raise ValueError("--with shows runs side by side in a video: give --mp4 FILE, too")
    if (options.realtime or options.seed is not None or options.character) and not options.from_inputs:
        raise ValueError("--realtime, --seed and --character go with --from-inputs; beside the recording, use --with")
    for name in ("mp4", "hashes"):
        _check_target(getattr(options, name), f"--{name}")
    try:
        options.to = environment.checked_namespace(options.to)
    except environment.EnvironmentProblem as problem:
        raise ValueError(f"--to: {problem}") from None
    if options.publish:
        environment.check(os.environ)
    if options.mp4 and Path(options.mp4).suffix.lower() != ".mp4":
        raise ValueError(f"--mp4: {options.mp4} must end in .mp4")
    with open_bag(options.bag) as bag:
        if options.tables:
            for line in write_tables(bag, Path(options.tables).expanduser(), options.format, options.namespace):
                print(line)
            return 0
        machine = Machine(options.device, options.runtime, options.weights)
        if options.from_inputs:
            frames, pipeline = rerun(
                bag, machine, seed=options.seed, character=options.character, reference=options.reference,
                namespace=options.namespace, realtime=options.realtime,
            )  # fmt: skip
            with _bar("runs anew", None) as advance:
                tally = send(frames, _outputs(options, pipeline), advance)
            print(f"{tally.frames} frames, {tally.frames / FRAME_RATE:.1f} s, hash {tally.hash}")
            return 0
        recorded = read_records(bag, options.namespace)
    for remark in recorded.remarks:
        print(f"{options.bag}: {remark}", file=sys.stderr)
    return _replay(options, recorded, machine, variants)


def _replay(options: argparse.Namespace, recorded: Recorded, machine: Machine, variants: list[Variant]) -> int:
    streams = _chosen(options, recorded)
    outputs: list[Output] | None = None
    pipeline, made_by, good = None, None, True
    for stream in streams:
        number = recorded.streams.index(stream) + 1
        first, last = stream.records[0], stream.records[-1]
        lack = f", {stream.missing} records missing before it" if stream.missing else ""
        print(f"stream {number} of {len(recorded.streams)}: steps {first.step} to {last.step}{lack}")
        try:
            if stream.provenance is None:
                raise BagError("its records do not say what computed them (provenance is empty)")
            if pipeline is None or stream.provenance != made_by:
                pipeline, made_by = pipeline_for(stream.provenance, machine), stream.provenance
                check_model(made_by, pipeline.provenance)
            outputs = _outputs(options, pipeline) if outputs is None else outputs
            good &= _replay_stream(stream, recorded, pipeline, machine, variants, outputs, options.reference)
        except (EngineError, BagError) as error:
            if len(streams) == 1:
                raise
            print(f"stream {number}: {error}", file=sys.stderr)
            pipeline, good = None, False
    return 0 if good or not options.verify else 1


def _replay_stream(
    stream: Stream, recorded: Recorded, pipeline: AvatarPipeline, machine: Machine, variants: list[Variant],
    outputs: list[Output], picture: str,
) -> bool:  # fmt: skip
    """Are the frames the same, or the same motion drawn otherwise?"""
    references = references_for(pipeline, stream, recorded, picture)
    redraw = not same_denoiser(pipeline, references, stream.records)
    compared = Comparison()
    frames = replay(pipeline, references, stream.records, drawn=compared, redraw=redraw)
    if variants:
        runs = [_run_of(variant, stream, references, pipeline, machine) for variant in variants]
        frames = side_by_side([frames, *runs], ["as recorded", *(variant.name for variant in variants)])
    last = max(record.first_frame + record.latents * FRAMES_PER_LATENT for record in stream.records)
    with _bar("replays", last - stream.records[0].first_frame) as advance:
        tally = send(frames, outputs, advance)
    made_by = stream.provenance
    assert made_by is not None
    for line in _told(tally, compared, made_by, pipeline.provenance, redraw=redraw):
        print(line)
    return compared.exact or compared.alike


def _run_of(
    variant: Variant, stream: Stream, references: dict[str, Reference], pipeline: AvatarPipeline, machine: Machine
) -> Iterator[Frame]:
    assert stream.provenance is not None
    if variant.weights is not None:
        pipeline = pipeline_for(stream.provenance, Machine(machine.device, machine.runtime, variant.weights))
        references = {name: pipeline.load_reference(reference.rgb) for name, reference in references.items()}
    records, references = varied(stream, variant, references, pipeline)
    return replay(pipeline, references, records)


def _told(tally: Tally, compared: Comparison, there: Provenance, here: Provenance, *, redraw: bool) -> Iterator[str]:
    seconds = tally.frames / FRAME_RATE
    yield f"{tally.frames} frames ({tally.first} to {tally.last}), {seconds:.2f} s, hash {tally.hash}"
    names = there.differences(here)
    yield (
        f"made with {there.preset}, weights {there.weights}, {there.runtime} (denoiser {there.denoiser}, renderer "
        f"{there.renderer}), {there.processor}, threads {there.threads}"
    )
    for name in names:
        yield f"here {name.replace('_', ' ')} differs: {getattr(here, name)} instead of {getattr(there, name)}"
    if redraw:
        yield "the denoiser computes otherwise here: the recorded motion was drawn again"
    if not compared.latents:
        yield "nothing to compare: no latent of these steps was drawn live"
    elif compared.exact:
        more = f" ({compared.uncompared} more would have come too late live)" if compared.uncompared else ""
        yield f"the same, bit for bit: motion and frames of all {compared.latents} latents that were drawn{more}"
    else:
        yield (
            f"motion: {compared.same_motion} of {compared.latents} latents the same"
            + (f", greatest difference {compared.motion_error:.3g} from step {compared.motion_from} on"
               if compared.motion_from is not None else ", exact")
        )  # fmt: skip
        whole, worst = compared.psnr
        yield (
            f"frames: {compared.same_frames} of {compared.latents} latents the same, PSNR {whole:.1f} dB, of the worst "
            f"{worst:.1f} dB"
        )


def _chosen(options: argparse.Namespace, recorded: Recorded) -> list[Stream]:
    """The streams to replay: the one that was asked for; with an output the longest; else all."""
    count = len(recorded.streams)
    if options.stream is not None:
        if not 1 <= options.stream <= count:
            raise ValueError(f"--stream: {options.stream} is not 1 … {count}")
        return [recorded.streams[options.stream - 1]]
    if count > 1 and (options.mp4 or options.hashes or options.publish):
        longest = max(recorded.streams, key=lambda stream: len(stream.records))
        print(f"{options.bag} has {count} streams: the longest is taken, --stream N chooses another", file=sys.stderr)
        return [longest]
    return recorded.streams


def _outputs(options: argparse.Namespace, pipeline: AvatarPipeline) -> list[Output]:
    outputs: list[Output] = []
    if options.mp4:
        outputs.append(Video(options.mp4))
    if options.hashes:
        outputs.append(Hashes(options.hashes))
    if options.publish:
        outputs.append(Topics(options.to, pipeline.control_names))
    return outputs


def _variant(text: str) -> Variant:
    try:
        return Variant.parse(text)
    except ValueError as error:
        raise ValueError(f"--with: {error}") from None


def _check_target(path: str | None, option: str) -> None:
    if path and not Path(path).expanduser().absolute().parent.is_dir():
        raise ValueError(f"{option}: there is no folder {Path(path).expanduser().absolute().parent}")


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
