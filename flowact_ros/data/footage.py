# SPDX-License-Identifier: Apache-2.0
"""`flowact data prepare`: your own footage as training material.

    flowact data prepare talks/*.mp4 --out runs/data/mine
    flowact data prepare person.mov --landmarker face_landmarker.task --out runs/data/person    # with MediaPipe
    flowact data prepare talks/*.mp4 --cluster --workers 8 --out runs/data/mine    # eight clips at a time, on Ray

Every clip that FFmpeg reads (mp4, mov, mkv, webm) becomes frames at 25 a second with sound at 24 kHz. It is split where
shots begin, cut to a square around the face, and heard by the audio encoder. A clip that cannot be used is named with
the reason, and the others go on. What is there is not made again, so the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from flowact_ros.data.footage_faces import (
    Finder,
    MediaPipeFinder,
    RendererFinder,
    Square,
    square_around,
    track,
)
from flowact_ros.data.footage_store import fingerprint, read_list, write_list, write_shot
from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.media.clip_reader import ClipReader
from flowact_ros.media.errors import MediaError
from flowact_ros.models.audio_encoder import load_audio_encoder
from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.config import ModelConfig, SchedulerConfig, preset
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLES_PER_FRAME
from flowact_ros.vocabulary import AUDIO_ENCODERS, EMBEDDED, WHISPER
from flowact_ros.weights_store import WeightsError, find_audio_weights

SHORTEST = 50  # frames of a shot: less is no speech
LONGEST = 1000  # frames of a file; a longer shot is kept in several
EVERY = 10  # frames: how often a face is looked for, to find out where the square is
LOCAL = "local"  # instead of a cluster's address: workers on this machine
LEAST_FOUND = 0.8  # share of a shot's frames with a face


@dataclass(frozen=True)
class Settings:
    """What all clips of a folder have alike."""

    size: int
    heard_by: str
    finder: str


@dataclass(frozen=True)
class Made:
    """What came of a clip: the fingerprint of its content, its shots' files, and a line for people."""

    name: str
    source: str
    shots: list[str]
    told: str


@dataclass(frozen=True)
class Part:
    """Frames first … stop - 1 of a clip, which show one face in one shot."""

    first: int
    stop: int
    square: Square


