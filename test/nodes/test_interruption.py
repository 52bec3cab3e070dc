# SPDX-License-Identifier: Apache-2.0
"""A user breaks into what the avatar says: generator, planner, synthesizer and recogniser are real, in a room with an
echo where the test wants one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_harness import CANCELED, SUCCEEDED, loud, speech_messages
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from tiny_whisper import make_transformers

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk, AvatarState, Instruction, StreamMetrics, Transcript
from flowact_msgs.srv import Synthesize
from flowact_ros.dialogue.echo import RATE, Played
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.media.resample import resample
from flowact_ros.nodes import topics
from flowact_ros.nodes.avatar_generator import AvatarGenerator
from flowact_ros.nodes.convert import audio_array, audio_message, from_time, to_time
from flowact_ros.nodes.instruction_planner import InstructionPlanner
from flowact_ros.nodes.speech_recognizer import SpeechRecognizer
from flowact_ros.nodes.speech_synthesizer import SpeechSynthesizer

pytestmark = pytest.mark.usefixtures("within")
pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")

PATIENCE_S = 90.0
BLOCK_NS = 40_000_000
ECHO_S, ECHO = 0.12, 0.3  # -10 dB
LONG = (
    "The museum has three floors, and the oldest things that we show are in the cellar. On the ground floor you "
    "find the shop and the cafe. The first floor is all about ships. On the second floor there are paintings of "
    "the harbour, and from the roof you can see the whole town when the weather is good."
)
SHIPS = (
    "The ships are on the first floor, where you find the models of forty of them, from the first rafts to the great "
    "liners. Some are very old indeed, and the largest one is as long as this hall. Its crew were four hundred people."
)
PERSONA = """
name: Nova
role: a guide
replies:
  - {words: [museum], say: "LONG"}
  - {words: [ships], say: "SHIPS"}
