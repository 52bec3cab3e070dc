# SPDX-License-Identifier: Apache-2.0
"""The frames of a recording again, from its records; what `flowact replay` does.

On the same kind of machine they are the same, bit for bit. Elsewhere the recorded motion is drawn again, and what
differs is said, with by how much.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.comparison import Comparison
from flowact_ros.engine.interfaces import ChunkRecord, EngineError, Frame, Reference
from flowact_ros.engine.provenance import MODEL_FIELDS, MOTION_FIELDS, Provenance
from flowact_ros.engine.references import load_reference
from flowact_ros.engine.replay import beginning, replay
from flowact_ros.media.bag import BagError
from flowact_ros.media.image import read_image
from flowact_ros.nodes.bag_outputs import Output
from flowact_ros.nodes.bag_records import Recorded, Stream

if TYPE_CHECKING:
    from flowact_ros.engine.pipeline import AvatarPipeline

PROBE = 12  # records by which is found out whether the denoiser computes here what it computed there


@dataclass(frozen=True)
class Machine:
    """What is to compute, where it is not what is recorded; None: as recorded, where that is here."""

    device: str | None = None
    runtime: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Variant:
    """Another run of the same sound and instructions. None: as recorded. character: a shipped name, or an image."""

    seed: int | None = None
    character: str | None = None
    weights: str | None = None

    @property
    def name(self) -> str:
        given = {"seed": self.seed, "character": self.character, "weights": self.weights}
        return ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)

    @staticmethod
    def parse(text: str) -> Variant:
        """"seed=3,character=mia" -> Variant. Raises ValueError."""
        values: dict[str, Any] = {}
        for part in text.split(","):
            key, equals, value = part.strip().partition("=")
            if not equals or key not in ("seed", "character", "weights") or not value:
                raise ValueError(f"{part.strip()!r} is none of seed=NUMBER, character=NAME or IMAGE, weights=FOLDER")
            values[key] = value
        if "seed" in values:
            if not values["seed"].isdigit():
                raise ValueError(f"seed={values['seed']} is no whole number from 0 on")
            values["seed"] = int(values["seed"])
        return Variant(**values)


def pipeline_for(recorded: Provenance, machine: Machine) -> AvatarPipeline:
    """The pipeline that the records name, of this machine.

    Raises BagError, ConfigError, CheckpointError or ValueError with one line.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from flowact_ros.engine.pipeline import build_pipeline
    from flowact_ros.engine.runtime import keep_freed_memory
    from flowact_ros.engine.streams.batched import batched
    from flowact_ros.models.checkpoint import RANDOM
    from flowact_ros.weights_store import WeightsError, find_audio_weights

    keep_freed_memory()
    torch.set_num_threads(recorded.threads or 1)
    try:
        overrides = json.loads(recorded.settings)
        audio_path = find_audio_weights(recorded.audio_encoder, "")
    except ValueError as error:
        raise BagError(f"the recording's model settings cannot be read ({error})") from None
    except WeightsError as error:
        raise BagError(f"the recording was heard by {recorded.audio_encoder}: {error}") from None
    weights = machine.weights or (RANDOM if recorded.weights == RANDOM else None)
    device = machine.device or recorded.device
    runtime = machine.runtime or ("openvino" if recorded.runtime.startswith("openvino") else "eager")
    try:
        pipeline = build_pipeline(
            recorded.preset, device, weights=weights, overrides=overrides,
            runtime=runtime, audio_backend=recorded.audio_encoder, audio_path=audio_path,
            text_backend=recorded.text_encoder, precision=_precision(recorded.precision, device),
        )  # fmt: skip
        alike = pipeline.provenance.precision == recorded.precision  # another one may have no batches
        return batched(pipeline, recorded.batch) if alike else pipeline
    except ValueError:
        if machine.runtime or runtime == "eager":
            raise
        return pipeline_for(recorded, replace(machine, runtime="eager"))  # OpenVINO is not here


def _precision(recorded: str, device: str) -> str:
    """As recorded, where that can be here; else what is best here, and the comparison names it."""
    from flowact_ros.models.precision import check_precision

    try:
        check_precision(recorded, device)
    except ValueError:
        return "auto"
    return recorded


