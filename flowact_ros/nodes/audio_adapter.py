# SPDX-License-Identifier: Apache-2.0
"""Sound from and for packages with other messages: what they send becomes `speech` or `mic`, `audio` becomes theirs.

python -m flowact_ros.nodes.audio_adapter --ros-args -r __ns:=/avatar -p message:=audio_common_msgs/AudioStamped \\
    -p topic:=/audio/in -p role:=mic
python -m flowact_ros.nodes.audio_adapter --ros-args -r __ns:=/avatar -r __node:=audio_for_foxglove \\
    -p message:=foxglove_msgs/RawAudio -p role:=audio -p topic:=audio/raw

The translation is in `audio_formats.py`; a robot that needs two of them starts two of these nodes.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from flowact_msgs.msg import AudioChunk
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_formats import FORMATS, AudioFormat, Form
from flowact_ros.nodes.base import FlowactNode, run
from flowact_ros.nodes.convert import to_time
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.vocabulary import AUDIO_ENCODINGS, S16LE

ROLES = (topics.MIC, topics.SPEECH, topics.AUDIO)
# A subscriber that asks for best effort hears both kinds of publishers, and some packages send sound so.
HEARD_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
)  # fmt: skip


class Board(Protocol):
    """What `Inward` and `Outward` need of a node."""

    def add_publisher(self, kind: type, name: str, qos: Any = None) -> Any: ...

    def add_subscription(self, kind: type, name: str, callback: Any, qos: Any = None) -> Any: ...

    def now_ns(self) -> int: ...


class Inward:
    """Their sound, numbered anew, on `speech` or `mic`."""

    def __init__(self, node: Board, format_: AudioFormat, theirs: str, info: str, ours: str) -> None:
        self._node, self._format = node, format_
        self.chunks = self._samples = 0
        self._publisher = node.add_publisher(AudioChunk, ours, topics.AUDIO_DEEP_QOS)
        if format_.info_kind is not None:
            node.add_subscription(format_.info_kind, info, format_.describe, topics.LATCHED_QOS)
        node.add_subscription(format_.kind, theirs, self._hear, HEARD_QOS)

    def _hear(self, message: Any) -> None:
        chunk = self._format.read(message)
        if not (chunk.header.stamp.sec or chunk.header.stamp.nanosec):
            chunk.header.stamp = to_time(self._node.now_ns())
        chunk.sequence, chunk.first_sample = self.chunks & 0xFFFFFFFF, self._samples
        width = (2 if chunk.encoding == S16LE else 4) * max(1, chunk.channels)
        self.chunks, self._samples = self.chunks + 1, self._samples + len(chunk.data) // width
        self._publisher.publish(chunk)


class Outward:
    """What the avatar says, in their message."""

    def __init__(self, node: Board, format_: AudioFormat, theirs: str, info: str) -> None:
        self._format = format_
        self.chunks = 0
        self._publisher = node.add_publisher(format_.kind, theirs, topics.AUDIO_QOS)
        self._info = None
        if format_.info_kind is not None:
            self._info = node.add_publisher(format_.info_kind, info, topics.LATCHED_QOS)
        node.add_subscription(AudioChunk, topics.AUDIO, self._hear, topics.AUDIO_DEEP_QOS)

    def _hear(self, chunk: AudioChunk) -> None:
        if self._info is not None and not self.chunks:
            self._info.publish(self._format.info(chunk))
        self._publisher.publish(self._format.write(chunk))
        self.chunks += 1


class AudioAdapter(FlowactNode):
    """Thin: a subscription, a translation, a publisher."""

    PARAMETERS = (
        Param("message", FORMATS[0], "Their message; its package must be installed", choices=FORMATS),
        Param("role", topics.MIC, "Their sound is what the robot hears (mic) or says (speech); or audio: what the "
              "avatar says becomes theirs", choices=ROLES),
        Param("topic", "audio_stamped", "Their topic"),
        Param("info_topic", "audio_info", "Where an AudioInfo describes their AudioData"),
        Param("sample_rate", 16_000, "[Hz] of AudioData before an AudioInfo came", range=(8000, 192_000)),
        Param("channels", 1, "Of AudioData before an AudioInfo came", range=(1, 8)),
        Param("encoding", S16LE, "Of AudioData before an AudioInfo came", choices=AUDIO_ENCODINGS),
    )  # fmt: skip

    def __init__(self, **options: object) -> None:
        super().__init__("audio_adapter", **options)
        self._way: Inward | Outward | None = None

    def load(self) -> None:
        params = self.params
        form = Form(params["sample_rate"], params["channels"], params["encoding"])
        self._format = AudioFormat(params["message"], form)
        if self.resolve_topic_name(params["topic"]) == self.resolve_topic_name(params["role"]):
            raise ParameterError(f"parameter topic: {params['topic']!r} is our own topic; give the name of theirs")

    def begin(self) -> None:
        theirs, info, role = self.params["topic"], self.params["info_topic"], self.params["role"]
        if role == topics.AUDIO:
            self._way = Outward(self, self._format, theirs, info)
        else:
            self._way = Inward(self, self._format, theirs, info, role)

    def end(self) -> None:
        self._way = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        if self._way is None:
            return 0, "", {}
        return 0, f"{self._way.chunks} chunks", {"chunks": self._way.chunks, "message": self._format.name}


def main(args: list[str] | None = None) -> int:
    return run(AudioAdapter, args)


if __name__ == "__main__":
    sys.exit(main())
