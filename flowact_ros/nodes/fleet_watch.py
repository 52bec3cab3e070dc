# SPDX-License-Identifier: Apache-2.0
"""All avatars that can be heard from here, in whatever namespaces: found by their topics, while somebody looks.

An avatar is a namespace in which `metrics` is published. Its behaviour comes from `state`, its nodes from
`/diagnostics`, its face now and then from `image_raw/compressed`: one frame, so that pictures are not encoded all the
time for a list.
"""

from __future__ import annotations

import base64
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CompressedImage

from flowact_msgs.msg import AvatarState, StreamMetrics
from flowact_ros.kiosk.rendition import Rendition
from flowact_ros.media.errors import MediaError
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import behaviour_name

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode

SILENT_S = 3.5  # without metrics, which come every second
FORGET_S = 600.0  # an avatar that is gone is listed for so long, for whoever wonders where it is
PICTURE_S = 8.0  # between two frames of one avatar
PICTURE_PATIENCE_S = 4.0  # for a frame
MAX_AVATARS = 64
OK, WARN, ERROR, SILENT = "ok", "warn", "error", "silent"
_THUMBNAIL = Rendition(quality=70, shrink=2)
_METRICS = f"/{topics.METRICS}"
_METRICS_TYPE = "flowact_msgs/msg/StreamMetrics"
# What is shown of the metrics; a value that was not measured yet is null.
_FIGURES = (
    "fps", "real_time_factor", "real_time_factor_p95", "load", "ttff", "step_ms", "ring_fill", "frames", "underruns",
    "repeated_frames", "dropped_frames", "rewinds", "av_skew", "barge_in_stop", "motion_alarms_raised", "memory_resets",
)  # fmt: skip


@dataclass
class _Avatar:
    """What is known of one namespace; times are monotonic [s]."""

    namespace: str
    seen_s: float
    subscriptions: list[Any] = field(default_factory=list)
    heard_s: float = float("-inf")  # its last metrics
    metrics: StreamMetrics | None = None
    behaviour: str = ""
    speaking: bool = False
    nodes: dict[str, tuple[DiagnosticStatus, float]] = field(default_factory=dict)
    picture: str = ""  # JPEG in base64
    picture_s: float = float("-inf")
    watcher: Any = None  # the subscription that waits for a frame
    watched_s: float = 0.0