class Preparation:
    """Clips to shots in a folder. Raises ValueError for a folder that was made in another way, or that is damaged."""

    def __init__(self, out: Path, config: ModelConfig, finder: Finder, heard_by: str) -> None:
        self.out, self.finder = out, finder
        self.settings = Settings(config.renderer.size, heard_by, finder.name)
        self.list = read_list(out)
        made = self.list["settings"]
        if made is not None and made != asdict(self.settings):
            differing = next(name for name, value in asdict(self.settings).items() if made.get(name) != value)
            raise ValueError(
                f"{out} was prepared with {differing} {made.get(differing)}, not {getattr(self.settings, differing)}; "
                "give another folder as --out"
            )
        self.list["settings"] = asdict(self.settings)
        self.window = AudioWindow(load_audio_encoder(heard_by, find_audio_weights(heard_by)))
        self.step = FRAMES_PER_LATENT * SchedulerConfig().chunk_latents if heard_by == WHISPER else None

    def add(self, path: Path) -> str:
        """Prepare one clip and list it; returns what came of it, in a line. Raises as `make` does."""
        return self.list_clip(self.make(path))

    def list_clip(self, made: Made) -> str:
        """Put a prepared clip on the folder's list; returns what came of it."""
        entry = {"source": made.source, "shots": made.shots}
        if self.list["clips"].get(made.name, {}).get("shots") != made.shots:
            self.list["clips"][made.name] = entry
            write_list(self.out, self.list)
        return made.told

    def make(self, path: Path) -> Made:
        """Prepare one clip: its shots are written, unless they are listed and there.

        Raises MediaError for a clip that cannot be used, OSError for a full disk.
        """
        reader = ClipReader(path)
        name = fingerprint(path)
        done = self.list["clips"].get(name)
        if done is not None and all((self.out / shot).is_file() for shot in done["shots"]):
            return Made(name, done["source"], done["shots"], f"{len(done['shots'])} shots are there")
        pcm = reader.sound()
        parts, told = self._parts(reader)
        pcm = pcm[: max(part.stop for part in parts) * SAMPLES_PER_FRAME]
        pcm = np.pad(pcm, (0, max(part.stop for part in parts) * SAMPLES_PER_FRAME - len(pcm)))
        with torch.no_grad():
            sound = self.window.whole_features(pcm, self.step).float().numpy()
        shots, skipped = [], []
        for number, (part, pictures) in enumerate(self._pictures(reader, parts)):
            found = track(self.finder.find(pictures))
            if found is None or found.found < LEAST_FOUND:
                skipped.append(f"no face {_span(part.first, part.stop)}")
                continue
            shot = f"{name}-{number:03d}.safetensors"
            samples = slice(part.first * SAMPLES_PER_FRAME, part.stop * SAMPLES_PER_FRAME)
            arrays = {
                "pcm": np.round(pcm[samples].clip(-1, 1) * 32767).astype(np.int16),
                "sound": sound[part.first : part.stop].astype(np.float16),
                "places": found.places,
            }
            about = {
                "source": path.name,
                "start": str(part.first / FRAME_RATE),
                "heard_by": self.settings.heard_by,
                "detector": self.finder.name,
            }
            write_shot(self.out / shot, pictures, arrays, about)
            shots.append(shot)
        if not shots:
            raise MediaError(f"{path} shows no face for {SHORTEST / FRAME_RATE:g} s or more ({'; '.join(skipped)})")
        seconds = sum(part.stop - part.first for part in parts) / FRAME_RATE
        notes = "".join(f"; {note}" for note in (*told, *skipped))
        return Made(name, path.name, shots, f"{len(shots)} shots, {seconds:.1f} s{notes}")

    def _parts(self, reader: ClipReader) -> tuple[list[Part], list[str]]:
        """Where the shots with a face lie, and what is to be told of the others. Raises MediaError if there is none."""
        told: list[str] = []
        parts: list[Part] = []
        begun, looked, shape, count = 0, [], (0, 0), 0

        def end(stop: int) -> None:
            found = [places for places in looked if places is not None]
            if stop - begun < SHORTEST:
                told.append(f"{_span(begun, stop)} is shorter than {SHORTEST / FRAME_RATE:g} s")
            elif len(found) < LEAST_FOUND * len(looked):
                told.append(f"no face {_span(begun, stop)}")
            elif (square := square_around(np.stack(found), *shape)) is None:
                told.append(f"the face is too small {_span(begun, stop)}")
            else:
                pieces = -(-(stop - begun) // LONGEST)
                at = np.linspace(begun, stop, pieces + 1).round().astype(int).tolist()
                parts.extend(Part(a, b, square) for a, b in zip(at, at[1:]))

        for k, (picture, cut) in enumerate(reader.frames()):
            if cut and k:
                end(k)
                begun, looked = k, []
            if (k - begun) % EVERY == 0:
                looked += self.finder.find([picture])
            shape, count = picture.shape[:2], k + 1
        end(count)
        if reader.damage:
            told.append(f"{reader.damage}; what came before is kept")
        if not parts:
            raise MediaError(f"{reader.path} holds no shot that can be used: {'; '.join(told)}")
        return parts, told

    def _pictures(self, reader: ClipReader, parts: list[Part]) -> Iterator[tuple[Part, list[np.ndarray]]]:
        """The squares of each part's frames."""
        waiting = list(parts)
        pictures: list[np.ndarray] = []
        for k, (picture, _) in enumerate(reader.frames()):
            if not waiting:
                return
            part = waiting[0]
            if part.first <= k < part.stop:
                pictures.append(part.square.cut(picture, self.settings.size))
            if k == part.stop - 1:
                yield waiting.pop(0), pictures
                pictures = []


def _span(first: int, stop: int) -> str:
    return f"from {first / FRAME_RATE:.1f} to {stop / FRAME_RATE:.1f} s"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="flowact data prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    top.add_argument("--out", type=Path, required=True, help="folder that receives the shots")
    top.add_argument("--preset", default="avatar_cpu", help="whose picture size it is for")
    top.add_argument(
        "--landmarker", type=Path, metavar="TASK",
        help="MediaPipe's face_landmarker.task, for people; without it drawn characters are found",
    )  # fmt: skip
    top.add_argument("--audio-encoder", choices=AUDIO_ENCODERS, default=EMBEDDED, help="who hears the sound")
    top.add_argument(
        "--threads", type=int, choices=range(1, 65), metavar="1..64", default=1, help="of each process (default: 1)"
    )
    top.add_argument(
        "--cluster", nargs="?", const=LOCAL, metavar="ADDRESS",
        help="clips side by side, by workers of a Ray cluster (extra `cluster`); without an address on this machine",
    )  # fmt: skip
    top.add_argument(
        "--workers", type=int, choices=range(1, 4097), metavar="1..4096", default=2,
        help="clips at a time on the cluster (default: 2)",
    )  # fmt: skip
    return top


def preparation(out: Path, preset_name: str, landmarker: Path | None, heard_by: str) -> Preparation:
    """Raises ConfigError, CheckpointError, WeightsError, ValueError, ModuleNotFoundError for what is not there."""
    config = preset(preset_name)
    finder = MediaPipeFinder(landmarker) if landmarker else RendererFinder(config)
    return Preparation(out, config, finder, heard_by)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all that could be used is there, 1 nothing could or the disk failed, 2 bad command line or
    something is missing on this machine."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        make = partial(preparation, args.out.resolve(), args.preset, args.landmarker, args.audio_encoder)
        here = make()  # also of a cluster: what is wrong with the options is told before it starts
        every = _one_by_one(here, args.clips) if args.cluster is None else _on_cluster(args, make)
    except ModuleNotFoundError as error:
        print(f"flowact data prepare: {error}; install it, or leave out --landmarker", file=sys.stderr)
        return 2
    except (ValueError, CheckpointError, WeightsError, OSError) as error:
        print(f"flowact data prepare: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    usable = 0
    try:
        for number, (clip, made) in enumerate(every, 1):
            if isinstance(made, Made):
                print(f"{number}/{len(args.clips)} {clip}: {here.list_clip(made)}", flush=True)
                usable += 1
            else:
                told = " ".join(str(made).split())
                print(f"{number}/{len(args.clips)} skipped: {told}", file=sys.stderr, flush=True)
    except (OSError, RuntimeError) as error:  # a full disk: the next clip would not fit, either; a cluster that is gone
        told = " ".join(str(error).split())
        print(f"flowact data prepare: {told}; what is in {args.out} is whole", file=sys.stderr)
        return 1
    print(f"{usable} of {len(args.clips)} clips can be used; {args.out}")
    return 0 if usable else 1


def _one_by_one(here: Preparation, clips: Sequence[Path]) -> Iterator[tuple[Path, Made | MediaError]]:
    for clip in clips:
        try:
            yield clip, here.make(clip)
        except MediaError as error:
            yield clip, error


def _on_cluster(
    args: argparse.Namespace, make: Callable[[], Preparation]
) -> Iterator[tuple[Path, Made | MediaError]]:
    """Raises ValueError for what is no address, and where Ray is not installed."""
    from importlib.util import find_spec

    from flowact_ros.data.footage_cluster import Cluster, made_on

    if args.cluster not in (LOCAL, "auto") and ":" not in args.cluster:
        raise ValueError(
            f"--cluster {args.cluster} is no address; give auto, HOST:PORT or ray://HOST:PORT, and clips before it"
        )
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise ValueError("--cluster needs Ray Data, which is not installed: pip install 'flowact_ros[cluster]'")
    return made_on(Cluster(args.cluster, args.workers, args.threads), args.clips, make)