def check_model(recorded: Provenance, here: Provenance) -> None:
    """Raises BagError where another model is here than the one that was recorded."""
    for name in MODEL_FIELDS:
        there, ours = getattr(recorded, name), getattr(here, name)
        if there != ours:
            remedy = "give their folder as --weights" if name == "weights" else "install that"
            raise BagError(
                f"the recording was made with {name.replace('_', ' ')} {there}, and here {ours} would be used: "
                f"{remedy} to replay it, or see what these make of its sound with --with weights=FOLDER"
            )


def references_for(
    pipeline: AvatarPipeline, stream: Stream, recorded: Recorded, picture: str = ""
) -> dict[str, Reference]:
    """The characters that the records show, encoded again: from the recording's own pictures, else the shipped ones.

    picture: path of one that neither has. Raises BagError for one that nobody has.
    """
    found: dict[str, Reference] = {}
    for name in dict.fromkeys(record.reference_id for record in stream.records):
        if name in recorded.pictures:
            rgb = recorded.pictures[name]
        elif name in list_characters():
            rgb = load_character(name)
        elif picture:
            rgb = read_image(Path(picture).expanduser())
        else:
            raise BagError(
                f"the records show {name!r}, and the recording does not hold its picture (topic stream_setup): give it "
                f"as --reference IMAGE"
            )
        found[name] = load_reference(pipeline, rgb, name)
    return found


def same_denoiser(pipeline: AvatarPipeline, references: dict[str, Reference], records: Sequence[ChunkRecord]) -> bool:
    """Does the denoiser compute here what it computed there? Tried where the machines differ."""
    assert records[0].provenance is not None
    if not set(records[0].provenance.differences(pipeline.provenance)) & set(MOTION_FIELDS):
        return True
    tried = Comparison()
    try:
        begin = beginning(list(records), pipeline.context_samples)
    except EngineError:
        return False
    for _ in replay(pipeline, references, islice(records, begin + PROBE), drawn=tried):
        pass
    return tried.same_motion == tried.latents > 0


class Tally:
    """Counts the frames that went out, and hashes them all."""

    def __init__(self) -> None:
        self.frames = self.repeated = 0
        self.first = self.last = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, frame: Frame) -> None:
        self.first = self.first if self.frames else frame.index
        self.last = frame.index
        self.frames += 1
        self.repeated += frame.repeated
        self._digest.update(np.ascontiguousarray(frame.rgb).data)
        self._digest.update(np.ascontiguousarray(frame.audio).data)

    @property
    def hash(self) -> str:
        """BLAKE2b of RGB and float32 sound of all frames, in order."""
        return self._digest.hexdigest()


def varied(
    stream: Stream, variant: Variant, references: dict[str, Reference], pipeline: AvatarPipeline
) -> tuple[list[ChunkRecord], dict[str, Reference]]:
    """The records and references of a variant. Raises BagError for a character that there is not."""
    changes: dict[str, Any] = {} if variant.seed is None else {"seed": variant.seed}
    if variant.character is not None:
        path = Path(variant.character).expanduser()
        if variant.character in list_characters():
            rgb = load_character(variant.character)
        elif path.is_file():
            rgb = read_image(path)
        else:
            raise BagError(
                f"character={variant.character}: it is no image file and none of {', '.join(list_characters())}"
            )
        changes["reference_id"] = variant.character
        references = {variant.character: load_reference(pipeline, rgb, variant.character)}
    return [replace(record, **changes) for record in stream.records], references


def send(frames: Iterator[Frame], outputs: Sequence[Output], advance: Any) -> Tally:
    """All frames into all outputs; an output is given up where something fails. advance(): after each frame."""
    tally, whole = Tally(), False
    try:
        for frame in frames:
            tally.add(frame)
            for output in outputs:
                output.add(frame)
            advance()
        whole = True
    finally:
        for output in outputs:
            output.close(whole)
    return tally


def side_by_side(runs: Sequence[Iterator[Frame]], names: Sequence[str]) -> Iterator[Frame]:
    """Frames of replays of the same records, beside each other with their names, and the sound of the first."""
    from flowact_ros.media.subtitles import burn

    for frames in zip(*runs, strict=True):
        shown = [burn(frame.rgb, name, "avatar") for frame, name in zip(frames, names)]
        yield replace(frames[0], rgb=np.concatenate(shown, axis=1))
