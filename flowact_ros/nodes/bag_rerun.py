# SPDX-License-Identifier: Apache-2.0
"""A recording's inputs through a new session: what the avatar would do with them now, in accelerated or real time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowact_ros.engine.characters import list_characters, load_character
from flowact_ros.engine.interfaces import AudioError, ChunkRecord, Frame
from flowact_ros.engine.looking import FOLLOW, Looking
from flowact_ros.engine.provenance import Provenance
from flowact_ros.engine.replay import said
from flowact_ros.engine.session import Session
from flowact_ros.media.bag import Bag, BagError
from flowact_ros.media.image import read_image
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.bag_records import RECORD, Recorded, read_records
from flowact_ros.nodes.bag_replay import Machine, pipeline_for, references_for
from flowact_ros.nodes.convert import NANOSECONDS, ConversionError, behaviour_name
from flowact_ros.nodes.generator_params import PARAMETERS
from flowact_ros.nodes.look_point import Screen
from flowact_ros.nodes.uninstructed import UninstructedBehaviour, wording_of
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

if TYPE_CHECKING:
    from flowact_ros.engine.pipeline import AvatarPipeline

LEAD_NS = 80_000_000  # frames leave so long before their stamp
QUIET_S = 2.0  # shown after the last input and the last speech
BEFORE_S = 0.5  # speech that is only in records came at least so long before it was heard
TICK_FRAMES = 3  # as often as the generator looks after an avatar that nobody instructs


@dataclass(frozen=True, eq=False)
class Input:
    """time_ns: when it came; topic: its name without the namespace; message: as recorded, or a part of the records."""

    time_ns: int
    topic: str
    message: Any


@dataclass(frozen=True, eq=False)
class Said:
    """Speech that came through the `say` action, which recordings do not hold: float32 [n] at 24 kHz, from records."""

    utterance_id: str
    pcm: np.ndarray


def rerun(
    bag: Bag, machine: Machine, *, seed: int | None, character: str | None, reference: str, namespace: str,
    realtime: bool,
) -> tuple[Iterator[Frame], AvatarPipeline]:  # fmt: skip
    """(frames of a new session, the pipeline that makes them). None: as recorded, else the defaults of a generator.

    Raises BagError for a recording without inputs.
    """
    recorded = read_records(bag, namespace) if RECORD in bag.topics.values() else None
    stream = recorded.streams[0] if recorded is not None else None
    records = stream.records if stream is not None else []
    inputs = _inputs(bag, namespace, stream.topic.removesuffix(topics.CHUNKS) if stream is not None else "")
    if not any(item.topic == topics.SPEECH for item in inputs) and stream is not None and stream.start_ns is not None:
        inputs = sorted([*inputs, *_said_inputs(records, stream.start_ns)], key=lambda item: item.time_ns)
    if not inputs:
        raise BagError(
            f"{bag.path} holds no inputs: speech, instruction or look_at are needed (`flowact record` has them)"
        )
    start_ns = stream.start_ns if stream is not None else None
    if start_ns is None:
        start_ns = inputs[0].time_ns - NANOSECONDS
    made_by = (stream.provenance if stream is not None else None) or Provenance(
        "avatar_cpu", audio_encoder="embedded", text_encoder="embedded", runtime="openvino", threads=1
    )
    pipeline = pipeline_for(made_by, machine)
    parameters = recorded.parameters if recorded is not None else {}
    shown = _picture(pipeline, recorded, character, reference)
    session = Session(
        pipeline, shown, seed=seed if seed is not None else (records[0].seed if records else 0),
        looking=Looking(str(parameters.get("gaze", FOLLOW))),
    )  # fmt: skip
    player = _Player(session, inputs, start_ns, _screen(parameters))
    return player.frames(realtime), pipeline


class _Player:
    """Gives a session each input when its time comes in the stream."""

    def __init__(self, session: Session, inputs: list[Input], start_ns: int, screen: Screen) -> None:
        self._session, self._inputs, self._start_ns, self._screen = session, inputs, start_ns, screen
        self._decode = AudioDecoder(self._warn)
        self._alone: UninstructedBehaviour | None = UninstructedBehaviour(session)
        self._told: set[str] = set()

    def frames(self, realtime: bool) -> Iterator[Frame]:
        waiting = iter(self._inputs)
        following = next(waiting, None)
        made = self._session.frames(realtime=realtime)
        quiet, index, speaking = 0, 0, False
        try:
            while following is not None or quiet < QUIET_S * FRAME_RATE:
                now_ns = self._start_ns + index * NANOSECONDS // FRAME_RATE - LEAD_NS
                while following is not None and following.time_ns <= now_ns:
                    self._give(following)
                    following = next(waiting, None)
                if self._alone is not None and index % TICK_FRAMES == 0:
                    self._alone.tick(speaking)
                frame = next(made)
                index, speaking = frame.index + 1, frame.speaking
                quiet = 0 if speaking or self._session.queued_s else quiet + 1
                yield frame
        finally:
            self._session.close()

    def _give(self, item: Input) -> None:
        """What cannot be understood is told once, and the stream goes on without it: as live."""
        try:
            if isinstance(item.message, Said):
                self._speech(item.message.pcm, SAMPLE_RATE, item.message.utterance_id, last=True)
            elif item.topic == topics.SPEECH:
                message = item.message
                pcm, rate = self._decode(message)
                self._speech(
                    pcm, rate, message.utterance_id, first_sample=int(message.first_sample),
                    sequence=int(message.sequence), last=bool(message.last),
                )  # fmt: skip
            elif item.topic == topics.INSTRUCTION:
                self._instruct(item.message)
            else:
                self._session.look_at(*self._screen.place(item.message))
        except (ConversionError, AudioError, ValueError) as error:
            self._warn(f"a message on {item.topic} was not taken: {error}")

    def _speech(self, pcm: np.ndarray, rate: int, utterance_id: str, **numbers: Any) -> None:
        if self._session.push_audio(pcm, rate, utterance_id=utterance_id, **numbers) and self._alone is not None:
            self._alone.speech(utterance_id)

    def _instruct(self, message: Any) -> None:
        behaviour = behaviour_name(message.behaviour)
        self._session.set_instruction(
            message.text or wording_of(behaviour), behaviour=behaviour, priority=int(message.priority),
            utterance_id=message.utterance_id,
        )  # fmt: skip
        self._alone = None

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            print(f"warning: {text}", file=sys.stderr)


def _inputs(bag: Bag, namespace: str, prefix: str) -> list[Input]:
    """Speech, instructions and points of one avatar, in the order in which they came."""
    names = (topics.SPEECH, topics.INSTRUCTION, topics.LOOK_AT)
    prefix = f"/{namespace.strip('/')}/" if namespace else prefix
    found = {topic: name for topic in bag.topics for name in names if topic == prefix + name}
    if not prefix:
        found = {topic: name for topic in bag.topics for name in names if topic.endswith(f"/{name}")}
        if len({topic.removesuffix(name) for topic, name in found.items()}) > 1:
            raise BagError(f"{bag.path} has inputs of several avatars: choose by --namespace")
    inputs = [Input(m.time_ns, found[m.topic], bag.decoded(m)) for m in bag.messages(found)]
    return sorted(inputs, key=lambda item: item.time_ns)


def _said_inputs(records: list[ChunkRecord], start_ns: int) -> list[Input]:
    return [
        Input(
            start_ns + round((start / SAMPLE_RATE - BEFORE_S) * NANOSECONDS) - LEAD_NS,
            topics.SAY,
            Said(utterance_id, pcm),
        )
        for start, utterance_id, pcm in said(records)
    ]


def _picture(pipeline: AvatarPipeline, recorded: Recorded | None, character: str | None, reference: str) -> Any:
    names = list_characters()
    if character is None and recorded is not None:
        stream = recorded.streams[0]
        return references_for(pipeline, stream, recorded, reference)[stream.records[0].reference_id]
    if character is None or character in names:
        return load_character(character or names[0])
    if not Path(character).expanduser().is_file():
        raise BagError(f"--character: {character} is no image file and none of {', '.join(names)}")
    return read_image(Path(character).expanduser())


def _screen(parameters: dict[str, str]) -> Screen:
    defaults = {param.name: param.default for param in PARAMETERS}
    names = ("screen_width", "screen_height", "eye_depth")
    return Screen(*(float(parameters.get(name, defaults[name])) for name in names))
