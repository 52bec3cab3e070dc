# SPDX-License-Identifier: Apache-2.0
"""Performances of footage, for the denoiser: its motion as a codec reads it, beside its sound.

They lie in the run folder, in the format of `data.performances`, with the name of the codec that read them: motion that
another one read would be another movement.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.footage_store import Shot
from flowact_ros.data.performances import Performances, read_performances
from flowact_ros.data.wordings import WORDINGS
from flowact_ros.dialogue.vad import load_vad
from flowact_ros.media.image import encode_png
from flowact_ros.models.codec.motion import clamp, denormalise
from flowact_ros.models.codec.motion_encoder import Codec, Seen
from flowact_ros.models.text_encoder import load_text_encoder
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE
from flowact_ros.training.stages.codec_data import picture, trained_on

FRAMES = 100  # of a performance: a denoiser's memory and three chunks behind it
HOP = 50  # frames from one performance to the next of the same shot
TRIED = 16  # frames of a shot among which the reference is chosen
AT_ONCE = 8  # frames that are read together
PAUSE_S = 0.8  # of silence, after which somebody listens rather than speaks
TEXTS = tuple(WORDINGS[kind][0] for kind in ("idle", "speaking"))
REFERENCE = "reference.png"  # in the run folder: a frame at rest, to show the character by
TRAINED, HELD = "motion", "motion_heldout"  # folders in the run folder


def write_motion(run: Path, codec: Codec, name: str, shots: Sequence[Shot], replay: Sequence[Path]) -> None:
    """Write the performances of `shots` below `run`, unless they are there.

    codec: whose name is `name` (`codec_weights.codec_id`); replay: folders of `flowact data motion`; as many of their
    performances are put beside those of footage, so that what footage does not show is not forgotten
    Raises ValueError where another codec read them, for shots that are all too short, and for a replay that another
    encoder heard.
    """
    path = run / TRAINED / "0000000.npz"
    if path.exists():
        with np.load(path) as file:
            if (found := str(file["codec"])) != name:
                raise ValueError(
                    f"the motion in {run / TRAINED} was read by codec {found}, --codec is {name}; begin a new --run"
                )
        return
    trained, held = [], []
    for number, shot in enumerate(shots, 1):
        controls, text = read_motion(codec, shot), spoken(shot)
        material = {"controls": controls, "sound": shot.array("sound"), "text": text}
        stop = trained_on(shot)
        trained += _windows(material, 0, stop)
        held += _windows(material, stop, len(shot))
        print(f"{number}/{len(shots)} {shot.path.name}: motion of {len(shot)} frames read", flush=True)
    if not trained:
        raise ValueError(f"no shot has {FRAMES / FRAME_RATE:g} s before its last fifth; prepare longer clips")
    if not held:  # ends of shots are short: the last performance is kept for the figures
        if len(trained) < 3:
            raise ValueError(f"{len(trained)} pieces of {FRAMES / FRAME_RATE:g} s are too few; prepare more clips")
        held = [trained.pop()]
        trained.pop()  # half of it is the same frames
    still, _ = reference_of(codec, shots[0])
    run.mkdir(parents=True, exist_ok=True)
    (run / REFERENCE).write_bytes(encode_png(shots[0].picture(still).transpose(1, 2, 0)))
    encoder = load_text_encoder()
    vectors = np.stack([encoder.encode([words])[0, 0].numpy() for words in TEXTS])
    heard_by = shots[0].heard_by
    _write(run / HELD / "0000000.npz", held, TEXTS, vectors, heard_by, name)
    if replay:
        known = read_performances(*replay)
        _write(run / TRAINED / "0000001.npz", _some(known, len(trained)), known.texts, known.vectors, heard_by, name)
    _write(path, trained, TEXTS, vectors, heard_by, name)  # last: all are there when it is


@torch.no_grad()
def read_motion(codec: Codec, shot: Shot) -> np.ndarray:
    """Raw motion float16 `[T, K]` of a shot, inside the rig's limits; its reference is its frame nearest to rest."""
    _, reference = reference_of(codec, shot)
    parts = []
    for first in range(0, len(shot), AT_ONCE):
        frames = torch.stack([picture(shot, k) for k in range(first, min(first + AT_ONCE, len(shot)))])
        parts.append(codec.encode(frames, reference))
    return clamp(denormalise(torch.cat(parts).float())).numpy().astype(np.float16)


@torch.no_grad()
def reference_of(codec: Codec, shot: Shot) -> tuple[int, Seen]:
    """The frame nearest to rest, among some of the part that is trained on, and what the motion encoder sees of it."""
    some = np.linspace(0, trained_on(shot) - 1, TRIED).round().astype(int).tolist()
    tried = [codec.see(picture(shot, k)[None])[2] for k in some]
    nearest = int(torch.cat([seen.read for seen in tried]).abs().mean(1).argmin())
    return some[nearest], tried[nearest]


def spoken(shot: Shot) -> np.ndarray:
    """Which of `TEXTS` goes with each frame, int16 `[T]`: the second while somebody speaks."""
    detector = load_vad("auto", SAMPLE_RATE)
    text = np.zeros(len(shot), np.int16)
    began: float | None = None
    spans: list[tuple[float, float]] = []
    for event in detector.push(shot.array("pcm").astype(np.float32) / 32768):
        if event.voiced:
            began = event.time_s
        elif began is not None:
            spans.append((began, event.time_s))
            began = None
    if began is not None:
        spans.append((began, len(shot) / FRAME_RATE))
    for start, stop in spans:  # short pauses belong to speech
        text[max(0, int(start * FRAME_RATE)) : int((stop + PAUSE_S) * FRAME_RATE)] = 1
    return text


def _windows(material: dict[str, np.ndarray], first: int, stop: int) -> list[dict[str, np.ndarray]]:
    starts = range(first, stop - FRAMES + 1, HOP)
    return [{key: value[k : k + FRAMES] for key, value in material.items()} for k in starts]


def _some(known: Performances, count: int) -> list[dict[str, np.ndarray]]:
    """`count` pieces of performances, of places that are the same every time."""
    if known.frames < FRAMES:
        raise ValueError(f"the performances to replay have {known.frames} frames; {FRAMES} are needed")
    rng = np.random.default_rng(0)
    rows = rng.integers(len(known), size=count)
    starts = rng.integers(known.frames - FRAMES + 1, size=count)
    return [
        {
            "controls": known.controls[row, k : k + FRAMES],
            "sound": known.sound[row, k : k + FRAMES],
            "text": known.text[row, k : k + FRAMES].astype(np.int16),
        }
        for row, k in zip(rows, starts)
    ]


def _write(
    path: Path, rows: list[dict[str, np.ndarray]], texts: Sequence[str], vectors: np.ndarray | Tensor, heard_by: str,
    name: str,
) -> None:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            **{key: np.stack([row[key] for row in rows]) for key in rows[0]},
            texts=np.array(texts),
            vectors=np.asarray(vectors, np.float16),
            heard_by=np.array(heard_by),
            codec=np.array(name),
        )
    partial.replace(path)
