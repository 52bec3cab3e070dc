# SPDX-License-Identifier: Apache-2.0
"""Every topic, service and action name with its quality of service: the one place for both.

Names are relative, so that a namespace (`avatar` by default, `robot1/avatar` for a second robot) moves them all.
Publishers are reliable: a best-effort publisher is silent to reliable subscribers (rqt, rosbag2), while a
reliable one serves both kinds.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

NAMESPACE = "avatar"

SPEECH = "speech"
SPEECH_TEXT = "speech/text"
MIC = "mic"
TRANSCRIPT = "transcript"
LIVE_SPEECH = "live_speech"
INSTRUCTION = "instruction"
IMAGE = "image_raw"
COMPRESSED = "image_raw/compressed"
AUDIO = "audio"
STATE = "state"
ROBOT_SPEAKING = "robot_speaking"
USER_SPEAKING = "user_speaking"
CAPTIONS = "captions"
CLOSED_CAPTIONS = "closed_captions"
LOOK_AT = "look_at"
MOTION = "motion"
CHUNKS = "chunks"
SETUP = "stream_setup"
METRICS = "metrics"
DIAGNOSTICS = "/diagnostics"  # a global convention: the aggregator listens there

SAY = "say"
SET_REFERENCE = "set_reference"
INTERRUPT = "interrupt"
RESET_MEMORY = "reset_memory"
SYNTHESIZE = "synthesize"


def _reliable(depth: int, *, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


AUDIO_QOS = _reliable(50)  # 2 s of 40 ms chunks
# A TTS sends a whole text at once: what listens keeps 40 s of it, however busy it is at that moment. A publisher
# that sends faster than it is read needs the same depth: its own history drops what was not yet acknowledged.
AUDIO_DEEP_QOS = _reliable(1000)
IMAGE_QOS = _reliable(5)
# A watcher (the page, a recorder) has its own depth: it may be late by a second and lose nothing.
IMAGE_WATCH_QOS = _reliable(30)
EVENT_QOS = _reliable(10)
RECORD_QOS = _reliable(50)
LATCHED_QOS = _reliable(1, latched=True)
# A late recorder gets the records since the last keyframe (one in 200 at least), and the pictures that they show.
CHUNKS_QOS = _reliable(256, latched=True)
SETUP_QOS = _reliable(8, latched=True)

QOS: dict[str, QoSProfile] = {
    SPEECH: AUDIO_QOS,
    SPEECH_TEXT: EVENT_QOS,
    MIC: AUDIO_QOS,
    TRANSCRIPT: EVENT_QOS,
    LIVE_SPEECH: EVENT_QOS,
    INSTRUCTION: EVENT_QOS,
    IMAGE: IMAGE_QOS,
    COMPRESSED: IMAGE_QOS,
    AUDIO: AUDIO_QOS,
    STATE: LATCHED_QOS,
    ROBOT_SPEAKING: LATCHED_QOS,
    USER_SPEAKING: LATCHED_QOS,
    CAPTIONS: EVENT_QOS,
    CLOSED_CAPTIONS: EVENT_QOS,
    LOOK_AT: EVENT_QOS,
    MOTION: RECORD_QOS,
    CHUNKS: CHUNKS_QOS,
    SETUP: SETUP_QOS,
    METRICS: EVENT_QOS,
    DIAGNOSTICS: EVENT_QOS,
}
