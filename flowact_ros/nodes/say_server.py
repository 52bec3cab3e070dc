# SPDX-License-Identifier: Apache-2.0
"""The `say` action: speech through the avatar, with queueing, interruption and cancel as barge-in.

rclpy runs an action's `execute` either blocking (nothing else is served then) or as a coroutine that its executor
polls without pause. Here a goal is executed by neither: it is marked as executing, its sound is given to the engine
piece by piece, it is followed frame by frame, and its result is sent when it is known. A text becomes sound sentence by
sentence (`sentence_maker`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.action import CancelResponse
from rclpy.action.server import ServerGoalHandle

from flowact_msgs.action import Say
from flowact_msgs.msg import Transcript
from flowact_ros.dialogue.speech_text import SpokenText, split_sentences
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import one_line
from flowact_ros.nodes.convert import ConversionError, audio_array, to_duration
from flowact_ros.nodes.deferred_server import DeferredServer
from flowact_ros.nodes.say_goal import SayGoal
from flowact_ros.nodes.sentence_maker import SentenceMaker

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Frame
    from flowact_ros.engine.session import Session
    from flowact_ros.nodes.base import FlowactNode

TEND_S = 0.05  # how often goals are looked at
FEEDBACK_S = 0.2
FEEDBACKS = 4  # of goals that wait, at most, each time: of hundreds each hears of itself now and then
AHEAD_S = 60.0  # speech that the engine is given before it is needed; it refuses more than 120 s
PIECE_S = 0.5  # once so much is there, the least that it is given: soon enough that the utterance is not taken for over
START_TIMEOUT_S = 20.0  # for the first frame, once nothing else is being said
MAX_TEXT = 20_000  # characters of a goal: twenty minutes of speech


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
        self._utterances: list[SayGoal] = []
        self._number = 0
        self._timer = node.add_timer(TEND_S, self._tend)
        self._timer.cancel()  # runs while there are goals: each wake asks all entities of the node
        self._server = DeferredServer(
            node,
            Say,
            topics.SAY,
            on_waiting=self._timer.reset,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )
        self._maker = SentenceMaker(node, self._tend)

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
            if utterance.cut is None:
                utterance.interrupt(Say.Result.NOT_ACTIVE, "the avatar was deactivated")
            self._finish(utterance)

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
        text = goal.text.strip()
        sentences: list[str] = []
        pcm, rate = None, 0
        if len(goal.audio.data):
            try:
                pcm, rate = audio_array(goal.audio)
            except ConversionError as error:
                self._refuse(handle, Say.Result.INVALID_AUDIO, str(error))
                return
        elif not text:
            self._refuse(handle, Say.Result.NOTHING_TO_SAY, "the goal has neither text nor audio")
            return
        elif len(text) > MAX_TEXT:
            reason = f"the text has {len(text)} characters: at most {MAX_TEXT} are spoken in one goal"
            self._refuse(handle, Say.Result.SYNTHESIZER_ERROR, reason)
            return
        else:
            sentences = split_sentences(text)
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
        utterance = SayGoal(handle, name, sentences=sentences)
        if pcm is not None:
            utterance.take(" ".join(text.split()), pcm, rate)
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
        self._tell_text(name, text)

    def _feed(self, session: Session) -> None:
        """Gives the engine what it has room for, one goal after the other: no goal is too long."""
        self._maker.tend(self._utterances, session.queued_s, time.monotonic())
        for utterance in list(self._utterances):
            while len(utterance.rest) or (utterance.complete and utterance.duration_s and not utterance.closed):
                room = AHEAD_S - session.queued_s
                piece, last = utterance.piece(room)
                if room < PIECE_S and not (last and room > 0):
                    return
                try:
                    session.push_audio(piece, utterance.rate, utterance_id=utterance.name, last=last)
                except AudioQueueFull:  # speech of the topic fills it: later
                    return
                utterance.rest, utterance.closed = utterance.rest[len(piece) :], last
            if not utterance.complete:  # its next sentence comes before what waits behind it
                return

    def _tell_text(self, name: str, text: str) -> None:
        """For the planner. When it will be spoken is not known yet: `start` and `end` stay 0."""
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

    def said(self, name: str) -> tuple[SpokenText, float] | None:
        """What the goal of this name says, and how many seconds of it have left. Pacing thread."""
        with self._lock:
            return next(((u.said, u.spoken_s) for u in self._utterances if u.name == name), None)

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
            self._feed_back(utterance, utterance.new_words(), True, now)
            self._finish(utterance)
        if not waiting and not self._server.waiting:
            self._timer.cancel()
        told = 0
        for utterance in sorted(waiting, key=lambda u: u.fed_back):
            first = utterance is waiting[0]
            if first and utterance.duration_s and not utterance.frames and not self._speaking():
                self._end_if_mute(utterance, now)
            words = utterance.new_words()
            due = now - utterance.fed_back >= FEEDBACK_S and (first or told < FEEDBACKS)
            if words or due:
                told += not first
                self._feed_back(utterance, words or [utterance.told_word], first, now)

    def _end_if_mute(self, utterance: SayGoal, now: float) -> None:
        """It is its turn, its sound is there, and still no frame leaves with it."""
        utterance.turn_since = utterance.turn_since or now
        if now - utterance.turn_since > START_TIMEOUT_S:
            utterance.interrupt(Say.Result.TIMEOUT, f"no frame of it left within {START_TIMEOUT_S:.0f} s")
            if self._session is not None:
                self._session.interrupt(utterance.name)

    def _feed_back(self, utterance: SayGoal, words: list[str], first: bool, now: float) -> None:
        utterance.fed_back = now
        phase = Say.Feedback.PREPARING if first else Say.Feedback.QUEUED
        phase = Say.Feedback.SPEAKING if utterance.frames else phase
        for word in words:
            feedback = Say.Feedback(phase=phase, word=word, frames=utterance.frames)
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

    def _finish(self, utterance: SayGoal) -> None:
        code, reason = utterance.outcome()
        result = Say.Result(error_code=code, error_msg=reason, spoken=to_duration(utterance.spoken_s))
        until_s = utterance.duration_s if code == Say.Result.NONE else utterance.spoken_s
        result.spoken_text = utterance.said.spoken(until_s)
        if code not in (Say.Result.NONE, Say.Result.INTERRUPTED):
            self._node.get_logger().warning(f"say ended: {reason}")

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
