# SPDX-License-Identifier: Apache-2.0
"""What is published of every step: nothing is lost on the way, and it gives the published frames again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import Transition
from PIL import Image as Picture
from rclpy.serialization import deserialize_message, serialize_message
from ros_harness import Watcher, loud, over, speech_messages, spun_generator, stamps
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, ChunkRecord, Instruction, SpeechSpan
from flowact_msgs.srv import SetReference
from flowact_ros.engine import interfaces
from flowact_ros.engine.interfaces import MAX_LOOKAHEAD
from flowact_ros.engine.pipeline import build_pipeline
from flowact_ros.engine.references import ReferenceNotFound, picture_id, recorded_references
from flowact_ros.engine.replay import replay
from flowact_ros.engine.session import Session
from flowact_ros.nodes import topics
from flowact_ros.nodes.avatar_generator import AvatarGenerator
from flowact_ros.nodes.convert import ConversionError, image_array, image_message, to_time
from flowact_ros.nodes.engine_messages import record_message, record_of
from flowact_ros.timebase import SAMPLES_PER_FRAME, SAMPLES_PER_LATENT
from flowact_ros.vocabulary import BEHAVIOURS


def over_the_wire(record: interfaces.ChunkRecord) -> interfaces.ChunkRecord:
    """The record, once it has been a message and bytes."""
    return record_of(deserialize_message(serialize_message(record_message(record)), ChunkRecord))


def sent_picture(turn: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96]
    return np.roll(np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8), turn, axis=2)


def liven(pipeline: object) -> None:
    """Random weights that listen: zero-initialised gates would ignore every input, and all frames be the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


# ---------------------------------------------------------------- the message

SAMPLES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 1e-45, -1e-38, 3.4e38])


@st.composite
def records(draw: st.DrawFn) -> interfaces.ChunkRecord:
    latents = draw(st.integers(1, 3))
    first_sample = draw(st.integers(0, 2**40))
    earliest = -(-first_sample // SAMPLES_PER_LATENT)  # later: latents before it were skipped
    first_frame = 4 * draw(st.integers(earliest, earliest + 5))
    end = first_frame * SAMPLES_PER_FRAME + latents * SAMPLES_PER_LATENT
    pcm = np.zeros(end - first_sample + draw(st.integers(0, MAX_LOOKAHEAD)), np.float32)
    sound = draw(st.lists(SAMPLES, max_size=20))
    at = draw(st.integers(0, len(pcm) - len(sound)))
    pcm[at : at + len(sound)] = sound
    texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    single = st.floats(-10.0, 10.0, width=32)
    spans = st.builds(interfaces.SpeechSpan, st.integers(0, 2**63), st.integers(0, 2**63), texts)
    return interfaces.ChunkRecord(
        step=draw(st.integers(0, 2**63)),
        first_frame=first_frame,
        latents=latents,
        first_sample=first_sample,
        instruction=draw(texts),
        behaviour=draw(st.sampled_from(["", *BEHAVIOURS])),
        utterance_id=draw(texts),
        reference_id=draw(texts),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        rewinds=draw(st.integers(0, 2**32 - 1)),
        resets=draw(st.integers(0, 2**32 - 1)),
        pcm=pcm,
        spans=tuple(draw(st.lists(spans, max_size=3))),
        look=draw(st.none() | st.tuples(single, single)),
        refines=draw(st.booleans()),
    )


@settings(max_examples=200, deadline=None)
@given(records())
def test_a_record_is_the_same_after_the_way(record: interfaces.ChunkRecord) -> None:
    again = over_the_wire(record)
    for field in fields(interfaces.ChunkRecord):
        if field.name != "pcm":
            assert getattr(again, field.name) == getattr(record, field.name), field.name
    assert again.pcm.dtype == np.float32 and again.pcm.tobytes() == record.pcm.tobytes()


def plain(**changes: object) -> ChunkRecord:
    """A record of three silent latents from frame 12 on, with 1920 samples of look-ahead."""
    message = ChunkRecord(step=7, first_frame=12, latents=3, first_sample=11520, samples=11520 + 1920)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_silence_costs_nothing() -> None:
    record = record_of(plain())
    assert len(record.pcm) == 13440 and not record.pcm.any()
    assert len(serialize_message(record_message(record))) < 300
    record.pcm[-1] = 0.5
    assert len(serialize_message(record_message(record))) > 4 * 13440


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latents": 0}, "step 7 has 0 latents"),
        ({"latents": 4, "samples": 15360}, "has 4 latents from frame 12 on: 1 … 3"),
        ({"first_frame": 13}, "from frame 13 on.*a multiple of 4"),
        ({"samples": 11519}, "has 11519 samples from 11520 on: its frames end at 23040, up to 24960 more"),
        ({"samples": 36481}, "has 36481 samples"),
        ({"first_sample": 23040}, "from 23040 on: its frames end at 23040"),
        ({"first_frame": 2**40, "samples": 2**32 - 1}, "has 4294967295 samples"),
        ({"pcm": [0.1] * 13441}, "holds 13441 samples of sound: at most 13440"),
        ({"pcm": [0.1, float("nan")]}, "all finite"),
        ({"behaviour": 5}, "behaviour is 5: must be 0 … 4"),
        ({"looks": True, "look_y": float("nan")}, r"step 7 looks at \(0.0, nan\): finite"),
    ],
)
def test_a_record_that_cannot_be_is_named(changes: dict, says: str) -> None:
    with pytest.raises(ConversionError, match=says) as caught:
        record_of(plain(**changes))
    assert "\n" not in str(caught.value)


