# SPDX-License-Identifier: Apache-2.0
"""Where the frames of a replay go: a video, a list of hashes, topics."""

from __future__ import annotations

import hashlib
import time
from array import array
from pathlib import Path
from typing import Protocol

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from flowact_msgs.msg import AudioChunk, Motion
from flowact_ros.engine.interfaces import Frame
from flowact_ros.launcher.shared_memory import sweep
from flowact_ros.media.mp4 import Mp4Writer
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import NANOSECONDS, audio_message, image_message, to_time
from flowact_ros.nodes.frame_publisher import FRAME_ID
from flowact_ros.nodes.process import close_participant
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

LEAD_S = 0.08  # a frame leaves so long before its stamp, as live
DISCOVERY_S = 5.0  # so long the first frame waits for a subscriber of any topic
OTHERS_S = 1.0  # and so long, once there is one, for those of the other topics
MATCHING_S = 0.3  # the subscribers know of the publisher a little later than it of them


class Output(Protocol):
    def add(self, frame: Frame) -> None: ...

    def close(self, whole: bool) -> None:
        """whole: all frames came; else what was written is given up."""
        ...


class Video:
    """H.264 and AAC."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        self._writer: Mp4Writer | None = None

    def add(self, frame: Frame) -> None:
        rgb = _even(frame.rgb)
        if self._writer is None:
            self._writer = Mp4Writer(self._path, rgb.shape[1], rgb.shape[0])
        self._writer.write_frame(rgb)
        self._writer.write_audio(frame.audio)

    def close(self, whole: bool) -> None:
        if self._writer is not None:
            (self._writer.close if whole else self._writer.discard)()


class Hashes:
    """A line a frame: its index, and the BLAKE2b hashes (16 hex digits) of its RGB bytes and of its float32 samples."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).expanduser().open("w", encoding="ascii")

    def add(self, frame: Frame) -> None:
        self._file.write(f"{frame.index} {_hash(frame.rgb)} {_hash(frame.audio)}\n")

    def close(self, whole: bool) -> None:
        self._file.close()


class Topics:
    """`image_raw`, `audio` and `motion` in real time, stamped from now on, for a screen or another recording.

    The first frame waits for subscribers: what is sent before they are discovered reaches nobody.
    """

    def __init__(self, namespace: str, controls: tuple[str, ...]) -> None:
        sweep()
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("flowact_replay", namespace=namespace)
        self._image = self._node.create_publisher(Image, topics.IMAGE, topics.QOS[topics.IMAGE])
        self._audio = self._node.create_publisher(AudioChunk, topics.AUDIO, topics.QOS[topics.AUDIO])
        self._motion = self._node.create_publisher(Motion, topics.MOTION, topics.QOS[topics.MOTION])
        self._controls = list(controls)
        self._began: tuple[float, int, int] | None = None  # monotonic [s], [ns] of the clock, index of the first frame

    def add(self, frame: Frame) -> None:
        if self._began is None:
            self._wait_for_subscribers()
            ahead = round(LEAD_S * NANOSECONDS)
            self._began = time.monotonic(), self._node.get_clock().now().nanoseconds + ahead, frame.index
        began, began_ns, first = self._began
        place = frame.index - first
        time.sleep(max(0.0, began + place / FRAME_RATE - time.monotonic()))
        stamp = to_time(began_ns + place * NANOSECONDS // FRAME_RATE)
        sound = audio_message(
            frame.audio, SAMPLE_RATE, stamp, first_sample=frame.index * SAMPLES_PER_FRAME, sequence=frame.index,
            utterance_id=frame.utterance_id, frame_id=FRAME_ID,
        )  # fmt: skip
        motion = Motion(frame=frame.index, names=self._controls, values=array("f", frame.motion.tobytes()))
        motion.header.stamp, motion.header.frame_id = stamp, FRAME_ID
        self._audio.publish(sound)
        self._motion.publish(motion)
        self._image.publish(image_message(frame.rgb, stamp, FRAME_ID))

    def _wait_for_subscribers(self) -> None:
        publishers = (self._image, self._audio, self._motion)
        deadline, before = time.monotonic() + DISCOVERY_S, 0
        while (found := sum(p.get_subscription_count() > 0 for p in publishers)) < len(publishers):
            if found and not before:
                deadline = min(deadline, time.monotonic() + OTHERS_S)
            if time.monotonic() >= deadline:
                break
            before = found
            time.sleep(0.02)
        if found:
            time.sleep(MATCHING_S)

    def close(self, whole: bool) -> None:
        self._node.destroy_node()
        close_participant()


def _even(rgb: np.ndarray) -> np.ndarray:
    """Without the last row or column of an odd side, which H.264 cannot have."""
    height, width = rgb.shape[:2]
    return np.ascontiguousarray(rgb[: height - height % 2, : width - width % 2])


def _hash(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=8).hexdigest()
