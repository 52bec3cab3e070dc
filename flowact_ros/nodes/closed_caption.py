# SPDX-License-Identifier: Apache-2.0
"""Captions as ROS4HRI has them (`hri_actions_msgs/ClosedCaption`), where that package is there.

Such a caption has no mark for "goes on": screens add each one to those before. So there is one a sentence, with the
whole of it: of the avatar when it begins to sound, of the user when it was understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowact_ros.nodes import topics

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode


def closed_caption_type() -> type | None:
    """The message type; None where hri_actions_msgs is not installed."""
    try:
        from hri_actions_msgs.msg import ClosedCaption
    except ImportError:
        return None
    return ClosedCaption


def ros4hri_locale(locale: str) -> str:
    """BCP 47 ("en-GB") as ROS4HRI writes it ("en_GB")."""
    return locale.replace("-", "_")


class ClosedCaptions:
    """Publishes `closed_captions`. Any thread."""

    def __init__(self, node: FlowactNode, kind: type) -> None:
        self._kind: Any = kind
        self._publisher = node.add_publisher(kind, topics.CLOSED_CAPTIONS)

    def said(self, text: str) -> None:
        """By the avatar."""
        self._publish(self._kind.SPEAKER_ID_SYSTEM, text, "")

    def heard(self, text: str, locale: str) -> None:
        """From the user."""
        self._publish(self._kind.SPEAKER_ID_UNKNOWN, text, locale)

    def _publish(self, speaker: str, text: str, locale: str) -> None:
        message = self._kind()
        message.speaker_id, message.text, message.locale = speaker, text, ros4hri_locale(locale)
        self._publisher.publish(message)
