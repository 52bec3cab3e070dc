# SPDX-License-Identifier: Apache-2.0
"""The stream onto topics: one thread that follows the session's pacing, one that encodes JPEGs.

Picture k is stamped t0 + k/25 and the first of its samples, too, in the node's clock: exact to the nanosecond, so
stamps are 40 ms apart whatever the machine does. In simulated time t0 moves with `/clock` (`stamps.Stamps`).
"""

from __future__ import annotations

import queue
import threading
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool

from flowact_msgs.msg import AudioChunk, AvatarState, Motion
from flowact_ros.media.jpeg import encode_jpeg
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import (
    NANOSECONDS,
    audio_message,
    behaviour_number,
    compressed_message,
    image_message,
    to_time,
)
from flowact_ros.nodes.stamps import Stamps, is_simulated
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from flowact_ros.vocabulary import IDLE

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Frame
    from flowact_ros.engine.session import Session
    from flowact_ros.nodes.base import FlowactNode

FRAME_ID = "avatar_screen"
JPEG_QUEUE = 8  # frames; an encoder later than that drops the oldest


class FramePublisher:
    """Publishes `image_raw`, `image_raw/compressed`, `audio`, `motion`, `state` and `robot_speaking` of one session.

    `on_frame(frame)` is called in the pacing thread after each frame left; `on_end(error or None)` when the
    session's frames end. `jpeg_of(frame)`: its picture as a JPEG, where that is there already.
    """

    def __init__(
        self,
        node: FlowactNode,
        session: Session,
        *,
        controls: tuple[str, ...] | Callable[[], tuple[str, ...]],
        encoding: str,
        jpeg_quality: int,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[BaseException | None], None],
        jpeg_of: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._node, self._session = node, session
        self._controls, self._encoding = controls if callable(controls) else lambda: controls, encoding
        self._jpeg_of = jpeg_of or (lambda frame: encode_jpeg(frame.rgb, jpeg_quality))
        self._on_frame, self._on_end = on_frame, on_end
        self._image = node.add_publisher(Image, topics.IMAGE)
        self._compressed = node.add_publisher(CompressedImage, topics.COMPRESSED)
        self._audio = node.add_publisher(AudioChunk, topics.AUDIO)
        self._motion = node.add_publisher(Motion, topics.MOTION)
        self._state = node.add_publisher(AvatarState, topics.STATE)
        self._speaking = node.add_publisher(Bool, topics.ROBOT_SPEAKING)
        self._shown: tuple[str, str, bool, str | None] | None = None  # the last one's: see `_publish_state`
        self._state_lock = threading.Lock()
        self._jpegs: queue.Queue[tuple[Any, int] | None] = queue.Queue(JPEG_QUEUE)
        self._stamps = Stamps()
        self.frames = 0
        self.jpegs_dropped = 0
        self.speaking = False
        self.fill_ms = self.publish_ms = 0.0  # of the last frame's Image
        self._recent: list[float] = []
        self._threads = [
            threading.Thread(target=self._pace, name="pacing", daemon=True),
            threading.Thread(target=self._encode, name="jpeg", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """After the session was closed: waits for both threads, so that topics can be destroyed."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5.0)
        # The last word: a latched state must not say that an avatar that is gone still speaks.
        self._publish_state((IDLE, "", False, None), self._node.now_ns())

    @property
    def fps(self) -> float:
        """[1/s] frames that left, over the last second."""
        recent = list(self._recent)
        return float(sum(time.monotonic() - t <= 1.0 for t in recent))

    def speech_accepted(self, utterance_id: str) -> None:
        """Any thread: speech will leave. A planner is told before the next frame could tell it."""
        shown = self._shown
        if shown is not None and not shown[2] and shown[3] is None:
            self._publish_state((*shown[:3], utterance_id), self._node.now_ns())

    def stamp_ns(self, frame_index: int) -> int:
        """[ns] in the node's clock: when frame `frame_index` is to be seen. 0 before the first frame."""
        return self._stamps[frame_index]

    # ------------------------------------------------------------ pacing thread

    def _pace(self) -> None:
        failure: BaseException | None = None
        try:
            for frame in self._session.frames():
                self._publish(frame)
                self._on_frame(frame)
        except Exception as error:  # the engine's end is told, whatever it was
            failure = error
        self._jpegs.put(None)
        self._on_end(failure)

    def _publish(self, frame: Frame) -> None:
        stamp_ns = self._stamps.take(
            frame.index,
            frame.pts,
            clock_ns=self._node.now_ns(),
            monotonic_ns=time.monotonic_ns(),
            simulated=is_simulated(self._node.get_clock()),
        )
        if self._stamps.set_by_ns:
            moved_s = self._stamps.set_by_ns / NANOSECONDS
            self._node.get_logger().warning(
                f"this machine's clock was set by {moved_s:+.1f} s: stamps follow it"
            )
        stamp = to_time(stamp_ns)
        self._audio.publish(
            audio_message(
                frame.audio,
                SAMPLE_RATE,
                stamp,
                encoding=self._encoding,
                first_sample=frame.index * SAMPLES_PER_FRAME,
                sequence=frame.index,
                utterance_id=frame.utterance_id,
                frame_id=FRAME_ID,
            )
        )
        if (
            len(frame.motion) and self._motion.get_subscription_count()
        ):  # spatial presets have no named motion
            motion = Motion(
                frame=frame.index, names=list(self._controls()), values=array("f", frame.motion.tobytes())
            )
            motion.header.stamp, motion.header.frame_id = stamp, FRAME_ID
            self._motion.publish(motion)
        if self._image.get_subscription_count():
            began = time.perf_counter()
            message = image_message(frame.rgb, stamp, FRAME_ID)
            filled = time.perf_counter()
            self._image.publish(message)
            self.fill_ms, self.publish_ms = (filled - began) * 1e3, (time.perf_counter() - filled) * 1e3
        if self._compressed.get_subscription_count():
            self._offer_jpeg(frame, stamp_ns)
        waiting = None if frame.speaking else self._session.waiting
        state = (frame.behaviour, frame.utterance_id, frame.speaking, waiting)
        if state != self._shown:
            self._publish_state(state, stamp_ns)
        self.frames += 1
        self._recent = [*self._recent[-(2 * FRAME_RATE) :], time.monotonic()]

    def _publish_state(self, state: tuple[str, str, bool, str | None], stamp_ns: int) -> None:
        """state: behaviour, utterance that sounds, does speech leave, utterance that waits to (None: none does)."""
        behaviour, utterance_id, speaking, waiting = state
        message = AvatarState()
        message.header.stamp = to_time(stamp_ns)
        message.header.frame_id = FRAME_ID
        message.behaviour = behaviour_number(behaviour)
        message.utterance_id = utterance_id
        message.robot_speaking = speaking
        message.speech_waits, message.waiting_id = waiting is not None, waiting or ""
        with self._state_lock:
            self._state.publish(message)
            if self._shown is None or self._shown[2] != speaking:
                self._speaking.publish(Bool(data=speaking))
            self._shown, self.speaking = state, speaking

    # ------------------------------------------------------------ JPEG thread

    def _offer_jpeg(self, frame: Frame, stamp_ns: int) -> None:
        while True:
            try:
                self._jpegs.put_nowait((frame, stamp_ns))
                return
            except queue.Full:
                try:
                    self._jpegs.get_nowait()
                    self.jpegs_dropped += 1
                except queue.Empty:
                    continue

    def _encode(self) -> None:
        # Guarded for each picture: one that fails must not be the last one that a page sees.
        publish = self._node.guard(self._publish_jpeg, "JPEG")
        while (item := self._jpegs.get()) is not None:
            publish(*item)

    def _publish_jpeg(self, frame: Any, stamp_ns: int) -> None:
        self._compressed.publish(compressed_message(self._jpeg_of(frame), to_time(stamp_ns), FRAME_ID))