def test_a_message_filled_by_hand_is_read_too() -> None:
    spans = [SpeechSpan(start=11520, end=11530, utterance_id="u")]
    record = record_of(plain(pcm=[0.5, -0.5], spans=spans, behaviour=ChunkRecord.REACTING))
    assert record.pcm[:3].tolist() == [0.5, -0.5, 0.0] and record.behaviour == "reacting"
    assert record.spans == (interfaces.SpeechSpan(11520, 11530, "u"),)


# ---------------------------------------------------------------- the pictures that records name


def test_references_are_found_by_name_and_by_hash() -> None:
    pipeline = build_pipeline("debug", runtime="eager")
    own = picture_id(sent_picture())
    shown = [record_of(plain(reference_id=name)) for name in ("mia", own, "mia")]
    found = recorded_references(pipeline, shown, [sent_picture(1), sent_picture()])
    assert list(found) == ["mia", own] and [r.id for r in found.values()] == ["mia", own]
    np.testing.assert_array_equal(found[own].rgb, sent_picture())
    with pytest.raises(ReferenceNotFound, match=f"'{own}': .* none of the 1 pictures at hand") as caught:
        recorded_references(pipeline, shown, [sent_picture(1)])
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- frames again


def test_messages_give_the_frames_of_a_session_again() -> None:
    """Speech, an interruption, an urgent instruction, a broken-off step, another picture, a reset; bit for bit."""
    pipeline = build_pipeline("debug", runtime="eager")
    liven(pipeline)
    render, sent = pipeline.render, []
    with Session(pipeline, sent_picture(), seed=7, on_chunk=lambda r: sent.append(over_the_wire(r))) as session:

        def interrupted(*arguments: object) -> object:
            """An urgent instruction comes while the step's first latent is rendered."""
            session.set_instruction("laughs", behaviour="reacting", priority=200)
            pipeline.render = render
            return render(*arguments)

        frames = []
        for frame in islice(session.frames(realtime=False), 84):
            frames.append(frame)
            if frame.index == 1:
                session.push_audio(0.4 * loud(3.0, 16000), 16000, utterance_id="u", last=True)
            if frame.index == 14:
                session.set_instruction("nods", priority=200)
            if frame.index == 20:
                session.look_at(0.7, -0.3)
            if frame.index == 26:
                session.interrupt()
            if frame.index == 40:
                pipeline.render = interrupted
            if frame.index == 52:
                session.set_reference(sent_picture(1))
            if frame.index == 66:
                session.reset_memory()
    again = list(replay(pipeline, recorded_references(pipeline, sent, map(sent_picture, (0, 1))), sent))
    assert sent[-1].rewinds >= 4 and sent[-1].resets == 2
    assert any(b.first_frame < a.first_frame + 4 * a.latents for a, b in zip(sent, sent[1:]))
    assert len({frame.rgb.tobytes() for frame in frames}) > 70
    for live, frame in zip(frames, again, strict=False):
        for name in ("rgb", "motion", "audio"):
            np.testing.assert_array_equal(getattr(live, name), getattr(frame, name), f"{name} {live.index}")
        for name in ("index", "utterance_id", "behaviour", "speaking", "repeated"):
            assert getattr(live, name) == getattr(frame, name), f"{name} {live.index}"
    assert len(again) >= len(frames)


@pytest.fixture
def node(domain: None, tmp_path: Path) -> Iterator[AvatarGenerator]:
    """A configured generator whose random weights listen."""
    Picture.fromarray(sent_picture()).save(tmp_path / "mia.png")  # a file's name is not the picture's
    with spun_generator(tmp_path / "mia.png", "/avatar") as node:
        liven(node._pipeline)
        node._reference = node._pipeline.load_reference(node._reference.rgb)  # what is cached with it, too
        yield node


