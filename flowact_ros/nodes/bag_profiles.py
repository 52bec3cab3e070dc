# SPDX-License-Identifier: Apache-2.0
"""Which topics `flowact record` writes."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool

from flowact_msgs.msg import (
    AudioChunk,
    AvatarState,
    ChunkRecord,
    Instruction,
    Motion,
    StreamMetrics,
    StreamSetup,
    Transcript,
)
from flowact_ros.nodes import topics

REPLAY, WATCH, ALL = "replay", "watch", "all"
PROFILES = (REPLAY, WATCH, ALL)

# What a replay is made of, and what went into the generator by topics.
_REPLAY = {
    topics.CHUNKS: ChunkRecord,
    topics.SETUP: StreamSetup,
    topics.SPEECH: AudioChunk,
    topics.INSTRUCTION: Instruction,
    topics.LOOK_AT: PointStamped,
}
# What somebody saw, heard and said, and how the stream was.
_WATCH = {
    topics.COMPRESSED: CompressedImage,
    topics.AUDIO: AudioChunk,
    topics.SPEECH_TEXT: Transcript,
    topics.TRANSCRIPT: Transcript,
    topics.CAPTIONS: Transcript,
    topics.STATE: AvatarState,
    topics.ROBOT_SPEAKING: Bool,
    topics.USER_SPEAKING: Bool,
    topics.INSTRUCTION: Instruction,
    topics.MOTION: Motion,
    topics.METRICS: StreamMetrics,
    topics.DIAGNOSTICS: DiagnosticArray,
}
_DEPTHS = {topics.AUDIO: 1000, topics.SPEECH: 1000, topics.MIC: 1000, topics.IMAGE: 30, topics.COMPRESSED: 30}

#: Topics of each profile, and their types. `all` has whatever else is published in the namespace as well.
TOPICS: dict[str, dict[str, type]] = {
    REPLAY: _REPLAY,
    WATCH: _WATCH,
    ALL: {**_REPLAY, **_WATCH, topics.MIC: AudioChunk},
}
#: What comes as long as an avatar is active, whatever it does.
SIGN_OF_LIFE = {REPLAY: topics.CHUNKS, WATCH: topics.AUDIO, ALL: topics.CHUNKS}


def recorder_qos(name: str) -> QoSProfile:
    """Of a subscription to one of our topics: deep enough for what is sent at once."""
    offered = topics.QOS[name]
    return QoSProfile(
        history=offered.history,
        depth=_DEPTHS.get(name, max(offered.depth, 50)),
        reliability=offered.reliability,
        durability=offered.durability,
    )
