# SPDX-License-Identifier: Apache-2.0
"""Records a running avatar into a rosbag2 recording; what `flowact record` does.

Messages are written as they come over the wire. The executor only hands them over; a thread of its own writes.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from flowact_ros.launcher.shared_memory import sweep
from flowact_ros.media.bag import BagError
from flowact_ros.media.bag_writer import RESERVE, BagFull, BagWriter
from flowact_ros.nodes import topics
from flowact_ros.nodes.bag_profiles import ALL, REPLAY, SIGN_OF_LIFE, TOPICS, recorder_qos
from flowact_ros.nodes.bag_types import describe
from flowact_ros.nodes.process import close_participant

WAITING = 2000  # messages between the executor and the disk
WAITING_BYTES = 256 << 20  # and so many bytes
LOOK_S = 1.0  # how often new topics are looked for
TELL_S = 0.5


@dataclass(frozen=True)
class RecordOptions:
    """out: folder to make; seconds: from the first message on, 0: until stopped; most: [bytes], None: what the disk has
    but for `reserve`; timeout_s: how long nothing may come before it is given up."""

    out: str
    seconds: float = 0.0
    profile: str = REPLAY
    namespace: str = topics.NAMESPACE
    most: int | None = None
    reserve: int = RESERVE
    timeout_s: float = 30.0


class BagRecorder:
    """Subscriptions of one node into one writer."""

    def __init__(self, node: Any, writer: BagWriter, profile: str) -> None:
        self._node, self._writer, self._profile = node, writer, profile
        self._items: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(WAITING)
        self._bytes = 0  # in the queue
        self._lock = threading.Lock()
        self._subscribed: set[str] = set()
        self.counts: dict[str, int] = {}
        self.lost = 0
        self.problems: list[str] = []
        self.ended = threading.Event()  # no more is written
        self.end_reason = ""
        for name, kind in TOPICS[profile].items():
            self._subscribe(node.resolve_topic_name(name), kind, recorder_qos(name))
        self._sign = node.resolve_topic_name(SIGN_OF_LIFE[profile])
        self._thread = threading.Thread(target=self._write, name="bag-writer", daemon=True)
        self._thread.start()

    @property
    def began(self) -> bool:
        """Something came that only an active avatar sends."""
        return self.counts.get(self._sign, 0) > 0

    def look(self) -> None:
        """Subscribes to what is new in the namespace, where the profile is `all`."""
        if self._profile != ALL:
            return
        prefix = self._node.get_namespace().rstrip("/") + "/"
        for topic, kinds in self._node.get_topic_names_and_types():
            if topic in self._subscribed or not topic.startswith(prefix) or "/msg/" not in kinds[0]:
                continue
            offered = [info.qos_profile for info in self._node.get_publishers_info_by_topic(topic)]
            if not offered:
                continue
            kind = _message_class(kinds[0])
            if kind is None:
                self._problem(topic, f"{topic} is not recorded: {kinds[0]} is not installed here")
                continue
            self._subscribe(topic, kind, _fitting(offered))

    def finish(self) -> None:
        """Writes what waits and ends the recording. Raises BagError."""
        while not self.ended.is_set():  # the writer may end by itself, and leave the queue full
            try:
                self._items.put(None, timeout=0.5)
                break
            except queue.Full:
                continue
        self._thread.join()
        self._writer.close()

    def _subscribe(self, topic: str, kind: type, qos: QoSProfile) -> None:
        self._subscribed.add(topic)
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        try:
            definition, digest = describe(name)
        except BagError as error:
            self._problem(topic, f"{topic} is not recorded: {error}")
            return
        self._writer.add_topic(
            topic, name, definition, digest, depth=qos.depth,
            latched=qos.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            reliable=qos.reliability == ReliabilityPolicy.RELIABLE,
        )  # fmt: skip
        self._node.create_subscription(
            kind, topic, lambda data, topic=topic: self._take(topic, data), qos, raw=True
        )

    def _problem(self, topic: str, text: str) -> None:
        self._subscribed.add(topic)
        self.problems.append(text)

    def _take(self, topic: str, data: bytes) -> None:
        """Executor: only hands over."""
        with self._lock:
            fits = self._bytes + len(data) <= WAITING_BYTES
            self._bytes += len(data) if fits else 0
        try:
            if not fits:
                raise queue.Full
            self._items.put_nowait((topic, self._node.get_clock().now().nanoseconds, data))
        except queue.Full:
            self.lost += 1

    def _write(self) -> None:
        try:
            while (item := self._items.get()) is not None:
                topic, time_ns, data = item
                with self._lock:
                    self._bytes -= len(data)
                self._writer.write(topic, time_ns, data)
                self.counts[topic] = self.counts.get(topic, 0) + 1
        except BagFull as full:
            self.end_reason = str(full)
        except (OSError, ValueError, RuntimeError) as error:
            self.end_reason = f"the recording broke off: {' '.join(str(error).split())}"
        self.ended.set()


def _fitting(offered: list[QoSProfile]) -> QoSProfile:
    """What every publisher of a topic can serve."""
    reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=100,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _message_class(kind: str) -> type | None:
    package, _, name = kind.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def record(options: RecordOptions) -> int:
    """Records until its seconds are over, the room is used up, or SIGINT or SIGTERM. Returns the exit status.

    Raises BagError for a place that cannot be written.
    """
    writer = BagWriter(options.out, most=options.most, reserve=options.reserve)
    stop = threading.Event()
    sweep()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    node = rclpy.create_node(f"flowact_record_{os.getpid()}", namespace=options.namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        recorder = BagRecorder(node, writer, options.profile)
        seconds, silent = _spin(recorder, writer, executor, options, stop)
        if not recorder.counts:
            writer.discard()
            print(silent or "error: nothing was recorded: no message came", file=sys.stderr)
            return 1
        recorder.finish()
        return _told(recorder, writer, seconds, silent)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        close_participant()
        for number, handler in before.items():
            signal.signal(number, handler)


def _spin(
    recorder: BagRecorder, writer: BagWriter, executor: SingleThreadedExecutor, options: RecordOptions,
    stop: threading.Event,
) -> tuple[float, str]:  # fmt: skip
    """(seconds that were recorded, what is wrong if no avatar was there)."""
    from rich.console import Console

    console = Console(stderr=True)
    started, began = time.monotonic(), 0.0
    looked = told = 0.0
    with console.status("waits for an avatar") as status:
        while not stop.is_set() and not recorder.ended.is_set():
            executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
            began = began or (now if recorder.began else 0.0)
            if began and options.seconds and now - began >= options.seconds:
                break
            if not began and now - started >= options.timeout_s:
                return 0.0, (
                    f"error: nothing came on {recorder._sign} within {options.timeout_s:g} s: is an avatar running "
                    f"there (flowact up, flowact demo), and is ROS_DOMAIN_ID the same?"
                )
            if now - looked >= LOOK_S:
                recorder.look()
                looked = now
            if now - told >= TELL_S and began:
                of = f" of {options.seconds:g}" if options.seconds else ""
                status.update(
                    f"recording {now - began:.0f}{of} s, {writer.messages} messages, {writer.size / 1e6:.1f} MB"
                )
                told = now
    return time.monotonic() - began if began else 0.0, ""


def _told(recorder: BagRecorder, writer: BagWriter, seconds: float, silent: str) -> int:
    for problem in recorder.problems:
        print(f"warning: {problem}", file=sys.stderr)
    if recorder.lost:
        print(f"warning: {recorder.lost} messages are missing: the disk did not keep up", file=sys.stderr)
    print(f"{writer.path}: {seconds:.1f} s, {writer.messages} messages, {writer.size / 1e6:.1f} MB")
    if recorder.end_reason or silent:
        print(recorder.end_reason or silent, file=sys.stderr)
    return 1 if silent or recorder.lost or recorder.end_reason.startswith("the recording broke off") else 0
