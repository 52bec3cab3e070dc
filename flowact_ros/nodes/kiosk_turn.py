# SPDX-License-Identifier: Apache-2.0
"""The user's turn by touch: a press at the page interrupts the avatar, has it listen, and opens a microphone.

Whose microphone is said by `talk`: "open": the robot's, which is always open; "push": the robot's, whose node is
active only while somebody has the turn; "page": that of the device which shows the page, published on `mic`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, AvatarState, Instruction, Transcript
from flowact_ros.kiosk.display import PAGE, PUSH
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.convert import NANOSECONDS, behaviour_number, to_bytes_field, to_time
from flowact_ros.vocabulary import IDLE, LISTENING, PRIORITY_NORMAL, PRIORITY_URGENT, S16LE

UNDERSTOOD_S = 1.0  # after a text was understood: who goes on talking by then keeps the turn
HANGOVER_S = 0.8  # the microphone hears on for so long: people let go before their last word has ended
OPENS_WITHIN_S = 3.0  # a microphone that takes longer is not there
ASK_AGAIN_S = 1.0  # between requests for the same change of the microphone's state
SHOWN_S = 5.0  # a problem

MICROPHONE = "microphone"  # the node's name, in launch files and in config/flowact.yaml


class TouchTurn:
    """From activation to deactivation, in the executor.

    changed: called with what pages are to know, `{"page", "phase", "problem"}`.
    """

    def __init__(
        self, node: FlowactNode, talk: str, longest_silence_s: float, changed: Callable[[dict[str, Any]], None]
    ) -> None:
        """longest_silence_s: [s] without a voice, after which a turn that nobody uses is over."""
        self._node, self._talk, self._longest_s, self._changed = node, talk, longest_silence_s, changed
        self._page = ""  # that of the person who has the turn
        self._opened = self._released = False
        self._since_s = self._voice_s = 0.0
        self._close_at_s = float("inf")
        self._asked_s = float("-inf")
        self._problem_until_s = float("inf")
        self._speaking = self._voiced = self._instructed = False
        self._published = 0  # chunks of this page's voice
        self._first_sample = 0
        self._instructions = node.add_publisher(Instruction, topics.INSTRUCTION)
        self._interrupter = node.create_client(Trigger, topics.INTERRUPT)
        self._lifecycle = node.create_client(ChangeState, f"{MICROPHONE}/change_state") if talk == PUSH else None
        node.add_entity(lambda: node.destroy_client(self._interrupter))
        if self._lifecycle is not None:
            node.add_entity(lambda: node.destroy_client(self._lifecycle))
        self._voice = node.add_publisher(AudioChunk, topics.MIC, topics.AUDIO_DEEP_QOS) if talk == PAGE else None
        node.add_subscription(Instruction, topics.INSTRUCTION, self._on_instruction)
        node.add_subscription(Bool, topics.USER_SPEAKING, self._on_voice)
        node.add_subscription(Transcript, topics.TRANSCRIPT, self._on_transcript)

    # ------------------------------------------------------------ what people do

    def press(self, page: str) -> None:
        """Somebody wants to talk."""
        if self._page and self._page != page:
            return  # somebody else has the turn, and this page shows it
        now = time.monotonic()
        if self._page:
            self._close_at_s, self._released = float("inf"), False  # pressed again within the hangover
            return
        if self._speaking:
            self.stop()
        self._page, self._opened, self._released = page, False, False
        self._since_s = self._voice_s = now
        self._close_at_s, self._asked_s = float("inf"), float("-inf")
        self._published = self._first_sample = 0
        self._instruct(LISTENING, PRIORITY_URGENT)
        self._tell()
        self.tick()

    def release(self, page: str) -> None:
        """He has said it."""
        if page == self._page:
            self._released = True
            self._close_at_s = min(self._close_at_s, time.monotonic() + HANGOVER_S)

    def left(self, page: str) -> None:
        """The page is gone."""
        if page == self._page:
            self._end()

    def stop(self) -> None:
        """What the avatar says stops."""
        if not self._interrupter.service_is_ready():
            name = self._node.resolve_service_name(topics.INTERRUPT)
            self._node.report(f"somebody touched the page to stop the avatar, but nobody serves {name}")
            return
        self._interrupter.call_async(Trigger.Request()).add_done_callback(
            self._node.guard(self._stopped, f"an answer of '{topics.INTERRUPT}'")
        )

    def _stopped(self, future: Any) -> None:
        answer = future.result()
        if not answer.success:
            self._node.report(f"the avatar could not be stopped: {answer.message}")

    def hear(self, page: str, pcm_s16: bytes, rate: int) -> None:
        """S16LE mono samples of the page's microphone. What others send is not heard."""
        if self._voice is None or page != self._page:
            return
        count = len(pcm_s16) // 2
        message = AudioChunk(
            sample_rate=rate,
            channels=1,
            encoding=S16LE,
            first_sample=self._first_sample,
            sequence=self._published,
            data=to_bytes_field(pcm_s16),
        )
        message.header.stamp = to_time(self._node.now_ns() - count * NANOSECONDS // rate)
        message.header.frame_id = self._node.get_name()
        self._voice.publish(message)
        self._published += 1
        self._first_sample += count
        if not self._opened:
            self._opened = True
            self._tell()

    # ------------------------------------------------------------ what the others do

    def on_state(self, message: AvatarState) -> None:
        """Of the avatar."""
        if message.robot_speaking and not self._speaking and self._page:
            self._instructed = False  # whoever has it speak conducts it
            self._end()  # the answer has come
        self._speaking = message.robot_speaking

    def _on_instruction(self, message: Instruction) -> None:
        if message.header.frame_id == self._node.get_name():
            return
        self._instructed = False  # somebody else conducts the face now
        if self._page and not self._voiced and message.behaviour == Instruction.IDLE:
            self._instruct(LISTENING, PRIORITY_NORMAL)  # it stopped speaking, and still is to listen

    def _on_voice(self, message: Bool) -> None:
        self._voiced = message.data
        self._voice_s = time.monotonic()
        if message.data and not self._released:
            self._close_at_s = float("inf")  # he goes on

    def _on_transcript(self, message: Transcript) -> None:
        self._voice_s = time.monotonic()
        if message.final and message.text.strip() and not self._voiced:
            self._close_at_s = min(self._close_at_s, time.monotonic() + UNDERSTOOD_S)

    def tick(self) -> None:
        """A few times a second."""
        now = time.monotonic()
        if now > self._problem_until_s:
            self._problem_until_s = float("inf")
            self._tell()
        if self._talk == PUSH:
            self._drive_microphone(now)
        elif self._page and not self._opened and (self._talk != PAGE):
            self._opened = True
            self._tell()
        if not self._page:
            return
        if now >= self._close_at_s or (not self._voiced and now - self._voice_s > self._longest_s):
            self._end()
        elif not self._opened and now - self._since_s > OPENS_WITHIN_S:
            self._fail()

    def _drive_microphone(self, now: float) -> None:
        """Its state is seen by what it publishes: a node that crashed comes back active, and is told again."""
        me = self._node.get_namespace()
        publishers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topics.MIC))
        is_open = any(end.node_name == MICROPHONE and end.node_namespace == me for end in publishers)
        wanted = bool(self._page)
        if is_open and wanted and not self._opened:
            self._opened = True
            self._tell()
        if is_open == wanted or now - self._asked_s < ASK_AGAIN_S or self._lifecycle is None:
            return
        self._asked_s = now
        if not self._lifecycle.service_is_ready():
            return  # not found yet, or there is none: a turn that waits for it fails
        request = ChangeState.Request()
        request.transition.id = Transition.TRANSITION_ACTIVATE if wanted else Transition.TRANSITION_DEACTIVATE
        self._lifecycle.call_async(request)

    # ------------------------------------------------------------ the turn's end

    def _fail(self) -> None:
        if self._lifecycle is None:
            problem = "no sound comes from it"
        elif not self._lifecycle.service_is_ready():
            problem = f"no node is called {self._node.resolve_service_name(MICROPHONE)}"
        else:
            problem = f"{self._node.resolve_service_name(MICROPHONE)} did not become active"
        self._node.report(f"a touch at the page could not open the microphone: {problem}")
        self._end(problem="The microphone does not answer")

    def _end(self, problem: str = "") -> None:
        page, self._page = self._page, ""
        self._opened, self._asked_s = False, float("-inf")
        self._close_at_s = float("inf")
        if self._instructed and not self._voiced:
            self._instruct(IDLE, PRIORITY_NORMAL)  # nobody else has said anything: it stops listening
        self._instructed = False
        if problem:
            self._problem_until_s = time.monotonic() + SHOWN_S
        self._changed({"page": page, "problem": problem} if problem else {})
        if self._talk == PUSH:
            self._drive_microphone(time.monotonic())

    def close(self) -> None:
        """Deactivation."""
        if self._page:
            self._end()

    @property
    def open(self) -> bool:
        """Somebody has the turn."""
        return bool(self._page)

    def _tell(self) -> None:
        phase = "open" if self._opened else "opening"
        self._changed({"page": self._page, "phase": phase} if self._page else {})

    def _instruct(self, behaviour: str, priority: int) -> None:
        """Where somebody conducts the face; else it would be conducted no more once this has been said."""
        if self._node.count_publishers(topics.INSTRUCTION) < 2:
            return
        self._instructed = behaviour == LISTENING
        message = Instruction(behaviour=behaviour_number(behaviour), priority=priority)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = self._node.get_name()
        self._instructions.publish(message)

