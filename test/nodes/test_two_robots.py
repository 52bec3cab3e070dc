# SPDX-License-Identifier: Apache-2.0
"""Two avatars on one machine, in two namespaces of one domain: neither hears, shows or answers for the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from ros_harness import Watcher, loud, over, speak, speech_messages, spoken, spun_generator, whole
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, Instruction
from flowact_msgs.srv import SetReference
from flowact_ros.nodes import topics

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]
ROBOTS = ("robot1/avatar", "robot2/avatar")


@pytest.fixture(scope="module")
def robots(domain: None, reference: Path) -> Iterator[tuple[Watcher, Watcher]]:
    """Somebody who watches each of two avatars that run."""
    with ExitStack() as stack:
        watchers = []
        for namespace in ROBOTS:
            node = stack.enter_context(spun_generator(reference, namespace))
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
            watchers.append(Watcher(f"/{namespace}", (topics.AUDIO, topics.STATE, topics.METRICS)))
            stack.callback(watchers[-1].close)
        for watcher in watchers:
            watcher.until(lambda w=watcher: len(w.seen[topics.AUDIO]) > 10, "frames")
        yield watchers[0], watchers[1]


@pytest.mark.slow
def test_each_says_what_was_said_to_it(robots: tuple[Watcher, Watcher]) -> None:
    pcm = {0: loud(1.0, seed=1), 1: loud(1.0, seed=2)}
    for number, watcher in enumerate(robots):
        speak(watcher, pcm[number], f"for-{number}")
    for number, watcher in enumerate(robots):
        assert over(watcher, f"for-{number}")
        assert len(spoken(watcher.seen[topics.AUDIO], f"for-{number}")) == len(pcm[number])
        assert not len(spoken(watcher.seen[topics.AUDIO], f"for-{1 - number}"))
    for watcher in robots:
        metrics = watcher.seen[topics.METRICS]
        watcher.until(lambda m=metrics: m and m[-1].received_samples >= 24000, "metrics of all of it")
        assert metrics[-1].received_samples == 24000


def test_instructions_and_services_are_of_one(robots: tuple[Watcher, Watcher]) -> None:
    first, second = robots
    orders = first.publisher(Instruction, topics.INSTRUCTION)
    orders.publish(Instruction(behaviour=Instruction.THINKING))
    first.until(lambda: first.seen[topics.STATE][-1].behaviour == Instruction.THINKING, "it thinks")
    assert Instruction.THINKING not in {state.behaviour for state in second.seen[topics.STATE]}
    request = SetReference.Request(source=SetReference.Request.SOURCE_NAME, name="pixel")
    assert first.call(SetReference, topics.SET_REFERENCE, request).reference_id == "pixel"
    speech = second.publisher(AudioChunk, topics.SPEECH)
    for message in speech_messages(loud(2.0), "goes-on"):
        speech.publish(message)
    second.until(lambda: second.seen[topics.STATE][-1].utterance_id == "goes-on", "it speaks")
    first.call(Trigger, topics.INTERRUPT, Trigger.Request())
    second.until(lambda: whole(second, "goes-on", 48000), "its end")
    assert len(spoken(second.seen[topics.AUDIO], "goes-on")) == 48000  # the interruption was the other one's
