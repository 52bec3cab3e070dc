# SPDX-License-Identifier: Apache-2.0
"""The `say` action: speech through the avatar, with queueing, interruption and cancel as barge-in.

rclpy runs an action's `execute` either blocking (nothing else is served then) or as a coroutine that its executor
polls without pause. Here a goal is executed by neither: it is marked as executing, its sound is given to the engine
piece by piece, it is followed frame by frame, and its result is sent when it is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from rclpy.action import CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle

from flowact_msgs.action import Say
from flowact_msgs.msg import Transcript
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import one_line
from flowact_ros.nodes.convert import ConversionError, audio_array, to_duration
from flowact_ros.nodes.deferred_server import DeferredServer
from flowact_ros.timebase import FRAME_RATE

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Frame
    from flowact_ros.engine.session import Session
    from flowact_ros.nodes.base import FlowactNode

TEND_S = 0.05  # how often goals are looked at
FEEDBACK_S = 0.2
FEEDBACKS = 4  # of goals that wait, at most, each time: of hundreds each hears of itself now and then
AHEAD_S = 60.0  # speech that the engine is given before it is needed; it refuses more than 120 s
PIECE_S = 0.5  # once so much is there, the least that it is given: soon enough that the utterance is not taken for over
LONGEST_BREAK_FRAMES = 50
REST_TIMEOUT_S = 2.0  # for the last frame of an interrupted one
START_TIMEOUT_S = 20.0  # for the first frame, once nothing else is being said


class _Utterance:
    """A goal on its way."""

    def __init__(self, handle: ServerGoalHandle, name: str, pcm: np.ndarray, rate: int) -> None:
        self.handle, self.name, self.rate = handle, name, rate
        self.duration_s = len(pcm) / rate
        self.rest = pcm  # what the engine was not given yet
        self.request = handle.request
        self.frames = 0  # that left with its sound
        self.others = 0  # frames without its sound, since the last one with it
        self.over = False  # its frames have begun and ended
        self.cut: tuple[int, str] | None = None  # (error code, message) once it is interrupted
        self.cut_at = 0.0
        self.turn_since = 0.0  # when nothing stood before it any more
        self.fed_back = 0.0

    def interrupt(self, code: int, reason: str) -> None:
        if self.cut is None:
            self.cut, self.cut_at = (code, reason), time.monotonic()
            self.rest = self.rest[:0]

    def piece(self, most_s: float) -> tuple[np.ndarray, bool]:
        """The next samples to give, and whether they are the last ones."""
        size = max(1, int(most_s * self.rate))
        return self.rest[:size], size >= len(self.rest)

    def frame_left(self, own: bool) -> None:
        """A frame left, with its sound or not. Silence put in where the engine was late is not the end of it."""
        if own:
            self.frames += 1
            self.others = 0
        elif self.frames:
            self.others += 1
            self.over = self.frames >= int(self.duration_s * FRAME_RATE) or self.others > LONGEST_BREAK_FRAMES

    def ended(self, now: float) -> bool:
        """Its last frame has left: only then is it known how much was spoken."""
        if self.cut is None:
            return self.over
        return self.over or not self.frames or self.others > 0 or now - self.cut_at > REST_TIMEOUT_S


class SayServer:
    """Serves `say` from configure to cleanup, for the session that is attached.

    What is said goes to `speech/text` where the goal has its text: the planner chooses the behaviour by it.
    `frame_left` is called in the pacing thread, the rest in the executor.
    """

    def __init__(self, node: FlowactNode) -> None:
        self._node = node
        self._session: Session | None = None
        self._speaking: Callable[[], bool] = lambda: False
        self._on_speech: Callable[[str], None] = lambda name: None
        self._lock = threading.Lock()
        self._utterances: list[_Utterance] = []
        self._number = 0
        self._timer = node.add_timer(TEND_S, self._tend)
        self._timer.cancel()  # runs while there are goals: each wake asks all entities of the node
        self._server = DeferredServer(
            node,
            Say,
            topics.SAY,
            on_waiting=self._timer.reset,
            goal_callback=lambda request: GoalResponse.ACCEPT,  # a refusal is a result that says why
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            result_timeout=60,
        )
        node.add_entity(self._server.destroy)

    def attach(
        self, session: Session, speaking: Callable[[], bool], on_speech: Callable[[str], None]
    ) -> None:
        """Activation, while topics can be made.

        speaking: does speech leave now; on_speech: gets the name of an utterance before it is pushed.
        """
        self._speaking, self._on_speech = speaking, on_speech
        self._texts = self._node.add_publisher(Transcript, topics.SPEECH_TEXT)
        self._session = session

    def detach(self) -> None:
        """Deactivation: every goal ends, new ones are refused, and nothing of the session is held any more."""
        self._session, self._speaking, self._on_speech = None, lambda: False, lambda name: None
        with self._lock:
            utterances, self._utterances = self._utterances, []
        for utterance in utterances:
            self._finish(utterance, *(utterance.cut or (Say.Result.NOT_ACTIVE, "the avatar was deactivated")))

    @property
    def waiting(self) -> int:
        return len(self._utterances)

    # ------------------------------------------------------------ requests

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        handle.execute()
        try:
            self._start(handle)
        except Exception as error:  # the goal must get its result, whatever it was
            self._node.report(error, "say")
            self._refuse(handle, Say.Result.ENGINE_ERROR, one_line(error))

    def _start(self, handle: ServerGoalHandle) -> None:
        goal, session = handle.request, self._session
        if session is None:
            self._refuse(handle, Say.Result.NOT_ACTIVE, "the avatar is not active")
            return
        if not len(goal.audio.data):
            if goal.text.strip():
                text = "no speech synthesizer serves this avatar yet: send audio, or have a TTS publish on 'speech'"
                self._refuse(handle, Say.Result.NO_SYNTHESIZER, text)
            else:
                self._refuse(handle, Say.Result.NOTHING_TO_SAY, "the goal has neither text nor audio")
            return
        try:
            pcm, rate = audio_array(goal.audio)
        except ConversionError as error:
            self._refuse(handle, Say.Result.INVALID_AUDIO, str(error))
            return
        # Speech of the topic counts as well, also while it waits.
        busy = bool(self._utterances) or self._speaking() or session.queued_s > 0.0
        if goal.policy == Say.Goal.REJECT and busy:
            self._refuse(handle, Say.Result.REJECTED, "something is being said, and the policy is REJECT")
            return
        if goal.policy == Say.Goal.INTERRUPT and busy:
            above = max((u.request.priority for u in self._utterances if not u.over), default=0)
            if above > goal.priority:
                reason = f"something of priority {above} is being said, this goal has {goal.priority}"
                self._refuse(handle, Say.Result.REJECTED, reason)
                return
            self.interrupted("by another goal")
            session.interrupt()
        elif goal.policy not in (Say.Goal.QUEUE, Say.Goal.INTERRUPT, Say.Goal.REJECT):
            self._refuse(handle, Say.Result.REJECTED, f"policy is {goal.policy}: must be 0, 1 or 2")
            return
        self._number += 1
        name = self._free_name(goal.utterance_id or f"say-{self._number}")
        utterance = _Utterance(handle, name, pcm, rate)
        with self._lock:
            self._utterances.append(utterance)
        self._timer.reset()
        try:
            self._on_speech(name)
        except Exception:
            with self._lock:
                self._utterances.remove(utterance)
            raise
        self._feed_or_fail(session)
        self._tell_text(name, goal.text.strip())

    def _feed(self, session: Session) -> None:
        """Gives the engine what it has room for, one goal after the other: no goal is too long."""
        for utterance in list(self._utterances):
            while len(utterance.rest):
                room = AHEAD_S - session.queued_s
                piece, last = utterance.piece(room)
                if room < PIECE_S and not (last and room > 0):
                    return
                try:
                    session.push_audio(piece, utterance.rate, utterance_id=utterance.name, last=last)
                except AudioQueueFull:  # speech of the topic fills it: later
                    return
                utterance.rest = utterance.rest[len(piece) :]

    def _tell_text(self, name: str, text: str) -> None:
        """Times of its words are not known: `start` and `end` stay 0."""
        if text:
            message = Transcript(utterance_id=name, text=text, final=True, confidence=1.0)
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._texts.publish(message)

    def _free_name(self, wanted: str) -> str:
        """The same utterance_id twice would be taken for one utterance."""
        names = {u.name for u in self._utterances}
        name, number = wanted, 2
        while name in names:
            name, number = f"{wanted}-{number}", number + 1
        return name

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        with self._lock:
            utterance = next((u for u in self._utterances if u.handle.goal_id == handle.goal_id), None)
        if utterance is not None and utterance.cut is None and self._session is not None:
            utterance.interrupt(Say.Result.INTERRUPTED, "cancelled")
            self._session.interrupt(utterance.name)
        return CancelResponse.ACCEPT  # also of one whose result is about to leave: it then says so

    def interrupted(self, how: str) -> None:
        """All goals end as interrupted; the caller interrupts the session."""
        with self._lock:
            for utterance in self._utterances:
                utterance.interrupt(Say.Result.INTERRUPTED, f"interrupted {how}")

    # ------------------------------------------------------------ progress

    def frame_left(self, frame: Frame) -> None:
        """Pacing thread: which goal's sound left."""
        with self._lock:
            for utterance in self._utterances:
                utterance.frame_left(frame.utterance_id == utterance.name)

    def _tend(self) -> None:
        now = time.monotonic()
        self._server.tend()
        if self._session is not None:
            self._feed_or_fail(self._session)
        with self._lock:
            done = [u for u in self._utterances if u.ended(now)]
            self._utterances = [u for u in self._utterances if u not in done]
            waiting = list(self._utterances)
        for utterance in done:
            self._finish(utterance, *(utterance.cut or (Say.Result.NONE, "")))
        if not waiting and not self._server.waiting:
            self._timer.cancel()
        told = 0
        for utterance in sorted(waiting, key=lambda u: u.fed_back):
            first = utterance is waiting[0]
            if first and not utterance.frames and not self._speaking():
                utterance.turn_since = utterance.turn_since or now
                if now - utterance.turn_since > START_TIMEOUT_S:
                    utterance.interrupt(
                        Say.Result.TIMEOUT, f"no frame of it left within {START_TIMEOUT_S:.0f} s"
                    )
                    if self._session is not None:
                        self._session.interrupt(utterance.name)
            if now - utterance.fed_back >= FEEDBACK_S and (first or told < FEEDBACKS):
                told += not first
                utterance.fed_back = now
                feedback = Say.Feedback(frames=utterance.frames)
                if utterance.frames:
                    feedback.phase = Say.Feedback.SPEAKING
                else:
                    feedback.phase = Say.Feedback.PREPARING if first else Say.Feedback.QUEUED
                utterance.handle.publish_feedback(feedback)

    def _feed_or_fail(self, session: Session) -> None:
        """A goal whose sound the engine refuses ends, and keeps no other from its turn."""
        try:
            self._feed(session)
        except Exception as error:  # the goal must get its result, whatever it was
            self._node.report(error, "say")
            culprit = next((u for u in self._utterances if len(u.rest)), None)
            if culprit is not None:
                with self._lock:
                    culprit.interrupt(Say.Result.ENGINE_ERROR, one_line(error))

    def _finish(self, utterance: _Utterance, code: int, reason: str) -> None:
        spoken_s = min(utterance.frames / FRAME_RATE, utterance.duration_s)
        result = Say.Result(error_code=code, error_msg=reason, spoken=to_duration(spoken_s))
        words = utterance.request.text.split()
        share = 1.0 if code == Say.Result.NONE else spoken_s / max(utterance.duration_s, 1e-6)
        result.spoken_text = " ".join(words[: round(share * len(words))])

        def respond(handle: ServerGoalHandle) -> Say.Result:
            if handle.is_cancel_requested:
                handle.canceled()
            elif code == Say.Result.NONE:
                handle.succeed()
            else:
                handle.abort()
            return result

        self._server.finish(utterance.handle, respond)

    def _refuse(self, handle: ServerGoalHandle, code: int, reason: str) -> None:
        self._node.get_logger().warning(f"say refused: {reason}")

        def respond(handle: ServerGoalHandle) -> Say.Result:
            handle.abort()
            return Say.Result(error_code=code, error_msg=reason)

        self._server.finish(handle, respond)