fallback: [Ask our staff.]
""".replace("LONG", LONG).replace("SHIPS", SHIPS)


class Room:
    """The nodes, each spun by a thread of its own, and one that watches and plays the user."""

    def __init__(self, nodes: dict[type, dict[str, Any]], echo: float = 0.0) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.nodes = [
            kind(
                context=self.context,
                namespace="/avatar",
                parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
            )
            for kind, given in nodes.items()
        ]
        self.other = rclpy.create_node("other", namespace="/avatar", context=self.context)
        self.seen: dict[str, list[Any]] = {}
        for name, kind in (
            (topics.AUDIO, AudioChunk),
            (topics.STATE, AvatarState),
            (topics.INSTRUCTION, Instruction),
            (topics.METRICS, StreamMetrics),
            (topics.TRANSCRIPT, Transcript),
            (topics.CAPTIONS, Transcript),
            (topics.USER_SPEAKING, Bool),
        ):
            self.seen[name] = []
            qos = topics.AUDIO_DEEP_QOS if kind is AudioChunk else topics.QOS[name]
            self.other.create_subscription(kind, name, self.seen[name].append, qos)
        self._played, self._echo = Played(), echo
        self._lock = threading.Lock()
        self.other.create_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        self._mic = self.other.create_publisher(AudioChunk, topics.MIC, topics.AUDIO_DEEP_QOS)
        self.speech = self.other.create_publisher(AudioChunk, topics.SPEECH, topics.AUDIO_DEEP_QOS)
        self.transcripts = self.other.create_publisher(Transcript, topics.TRANSCRIPT, topics.EVENT_QOS)
        self.interrupter = self.other.create_client(Trigger, topics.INTERRUPT)
        self.client = ActionClient(self.other, Say, topics.SAY)
        self._voice = np.zeros(0, np.float32)  # of the user, still to be said
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        for node in (*self.nodes, self.other):
            executor = SingleThreadedExecutor(context=self.context)
            executor.add_node(node)
            self._threads.append(threading.Thread(target=self._spin, args=(executor,), daemon=True))
        self._threads.append(threading.Thread(target=self._listen, daemon=True))

    def start(self) -> None:
        for node in self.nodes:
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.last_error
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.last_error
        for thread in self._threads:
            thread.start()
        self.until(lambda: self.seen[topics.AUDIO] and self.seen[topics.STATE], "an avatar")
        self.until(
            lambda: self.client.server_is_ready() and self.interrupter.service_is_ready(), "its services"
        )

    def _spin(self, executor: SingleThreadedExecutor) -> None:
        while not self._stop.is_set():
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown(timeout_sec=1.0)

    def _on_audio(self, message: AudioChunk) -> None:
        with self._lock:
            self._played.push(*audio_array(message), from_time(message.header.stamp))

    def _listen(self) -> None:
        """What the microphone hears, as time passes."""
        rng = np.random.default_rng(0)
        count = RATE * BLOCK_NS // 1_000_000_000
        now_ns = self.other.get_clock().now().nanoseconds
        while not self._stop.is_set():
            time.sleep(max(0.0, (now_ns + BLOCK_NS - self.other.get_clock().now().nanoseconds) / 1e9))
            with self._lock:
                at = now_ns * RATE // 1_000_000_000 - round(ECHO_S * RATE)
                pcm = self._echo * self._played.read(at, count) + rng.normal(0, 1e-3, count)
                voice, self._voice = self._voice[:count], self._voice[count:]
            pcm[: len(voice)] += voice
            self._mic.publish(audio_message(pcm.astype(np.float32), RATE, to_time(now_ns)))
            now_ns += BLOCK_NS

    def user_says(self, text: str) -> None:
        """As loudly as the avatar."""
        pcm = load_synthesizer("hibari").synthesize(text, pitch=0.7).pcm
        heard = np.flatnonzero(np.abs(pcm) > 0.02)
        with self._lock:
            self._voice = resample(pcm[heard[0] : heard[-1]], 24_000, RATE)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"did not happen: {what}"
            time.sleep(0.01)
        return value

    @property
    def state(self) -> AvatarState:
        return self.seen[topics.STATE][-1]

    def behaviours(self, since: int = 0) -> list[int]:
        return [instruction.behaviour for instruction in self.seen[topics.INSTRUCTION][since:]]

    def say(self, text: str, name: str) -> tuple[Any, Any]:
        """(goal handle, future of its result)"""
        sent = self.client.send_goal_async(Say.Goal(text=text, utterance_id=name))
        self.until(sent.done, "an answer to the goal")
        return sent.result(), sent.result().get_result_async()

    def interrupt(self) -> None:
        self.until(self.interrupter.call_async(Trigger.Request()).done, "an answer of the service")

    def samples(self, name: str) -> int:
        """Of an utterance, that left."""
        return sum(
            np.count_nonzero(audio_array(m)[0]) for m in self.seen[topics.AUDIO] if m.utterance_id == name
        )

    def hears(self, text: str, number: int) -> None:
        self.transcripts.publish(Transcript(text=text, final=True, utterance_id=f"told-{number}"))

    def rests(self, seconds: float = 1.0) -> None:
        """Nothing is said, and nothing waits, for so long."""
        self.until(lambda: not self.state.robot_speaking and not self.state.speech_waits, "rest")
        since = from_time(self.state.header.stamp)  # of a frame: sound of earlier ones may come after it

        def later() -> list[AudioChunk]:
            return [message for message in self.seen[topics.AUDIO] if from_time(message.header.stamp) > since]

        self.until(lambda: len(later()) > 25 * seconds, "frames")
        assert not any(np.any(audio_array(message)[0]) for message in later())
        assert not self.state.robot_speaking and not self.state.speech_waits

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(10.0)
        for node in self.nodes:
            node.stop()
        for node in (*self.nodes, self.other):
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the recogniser's package transformers is not installed")
    return make_transformers(tmp_path_factory.mktemp("model"))


@pytest.fixture
def room(within: None, reference: Path, tmp_path: Path, model: Path) -> Iterator[Callable[..., Room]]:
    made: list[Room] = []
    persona = tmp_path / "nova.yaml"
    persona.write_text(PERSONA)

    def make(echo: str = "", barge_in: bool = True, **rules: Any) -> Room:
        """echo: with a recogniser in that mode, in a room with an echo unless it is 'none'."""
        nodes: dict[type, dict[str, Any]] = {
            AvatarGenerator: {"preset": "debug", "threads": 1, "reference_image": str(reference)},
            SpeechSynthesizer: {},
            InstructionPlanner: {"barge_in": barge_in, "persona": str(persona), **rules},
        }
        if echo:
            nodes[SpeechRecognizer] = {"recognizer": "transformers", "model": str(model), "echo": echo}
        made.append(Room(nodes, ECHO if echo not in ("", "none") else 0.0))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("echo", ["none", "threshold", "cancel"])
def test_a_voice_in_mid_sentence_is_listened_to(room: Any, echo: str) -> None:
    if echo == "cancel":
        pytest.importorskip("pyaec", reason="the echo canceller's package pyaec is not installed")
    here = room(echo)
    _, result = here.say(LONG, "tale")
    here.until(lambda: here.samples("tale") > 6 * 24_000, "six seconds of it")
    assert here.seen[topics.USER_SPEAKING][-1].data is False, "it takes its own voice for the user's"
    assert Instruction.LISTENING not in here.behaviours()
    said = len(here.seen[topics.INSTRUCTION])
    here.user_says("Excuse me, I would like to ask something else about all of this.")
    here.until(lambda: Instruction.LISTENING in here.behaviours(said), "a listening face")
    here.until(result.done, "the goal's end")
    answer = result.result().result
    assert answer.error_code == Say.Result.INTERRUPTED
    assert LONG.startswith(answer.spoken_text.rstrip(" …")) and 20 < len(answer.spoken_text) < len(LONG) - 20
    here.rests()
    metrics = here.seen[topics.METRICS]
    here.until(lambda: "interrupted" in metrics[-1].dropped_reasons, "a count of what was discarded")
    here.until(lambda: here.state.behaviour != AvatarState.SPEAKING, "another face than a speaking one")
    here.until(lambda: [m for m in here.seen[topics.TRANSCRIPT] if m.final], "what the user said")

    def own() -> Transcript:
        return [m for m in here.seen[topics.CAPTIONS] if m.header.frame_id == "avatar"][-1]

    here.until(lambda: own().final, "its last caption")
    assert own().utterance_id == "tale"


def test_late_sound_of_what_was_cut_is_not_heard(room: Any) -> None:
    here = room()
    messages = speech_messages(loud(20.0), "stream")
    for message in messages[:375]:
        here.speech.publish(message)
    here.until(lambda: here.samples("stream") > 12_000, "its beginning")
    here.interrupt()
    here.rests(0.5)
    cut = here.samples("stream")
    assert cut < 14 * 24_000
    for message in messages[375:]:
        here.speech.publish(message)
    here.rests()
    assert here.samples("stream") == cut
    metrics = here.seen[topics.METRICS]
    here.until(lambda: metrics[-1].received_samples == 20 * 24_000, "all of it")
    dropped = dict(zip(metrics[-1].dropped_reasons, metrics[-1].dropped_samples, strict=True))
    assert dropped["interrupted"] + metrics[-1].heard_samples == 20 * 24_000
    assert abs(metrics[-1].heard_samples - here.samples("stream")) <= 480
    here.say("Next one.", "next")
    here.until(lambda: here.samples("next") > 2_400, "the next utterance")


@pytest.mark.slow
def test_two_interruptions_in_a_row(room: Any) -> None:
    """Each answer is remembered as far as it was heard, and none comes back."""
    here = room()
    planner = here.nodes[2]
    for number, question in enumerate(("What about the museum?", "And the ships?"), 1):
        here.hears(question, number)
        first = f"reply-{number}-1"
        here.until(lambda first=first: here.samples(first) > 12_000, f"{first} to be spoken")
        said = len(here.seen[topics.INSTRUCTION])
        here.user_says("No, wait a moment please!")
        here.until(lambda said=said: Instruction.LISTENING in here.behaviours(said), "a listening face")
        here.rests(0.5)
        here.until(lambda: not planner._answers._speaker.busy, "the end of its goals")
        here.until(lambda: here.state.behaviour != AvatarState.SPEAKING, "another face than a speaking one")
    assert planner._answers.conversation.counts.interrupted == 2
    history = planner._answers.conversation._history.messages("")
    heard = [message.text for message in history if message.role == "assistant"]
    assert len(heard) == 2 and all(text.endswith("…") for text in heard)
    assert LONG.startswith(heard[0].rstrip(" …")) and "The ships are".startswith(heard[1][:8])
    here.rests()


def test_what_is_only_being_made_is_not_said(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = room()
    going, go_on = threading.Event(), threading.Event()
    speak = here.nodes[1]._speak

    def slow(request: Synthesize.Request) -> Any:
        going.set()
        assert go_on.wait(PATIENCE_S)
        return speak(request)

    monkeypatch.setattr(here.nodes[1], "_speak", slow)
    _, result = here.say("This takes long to make. And this as well.", "slow")
    here.until(going.is_set, "the synthesizer")
    here.interrupt()
    here.until(result.done, "the goal's end")
    answer = result.result().result
    assert (answer.error_code, answer.spoken_text) == (Say.Result.INTERRUPTED, "")
    go_on.set()
    here.rests()
    _, result = here.say("This is quick.", "quick")
    here.until(result.done, "the next goal's end")
    assert result.result().result.spoken_text == "This is quick." and here.samples("slow") == 0


@pytest.mark.slow
def test_a_cancel_that_races_with_the_end_has_one_result(room: Any) -> None:
    """Whoever wins, the goal ends once, says what was heard, and the next one is spoken whole."""
    here = room(barge_in=False)
    text = "One two three, four five six, seven eight nine, ten eleven twelve."
    handle, result = here.say(text, "whole")
    here.until(result.done, "its end")
    here.rests(0.3)
    length = here.samples("whole")
    outcomes = set()
    # The first one so early that it wins also where this test is kept waiting.
    for number, early in enumerate((length / 24_000 - 0.1, 0.4, 0.15, 0.08, 0.04, 0.0)):
        name = f"race-{number}"
        handle, result = here.say(text, name)
        here.until(
            lambda name=name, early=early: here.samples(name) >= length - early * 24_000, "nearly its end"
        )
        cancel = handle.cancel_goal_async()
        here.until(lambda cancel=cancel, result=result: cancel.done() and result.done(), "both answers")
        status, answer = result.result().status, result.result().result
        assert answer.error_code in (Say.Result.NONE, Say.Result.INTERRUPTED)
        assert status in (SUCCEEDED, CANCELED) and text.startswith(answer.spoken_text.rstrip(" …"))
        if answer.error_code == Say.Result.NONE:
            assert answer.spoken_text == text
        outcomes.add(answer.error_code)
        here.rests(0.3)
    assert Say.Result.INTERRUPTED in outcomes
    _, result = here.say(text, "after")
    here.until(result.done, "the last one's end")
    here.rests(0.3)
    assert here.samples("after") == length