class FleetWatch:
    """From activation to deactivation, in the executor."""

    def __init__(self, node: FlowactNode) -> None:
        self._node = node
        self._avatars: dict[str, _Avatar] = {}
        self._diagnostics: Any = None
        node.add_entity(self._rest)

    def tick(self, wanted: bool) -> list[dict[str, Any]] | None:
        """To be called once a second. What is known of every avatar, by namespace; None while nobody looks."""
        if not wanted:
            self._rest()
            return None
        if self._diagnostics is None:
            handler = self._node.guard(self._on_diagnostics, "diagnostics of the fleet")
            self._diagnostics = self._node.create_subscription(
                DiagnosticArray, topics.DIAGNOSTICS, handler, topics.QOS[topics.DIAGNOSTICS]
            )
        now = time.monotonic()
        for name, types in self._node.get_topic_names_and_types():
            if name.endswith(_METRICS) and _METRICS_TYPE in types:
                self._found(name.removesuffix(_METRICS) or "/", now)
        for avatar in list(self._avatars.values()):
            if now - avatar.seen_s > FORGET_S:
                self._leave(avatar)
                del self._avatars[avatar.namespace]
            else:
                self._peek(avatar, now)
        return [self._entry(avatar, now) for _, avatar in sorted(self._avatars.items())]

    def _found(self, namespace: str, now: float) -> None:
        avatar = self._avatars.get(namespace)
        if avatar is None:
            if len(self._avatars) >= MAX_AVATARS:
                self._node.report(f"more than {MAX_AVATARS} avatars are heard; the fleet's page shows no more")
                return
            avatar = self._avatars[namespace] = _Avatar(namespace, now)
        if self._node.count_publishers(_in(namespace, topics.METRICS)):
            avatar.seen_s = now
        if not avatar.subscriptions:
            self._listen(avatar, StreamMetrics, topics.METRICS, self._on_metrics)
            self._listen(avatar, AvatarState, topics.STATE, self._on_state)

    def _listen(self, avatar: _Avatar, kind: type, name: str, callback: Any) -> None:
        handler = self._node.guard(lambda message: callback(avatar, message), f"'{name}' of {avatar.namespace}")
        avatar.subscriptions.append(
            self._node.create_subscription(kind, _in(avatar.namespace, name), handler, topics.QOS[name])
        )

    def _peek(self, avatar: _Avatar, now: float) -> None:
        """One frame, now and then."""
        if avatar.watcher is not None and now - avatar.watched_s > PICTURE_PATIENCE_S:
            self._look_away(avatar)
        if avatar.watcher is None and now - max(avatar.picture_s, avatar.watched_s) > PICTURE_S:
            avatar.watched_s = now
            handler = self._node.guard(
                lambda message: self._on_picture(avatar, message), f"a frame of {avatar.namespace}"
            )
            name = _in(avatar.namespace, topics.COMPRESSED)
            avatar.watcher = self._node.create_subscription(CompressedImage, name, handler, topics.IMAGE_QOS)

    def _look_away(self, avatar: _Avatar) -> None:
        if avatar.watcher is not None:
            self._node.destroy_subscription(avatar.watcher)
            avatar.watcher = None

    def _leave(self, avatar: _Avatar) -> None:
        self._look_away(avatar)
        for subscription in avatar.subscriptions:
            self._node.destroy_subscription(subscription)
        avatar.subscriptions = []

    def _rest(self) -> None:
        """Nobody looks: nothing is listened to."""
        for avatar in self._avatars.values():
            self._leave(avatar)
        self._avatars.clear()
        if self._diagnostics is not None:
            self._node.destroy_subscription(self._diagnostics)
            self._diagnostics = None

    # ------------------------------------------------------------ what is heard

    def _on_metrics(self, avatar: _Avatar, message: StreamMetrics) -> None:
        avatar.metrics = message
        if message.fps > 0 or not math.isfinite(message.fps):  # a bridge stands in for a generator that is gone, with 0
            avatar.heard_s = time.monotonic()

    def _on_state(self, avatar: _Avatar, message: AvatarState) -> None:
        avatar.behaviour, avatar.speaking = behaviour_name(message.behaviour), message.robot_speaking

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now = time.monotonic()
        for status in message.status:
            namespace, _, name = f"/{status.name}".rpartition("/")
            avatar = self._avatars.get(namespace or "/")
            if status.hardware_id == "flowact" and avatar is not None:
                avatar.nodes[name] = (status, now)

    def _on_picture(self, avatar: _Avatar, message: CompressedImage) -> None:
        if avatar.watcher is None:
            return  # another frame of the same look
        self._look_away(avatar)
        avatar.picture_s = time.monotonic()
        try:
            avatar.picture = base64.b64encode(_THUMBNAIL.of(bytes(message.data))).decode()
        except MediaError as error:
            self._node.report(error, f"a frame of {avatar.namespace}")

    # ------------------------------------------------------------ what is told

    def _entry(self, avatar: _Avatar, now: float) -> dict[str, Any]:
        nodes = [
            {
                "name": name,
                "level": int.from_bytes(status.level, "little"),
                "message": status.message,
                "age_s": round(now - heard_s, 1),
            }
            for name, (status, heard_s) in sorted(avatar.nodes.items())
        ]
        pages = [value.value for status, _ in avatar.nodes.values() for value in status.values if value.key == "page"]
        silent_s = now - avatar.heard_s
        alarms = list(avatar.metrics.motion_alarms) if avatar.metrics is not None else []
        return {
            "namespace": avatar.namespace,
            "status": _status(silent_s, nodes, alarms, avatar.metrics),
            "silent_s": round(silent_s, 1) if math.isfinite(silent_s) else None,
            "behaviour": avatar.behaviour,
            "speaking": avatar.speaking,
            "metrics": _figures(avatar.metrics),
            "alarms": alarms,
            "nodes": nodes,
            "page": pages[0] if pages else "",
            "picture": avatar.picture,
        }


def _in(namespace: str, name: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"


def _figures(metrics: StreamMetrics | None) -> dict[str, float | int | None]:
    if metrics is None:
        return {}
    values = {name: getattr(metrics, name) for name in _FIGURES}
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}


def _status(
    silent_s: float, nodes: list[dict[str, Any]], alarms: list[str], metrics: StreamMetrics | None
) -> str:
    if silent_s > SILENT_S:
        return SILENT
    fresh = [node["level"] for node in nodes if node["age_s"] <= SILENT_S]
    if any(level >= 2 for level in fresh) or len(fresh) < len(nodes):
        return ERROR
    slow = metrics is not None and metrics.load > 1.0
    return WARN if any(fresh) or alarms or slow else OK