@pytest.mark.slow
@pytest.mark.ros
def test_published_records_give_the_published_frames_again(node: AvatarGenerator) -> None:
    """A watcher that came late has the memory reset; from that cut on everything can be made again."""
    watcher = Watcher("/avatar", (topics.IMAGE, topics.AUDIO, topics.CHUNKS, topics.STATE, topics.METRICS))
    try:
        assert watcher.transition("avatar_generator", Transition.TRANSITION_ACTIVATE)
        watcher.until(lambda: watcher.seen[topics.CHUNKS], "records")
        hold(watcher, 1.5)  # the sound that the encoder hears before the cut
        assert watcher.call(Trigger, topics.RESET_MEMORY, Trigger.Request(), again_s=0.0).success
        watcher.until(lambda: watcher.seen[topics.CHUNKS][-1].resets == 1, "the cut")
        publisher = watcher.publisher(AudioChunk, topics.SPEECH)
        for message in speech_messages(0.5 * loud(20.0, seed=60), "a story"):
            publisher.publish(message)
        watcher.until(lambda: watcher.seen[topics.STATE][-1].robot_speaking, "speech")
        hold(watcher, 1.0)
        urgent = Instruction(behaviour=Instruction.REACTING, text="laughs", priority=200)
        watcher.publisher(Instruction, topics.INSTRUCTION).publish(urgent)
        watcher.until(lambda: watcher.seen[topics.CHUNKS][-1].instruction == "laughs", "laughter")
        assert watcher.call(Trigger, topics.INTERRUPT, Trigger.Request()).success
        watcher.until(lambda: over(watcher, "a story"), "silence")
        request = SetReference.Request(source=0, image=image_message(sent_picture(1), to_time(0), ""))
        answer = watcher.call(SetReference, topics.SET_REFERENCE, request, again_s=0.0)
        assert answer.reference_id == picture_id(sent_picture(1))
        watcher.until(lambda: watcher.seen[topics.CHUNKS][-1].resets == 2, "the other picture")
        hold(watcher, 1.0)
        watcher.until(lambda: watcher.seen[topics.METRICS], "metrics")
        assert watcher.transition("avatar_generator", Transition.TRANSITION_DEACTIVATE)
        check(watcher, node._pipeline)
    finally:
        watcher.close()


def hold(watcher: Watcher, seconds: float) -> None:
    """So much of the stream passes."""
    count = len(watcher.seen[topics.AUDIO]) + int(25 * seconds)
    watcher.until(lambda: len(watcher.seen[topics.AUDIO]) >= count, f"{seconds:g} s of the stream")


def check(watcher: Watcher, pipeline: interfaces.Pipeline) -> None:
    """Every published frame that the records cover is the replayed one, or repeats the one before it."""
    sent = [record_of(message) for message in watcher.seen[topics.CHUNKS]][1:]  # step 0 may be missed, so it is
    assert sent[-1].rewinds >= 1 and {r.resets for r in sent} == {0, 1, 2}
    assert {r.reference_id for r in sent} == {picture_id(sent_picture(turn)) for turn in (0, 1)}
    known = recorded_references(pipeline, sent, [sent_picture(0), sent_picture(1)])
    again = {frame.index: frame for frame in replay(pipeline, known, sent)}

    index_at = {stamp: m.first_sample // 960 for m, stamp in zip(*with_stamps(watcher, topics.AUDIO))}
    shown = {index_at[stamp]: m for m, stamp in zip(*with_stamps(watcher, topics.IMAGE)) if stamp in index_at}
    heard = {message.first_sample // 960: message for message in watcher.seen[topics.AUDIO]}
    both = sorted(set(shown) & set(again))
    assert len(both) > 75 and len({again[k].rgb.tobytes() for k in both}) > 60
    late = 0
    for k in both:
        rgb, frame = image_array(shown[k]), again[k]
        assert heard[k].utterance_id == frame.utterance_id, f"frame {k}"
        said = np.rint(frame.audio * 32768).clip(-32768, 32767).astype("<i2")
        assert bytes(heard[k].data) == said.tobytes(), f"sound of frame {k}"
        if not np.array_equal(rgb, frame.rgb):
            late += 1
            assert k - 1 in shown, f"frame {k}"
            np.testing.assert_array_equal(rgb, image_array(shown[k - 1]), f"frame {k}")
    assert late <= watcher.seen[topics.METRICS][-1].repeated_frames + 25  # the last second is not in them


def with_stamps(watcher: Watcher, name: str) -> tuple[list, list[int]]:
    messages = list(watcher.seen[name])
    return messages, stamps(messages)
