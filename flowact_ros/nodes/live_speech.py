# SPDX-License-Identifier: Apache-2.0
"""Transcripts as ROS4HRI has them (`hri_msgs/LiveSpeech`), where that package is there."""

from __future__ import annotations

from typing import Any

from flowact_msgs.msg import Transcript
from flowact_ros.nodes.closed_caption import ros4hri_locale


def live_speech_type() -> type | None:
    """The message type; None where hri_msgs is not installed."""
    try:
        from hri_msgs.msg import LiveSpeech
    except ImportError:
        return None
    return LiveSpeech


def live_speech(kind: type, transcript: Transcript) -> Any:
    """A partial text is `incremental`, the last one of an utterance is `final`."""
    message = kind()
    message.header = transcript.header
    if transcript.final:
        message.final = transcript.text
    else:
        message.incremental = transcript.text
    message.confidence = float(max(transcript.confidence, 0.0))
    if hasattr(message, "locale"):
        message.locale = ros4hri_locale(transcript.locale)
    else:  # releases before had BCP 47 as it is
        message.language = transcript.locale
    return message
