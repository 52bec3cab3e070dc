# SPDX-License-Identifier: Apache-2.0
"""A question becomes an answer: transcript, thinking face, goals of `say`, instructions as their sentences sound.

The planner is real, and so is the server of its language model; the avatar is an action server that says a sentence
when the test tells it to.
"""

from __future__ import annotations

import base64
import io
import time
import wave
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from chat_server import ChatServer, closes, hangs, sentences, serving, streams
from rclpy.action import ActionServer, CancelResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from flowact_msgs.action import Say
from flowact_msgs.msg import AvatarState, Instruction, Transcript
from flowact_ros.dialogue.phrases import NODS
from flowact_ros.nodes import reply_speaker, topics
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.nodes.instruction_planner import InstructionPlanner

PATIENCE_S = 60.0  # for things that must happen
NOVA = """
name: Nova
role: a guide
greeting: Welcome!
thinking: [pondering]
replies:
  - {words: [ticket], say: Eight euros. Children are free.}
fallback: [Ask our staff.]
"""


class Avatar:
    """Accepts goals of `say`, and publishes what an avatar would; each goal ends when the test says so."""

    def __init__(self, context: Any, namespace: str) -> None:
        self.node = rclpy.create_node("avatar", namespace=namespace, context=context)
        self.goals: list[Any] = []
        self.cancelled: list[str] = []
        self.instructions: list[Instruction] = []
        self.interrupts = 0
        self.silent = False  # it hangs, or was killed and another one has its place
        self._executing: list[Any] = []
        self.node.create_timer(0.2, self._feed_back)
        self._ends: dict[str, Future] = {}
        self.server = ActionServer(self.node, Say, topics.SAY, self._execute, cancel_callback=self._on_cancel)
        self.node.create_service(Trigger, topics.INTERRUPT, self._on_interrupt)
        self.node.create_subscription(
            Instruction, topics.INSTRUCTION, self.instructions.append, topics.QOS[topics.INSTRUCTION]
        )
        self._transcripts, self._states, self._voices = (
            self.node.create_publisher(kind, name, topics.QOS[name])
            for kind, name in (
                (Transcript, topics.TRANSCRIPT),
                (AvatarState, topics.STATE),
                (Bool, topics.USER_SPEAKING),
            )
        )

    async def _execute(self, handle: Any) -> Say.Result:
        name = handle.request.utterance_id
        self.goals.append(handle.request)
        self._ends[name] = Future()
        self._executing.append(handle)
        code, spoken = await self._ends[name]
        self._executing.remove(handle)
        if handle.is_cancel_requested:
            handle.canceled()
        elif code == Say.Result.NONE:
            handle.succeed()
        else:
            handle.abort()
        return Say.Result(error_code=code, spoken_text=spoken)

    def _feed_back(self) -> None:
        for handle in [] if self.silent else self._executing:
            handle.publish_feedback(Say.Feedback(phase=Say.Feedback.PREPARING))

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self.cancelled.append(handle.request.utterance_id)
        return CancelResponse.ACCEPT

    def _on_interrupt(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.interrupts += 1
        return response

    @property
    def texts(self) -> list[str]:
        return [goal.text for goal in self.goals]

    def hears(self, text: str, number: int = 0) -> None:
        self._transcripts.publish(
            Transcript(text=text, final=True, utterance_id=f"heard-{number}" if number else "")
        )

    def user_speaks(self, voiced: bool) -> None:
        self._voices.publish(Bool(data=voiced))

    def speaks(self, utterance_id: str) -> None:
        state = AvatarState(robot_speaking=bool(utterance_id), utterance_id=utterance_id)
        state.header.stamp = self.node.get_clock().now().to_msg()
        self._states.publish(state)

    def end(self, utterance_id: str, spoken: str, code: int = Say.Result.NONE) -> None:
        self._ends.pop(utterance_id).set_result((code, spoken))


class Stage:
    """A planner and an avatar in one context, spun by the test."""

    def __init__(self, namespace: str = "/avatar", beside: Stage | None = None, **parameters: Any) -> None:
        self._guest = beside is not None
        self.context = beside.context if beside is not None else rclpy.Context()
        if not self._guest:
            rclpy.init(args=[], context=self.context)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.planner = InstructionPlanner(
            context=self.context, namespace=namespace, parameter_overrides=overrides
        )
        self.avatar = Avatar(self.context, namespace)
        self.executor = (
            beside.executor if beside is not None else SingleThreadedExecutor(context=self.context)
        )
        for node in (self.planner, self.avatar.node):
            self.executor.add_node(node)

    def start(self) -> None:
        assert self.planner.trigger_configure() == TransitionCallbackReturn.SUCCESS, self.planner.last_error
        assert self.planner.trigger_activate() == TransitionCallbackReturn.SUCCESS, self.planner.last_error
        answers = self.planner._answers
        self.until(lambda: self.avatar.node.count_subscribers(topics.TRANSCRIPT), "a listener")
        self.until(lambda: self.avatar.instructions, "the first instruction")
        if answers is not None:
            self.until(lambda: answers.conversation.ready, "the model")
            self.until(answers._speaker._client.server_is_ready, "the action server")
            self.until(self.planner._interrupter.service_is_ready, "the service")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"did not happen: {what}"
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def instructed(self, behaviour: int, text: str = "") -> Instruction:
        """Waits for the newest instruction to be this one."""

        def newest() -> Instruction | None:
            last = self.avatar.instructions[-1]
            return last if last.behaviour == behaviour and text in last.text else None

        return self.until(newest, f"behaviour {behaviour} {text!r}")

    def goal(self, number: int) -> Any:
        self.until(lambda: len(self.avatar.goals) >= number, f"goal {number}")
        return self.avatar.goals[number - 1]

    def values(self) -> dict[str, Any]:
        return self.planner.health()[2]

    def close(self) -> None:
        self.planner.stop()
        for node in (self.planner, self.avatar.node):
            self.executor.remove_node(node)
        if not self._guest:
            self.executor.shutdown(timeout_sec=1.0)
        self.planner.destroy_node()
        self.avatar.server.destroy()
        self.avatar.node.destroy_node()
        if not self._guest:
            self.context.try_shutdown()


@pytest.fixture
def stage(within: None, tmp_path: Any) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []
    persona = tmp_path / "nova.yaml"
    persona.write_text(NOVA)

    def make(server: ChatServer | None = None, **parameters: Any) -> Stage:
        if server is not None:
            parameters = {"backend": "openai", "model": "m", "base_url": server.url, **parameters}
        made.append(Stage(**{"persona": str(persona), "dwell": 0.0, **parameters}))
        made[-1].start()
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


def test_a_question_is_answered_sentence_by_sentence(stage: Any) -> None:
    talk = stage()
    talk.avatar.hears("How much is a ticket?")
    assert talk.goal(1).text == "Eight euros." and talk.goal(2).text == "Children are free."
    assert [goal.utterance_id for goal in talk.avatar.goals] == ["reply-1-1", "reply-1-2"]
    assert {goal.policy for goal in talk.avatar.goals} == {Say.Goal.QUEUE}
    assert talk.instructed(Instruction.THINKING).text == "pondering"  # until it sounds
    talk.avatar.speaks("reply-1-1")
    assert talk.instructed(Instruction.SPEAKING).utterance_id == "reply-1-1"
    talk.avatar.end("reply-1-1", "Eight euros.")
    talk.avatar.end("reply-1-2", "Children are free.")
    talk.avatar.speaks("")
    talk.instructed(Instruction.IDLE)


def test_the_models_instruction_comes_when_its_sentence_sounds(stage: Any) -> None:
    script = sentences(("smiling {warmly} %s", "It is ten."), ("waving a hand", "See you!"))
    with serving(streams(*script)) as server:
        talk = stage(server)
        talk.avatar.hears("What time is it?")
        talk.goal(2)
        talk.instructed(Instruction.THINKING, "pondering")
        talk.avatar.speaks("reply-1-1")
        assert talk.instructed(Instruction.SPEAKING, "smiling {warmly} %s").utterance_id == "reply-1-1"
        talk.avatar.speaks("reply-1-2")
        assert talk.instructed(Instruction.SPEAKING, "waving a hand").utterance_id == "reply-1-2"
        # The model's stream may end after its last sentence has sounded: it is another thread that reads it.
        talk.until(lambda: talk.values()["by_model"] == 1, "the end of the model's answer")
        assert talk.values()["first_sentence_s"] >= 0


def test_a_barge_in_ends_the_answer_and_the_model_is_told_what_was_heard(stage: Any) -> None:
    first = sentences(("smiling", "One is here."), ("smiling", "Two is there."))
    with serving(streams(first), streams(sentences(("smiling", "Yes.")))) as server:
        talk = stage(server, barge_in=True)
        talk.avatar.hears("Count", 1)
        talk.goal(2)
        talk.avatar.speaks("reply-1-1")
        talk.instructed(Instruction.SPEAKING)
        talk.avatar.user_speaks(True)
        urgent = talk.instructed(Instruction.LISTENING)
        assert urgent.priority == Instruction.PRIORITY_URGENT
        talk.until(
            lambda: len(talk.avatar.cancelled) == 2 and talk.avatar.interrupts, "the end of both goals"
        )
        talk.avatar.end("reply-1-1", "One is", Say.Result.INTERRUPTED)
        talk.avatar.end("reply-1-2", "", Say.Result.INTERRUPTED)
        talk.avatar.speaks("")
        talk.until(lambda: not talk.planner._answers._speaker.busy, "both results")
        talk.avatar.user_speaks(False)
        talk.avatar.hears("Go on", 2)
        assert talk.goal(3).text == "Yes." and talk.goal(3).utterance_id == "reply-2-1"
        heard = [(message["role"], message["content"]) for message in server.asked[1]["messages"][1:]]
        assert heard == [("user", "Count"), ("assistant", "One is …"), ("user", "Go on")]


def test_an_interruption_by_others_ends_the_answer_too(stage: Any) -> None:
    talk = stage()
    talk.avatar.hears("ticket")
    talk.goal(2)
    talk.avatar.end("reply-1-1", "Eight", Say.Result.INTERRUPTED)
    talk.until(lambda: talk.avatar.cancelled == ["reply-1-2"], "the end of what was to follow")


def test_an_answer_whose_avatar_was_killed_is_given_up(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one has its place by then: the service was never away, and knows nothing of the goals."""
    talk = stage()
    talk.avatar.hears("ticket", 1)
    talk.goal(2)
    talk.instructed(Instruction.THINKING)
    monkeypatch.setattr(reply_speaker, "SILENT_S", 1.0)
    talk.avatar.silent = True
    talk.until(lambda: not talk.planner._answers._speaker.busy, "the end of goals of which nothing is heard")
    talk.instructed(Instruction.IDLE)  # and no face that thinks for ever
    assert "nothing was heard of /avatar/say" in talk.planner.last_error
    talk.avatar.silent = False
    talk.avatar.hears("ticket", 2)
    assert talk.goal(3).utterance_id == "reply-2-1"


@pytest.mark.parametrize("answer", [closes, hangs()])
def test_a_server_that_fails_is_replaced_and_diagnostics_say_so(stage: Any, answer: Any) -> None:
    with serving(answer) as server:
        talk = stage(server, answer_timeout=0.5, retries=0)
        talk.avatar.hears("What time is it?")
        assert talk.goal(1).text == "Ask our staff."
        values = talk.values()
        assert values["fallbacks"] == 1 and values["last_model_error"] and values["last_source"] == "rules"


def test_who_speaks_again_is_not_answered_before_he_has_ended(stage: Any) -> None:
    with serving(hangs(), streams(sentences(("smiling", "Both.")))) as server:
        talk = stage(server, answer_timeout=60.0)
        talk.avatar.hears("What is a clock", 1)
        talk.until(server.hanging.is_set, "the question to the model")
        talk.avatar.user_speaks(True)
        talk.instructed(Instruction.LISTENING)
        talk.avatar.hears("and who made it?", 2)  # before he is silent
        talk.until(lambda: talk.planner._answers._speaker.busy, "the answer")
        talk.instructed(Instruction.LISTENING)
        assert talk.avatar.goals == []
        talk.avatar.user_speaks(False)
        assert talk.goal(1).text == "Both."
        assert server.asked[1]["messages"][1]["content"] == "What is a clock\nand who made it?"


def test_what_the_avatar_says_itself_is_not_answered(stage: Any) -> None:
    """Without `barge_in` the microphone hears the loudspeaker."""
    talk = stage()
    talk.avatar.speaks("other")
    talk.instructed(Instruction.SPEAKING)
    talk.avatar.hears("ticket", 1)
    talk.avatar.speaks("")
    talk.instructed(Instruction.IDLE)
    talk.avatar.hears("ticket", 2)
    talk.goal(1)
    assert talk.values()["turns"] == 1


def test_the_same_transcript_twice_is_one_question(stage: Any) -> None:
    talk = stage()
    talk.avatar.hears("ticket", 1)
    talk.avatar.hears("ticket", 1)
    talk.avatar.hears("", 2)
    talk.goal(2)
    talk.avatar.hears("ticket", 3)
    talk.goal(4)
    assert talk.values()["turns"] == 2


def test_two_robots_do_not_mix(stage: Any) -> None:
    left = stage(namespace="/left/avatar")
    right = stage(namespace="/right/avatar", beside=left)
    left.avatar.hears("ticket")
    right.avatar.hears("What is a clock?")
    left.goal(2)
    right.goal(1)
    assert left.avatar.texts == ["Eight euros.", "Children are free."] and right.avatar.texts == [
        "Ask our staff."
    ]


def test_who_comes_and_says_nothing_is_greeted(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = stage(proactive=True)
    now = time.monotonic()
    monkeypatch.setattr(talk.planner, "_now_s", lambda: now)  # a visitor is greeted some seconds after his last word
    talk.avatar.user_speaks(True)
    talk.instructed(Instruction.LISTENING)
    talk.avatar.user_speaks(False)
    talk.instructed(Instruction.THINKING)
    assert talk.avatar.goals == []
    now += 4.0
    assert talk.goal(1).text == "Welcome!"
    talk.avatar.end("reply-1-1", "Welcome!")


def test_a_model_that_hears_is_sent_the_last_of_the_users_voice(stage: Any) -> None:
    with serving(streams(sentences(("smiling", "A cat.")))) as server:
        talk = stage(server, hear_voice=0.1)
        for _ in range(5):
            talk.planner._on_mic(audio_message(np.full(640, 0.1, np.float32), 16_000, to_time(0)))
        talk.avatar.hears("What was that sound?")
        talk.goal(1)
        parts = server.asked[0]["messages"][1]["content"]
        assert [part["type"] for part in parts] == ["text", "input_audio"]
        with wave.open(io.BytesIO(base64.b64decode(parts[1]["input_audio"]["data"]))) as file:
            assert file.getframerate() == 16_000 and 1600 <= file.getnframes() < 1600 + 640


def test_pauses_of_the_microphone_are_nodded_at(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = stage(nod_after=2.0, think_after=0.0)
    clock = [time.monotonic()]
    monkeypatch.setattr(talk.planner, "_now_s", lambda: clock[0])
    buzz = 0.2 * np.sign(np.sin(np.arange(640) / 16_000 * 2 * np.pi * 200 + 0.01)).astype(np.float32)
    for sound, blocks in ((buzz, 60), (0 * buzz, 5), (buzz, 5), (0 * buzz, 8), (buzz, 20)):
        for _ in range(blocks):
            clock[0] += 0.04
            talk.planner._on_mic(audio_message(sound, 16_000, to_time(0)))
    talk.until(lambda: talk.avatar.instructions[-1].text in NODS, "a nod")
    texts = [i.text for i in talk.avatar.instructions if i.behaviour == Instruction.LISTENING]
    assert [text in NODS for text in texts] == [False, True]  # by the second pause: the first is too short


def test_a_pause_of_the_microphone_makes_it_think_until_the_voice_goes_on(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = stage()
    clock = [time.monotonic()]
    monkeypatch.setattr(talk.planner, "_now_s", lambda: clock[0])
    buzz = 0.2 * np.sign(np.sin(np.arange(640) / 16_000 * 2 * np.pi * 200 + 0.01)).astype(np.float32)
    shown = []
    # A plosive, a pause, and an end that a recogniser's detector takes for one later than the node's own does.
    talk.planner._on_user_speaking(Bool(data=True))
    monkeypatch.setattr(talk.planner, "count_publishers", lambda name: 1)
    for sound, blocks in ((buzz, 25), (0 * buzz, 2), (buzz, 15), (0 * buzz, 5), (buzz, 20), (0 * buzz, 20)):
        for _ in range(blocks):
            clock[0] += 0.04
            talk.planner._on_mic(audio_message(sound, 16_000, to_time(0)))
        shown.append(talk.planner.behaviour)
    assert shown == ["listening", "listening", "listening", "thinking", "listening", "thinking"]
    assert not talk.planner._vad.voiced and talk.planner._planner.listens
    talk.planner._on_user_speaking(Bool(data=False))
    assert talk.planner.behaviour == "thinking" and not talk.planner._planner.listens


def test_without_a_persona_nobody_answers(stage: Any) -> None:
    talk = stage(persona="")
    assert talk.planner._answers is None
    talk.avatar.hears("How much is a ticket? Thank you!")
    talk.instructed(Instruction.REACTING)
    assert talk.avatar.goals == [] and "planner_backend" not in talk.values()


def test_it_stops_while_a_model_writes(stage: Any) -> None:
    with serving(hangs(sentences(("smiling", "One."))[:-2])) as server:
        talk = stage(server, answer_timeout=60.0)
        talk.avatar.hears("What time is it?")
        talk.goal(1)
        assert talk.planner.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert talk.planner.trigger_activate() == TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"backend": "openai", "model": "m"}, "base_url '' is no address"),
        ({"backend": "transformers", "model": "/no/such/folder"}, "/no/such/folder is missing"),
        ({"persona": "/no/such/file.yaml"}, "persona /no/such/file.yaml cannot be read"),
        ({"hear_voice": 5.0}, "hear_voice: backend 'rules' has no use for it"),
        (
            {
                "backend": "openai",
                "model": "m",
                "base_url": "http://127.0.0.1:9/v1",
                "picture": "/no/such.png",
            },
            "/no/such.png cannot be read",
        ),
    ],
)
def test_a_mistake_is_told_at_configure(within: None, parameters: dict, complaint: str) -> None:
    talk = Stage(**parameters)
    try:
        assert talk.planner.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert complaint in talk.planner.last_error
    finally:
        talk.close()
