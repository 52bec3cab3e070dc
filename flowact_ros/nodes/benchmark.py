# SPDX-License-Identifier: Apache-2.0
"""Runs all nodes, speaks to them as any ROS program would, and watches what comes out: the far side of `flowact bench`.

A program of its own: reads one JSON line (what to do) from stdin, writes JSON lines to stdout: `{"done": 0..1}` as it
goes on, and at the end either the figures or `{"error": …}`. Times are of this process, so transport is in them.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, StreamMetrics
from flowact_ros.evaluation.load import Driver, Item, cpu_seconds, resident_mb
from flowact_ros.launcher.bringup import Options, node_specs
from flowact_ros.launcher.resources import config_file
from flowact_ros.launcher.supervisor import Supervisor, SupervisorError
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.nodes import topics
from flowact_ros.nodes.bench_page import Page, Screen
from flowact_ros.nodes.benchmark_program import run_order, tell
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.timebase import SAMPLE_RATE

NAMESPACE = "bench"
START_S = 180.0  # for the nodes to come up
FIRST_S = 30.0  # for the first frame after that
IMAGE_PHASE_S = 6.0  # with a subscriber to raw images, at the end: what publishing them costs
CHUNK_S = 0.48


class Watch:
    """The rclpy client: counts frames by their sound (one message a frame), keeps the last figures."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.arrivals: list[float] = []
        self.metrics: StreamMetrics | None = None
        self.images: list[float] = []
        self.image_size = (0, 0)
        self.image_ms: dict[str, list[float]] = {"image_fill_ms": [], "image_publish_ms": []}
        self.driver: Driver | None = None
        self.first = threading.Event()
        node.create_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        node.create_subscription(StreamMetrics, topics.METRICS, self._on_metrics, topics.EVENT_QOS)
        node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, topics.EVENT_QOS)
        self.speech = node.create_publisher(AudioChunk, topics.SPEECH, topics.AUDIO_DEEP_QOS)
        self.stop_client = node.create_client(Trigger, topics.INTERRUPT)

    def _on_audio(self, message: AudioChunk) -> None:
        self.arrivals.append(time.monotonic())
        self.first.set()
        if self.driver is not None:
            self.driver.saw(message.utterance_id)

    def _on_metrics(self, message: StreamMetrics) -> None:
        self.metrics = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for value in status.values:
                if value.key in self.image_ms and self.images:
                    self.image_ms[value.key].append(float(value.value))

    def watch_images(self) -> None:
        self.node.create_subscription(Image, topics.IMAGE, self._on_image, topics.IMAGE_WATCH_QOS)

    def _on_image(self, message: Image) -> None:
        self.images.append(time.monotonic())
        self.image_size = (message.width, message.height)

    def push(self, pcm: np.ndarray, name: str, first: int, last: bool) -> None:
        stamp = to_time(self.node.get_clock().now().nanoseconds)
        self.speech.publish(
            audio_message(
                pcm,
                SAMPLE_RATE,
                stamp,
                first_sample=first,
                sequence=first // 960,
                utterance_id=name,
                last=last,
            )
        )

    def interrupt(self) -> None:
        self.stop_client.call_async(Trigger.Request())


def specs(order: dict[str, Any]) -> list[Any]:
    """All nodes but the microphone: what it hears would make the run depend on the room."""
    options = Options(
        namespace=NAMESPACE,
        preset=order["preset"],
        device=order["device"],
        character=order["character"],
        port=0,
        microphone=False,
        browser=False,
        log_level="warn",
    )
    extra: dict[str, Any] = {name: int(order[name]) for name in ("threads", "seed", "draw_every")}
    if order["weights"]:
        extra["weights_dir"] = order["weights"]
    return [
        replace(spec, parameters={**spec.parameters, **extra}) if spec.name == "avatar_generator" else spec
        for spec in node_specs(options)
    ]


def speech(path: str) -> np.ndarray:
    pcm, rate = read_audio(path or config_file("demo.wav"))
    return resample(pcm, rate, SAMPLE_RATE)


def measure(order: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    """Starts the nodes, plays the script, returns the figures. Raises SupervisorError, ValueError, OSError."""
    pcm = speech(order["wav"])
    rclpy.init(args=[])
    node = rclpy.create_node("flowact_benchmark", namespace=NAMESPACE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    watch = Watch(node)
    spinning = threading.Thread(target=spin, args=(executor,), daemon=True)
    spinning.start()
    log: list[str] = []
    supervisor = Supervisor(specs(order), environment=environ, log=log.append)
    page: Page | None = None
    screen: Screen | None = None
    try:
        began = time.monotonic()
        supervisor.start()
        supervisor.wait_active(START_S)
        if not watch.first.wait(FIRST_S):
            raise SupervisorError(
                f"no frame came within {FIRST_S:.0f} s; last words of the log: {' / '.join(log[-3:])}"
            )
        first_frame_s = watch.arrivals[0] - began
        url = str(supervisor.fact("kiosk_bridge", "url"))
        if order["page"] != "none":
            page = Page(url)
            page.start()
        if order["page"] == "browser":
            screen = Screen(url)
            screen.start()
        result = _play(order, watch, supervisor, page, pcm, first_frame_s)
        if screen is not None:
            result["extra"] |= screen.figures()
        return result
    finally:
        if screen is not None:
            screen.end()
        if page is not None:
            page.end()
        supervisor.stop()
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
        spinning.join(2.0)


def spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def _play(
    order: dict[str, Any],
    watch: Watch,
    supervisor: Supervisor,
    page: Page | None,
    pcm: np.ndarray,
    first_frame_s: float,
) -> dict[str, Any]:
    names = ["avatar_generator", "kiosk_bridge", "instruction_planner", "speech_synthesizer"]
    pids = {name: supervisor.pid(name) for name in names}
    items = [Item(**item) for item in order["items"]]

    def interrupt() -> None:
        if page is not None:
            page.cut()
        watch.interrupt()

    driver = Driver(items, pcm, watch.push, interrupt, lambda done: tell({"done": done}))
    watch.driver = driver
    used = {name: cpu_seconds(pid or 0) for name, pid in pids.items()}
    began, first = time.monotonic(), len(watch.arrivals)
    memory: list[tuple[float, float]] = []
    driver.start()
    while not driver.done:
        memory.append((time.monotonic(), resident_mb(pids["avatar_generator"] or 0)))
        time.sleep(1.0)
        if supervisor.failed() or any(supervisor.restarts(name) for name in names):
            driver.stop()
            raise SupervisorError("a node crashed during the benchmark: see `flowact up` for its words")
    wall = time.monotonic() - began
    used = {name: cpu_seconds(pid or 0) - used[name] for name, pid in pids.items()}
    if driver.error is not None:
        raise SupervisorError(f"the script failed: {driver.error}")
    figures, arrivals = watch.metrics, watch.arrivals[first:]
    if figures is None:
        raise SupervisorError("the generator published no metrics")
    watch.watch_images()
    time.sleep(IMAGE_PHASE_S)
    return {
        "times": vars(driver.times),
        "character": order["character"],
        "real_time_factor": [figures.real_time_factor, figures.real_time_factor_p95],
        "load": figures.load,
        "repeated": figures.repeated_frames,
        "dropped": figures.dropped_frames,
        "frames": figures.frames,
        "arrivals": arrivals,
        "memory": memory,
        "first_frame_s": first_frame_s,
        "step_ms": dict(zip(figures.stage_names, (float(v) for v in figures.stage_ms), strict=True)),
        "core_ms": 1e3 * used["avatar_generator"] / max(1e-9, wall / CHUNK_S),
        "size": list(watch.image_size),
        "extra": {
            "rewinds": figures.rewinds,
            "underruns": figures.underruns,
            "av_skew_s": round(float(figures.av_skew), 4),
            "processes": {name: f"{100 * seconds / wall:.0f} % of a core" for name, seconds in used.items()},
            "page": "none" if page is None else _page_record(page),
            **{key: round(float(np.median(v)), 3) for key, v in watch.image_ms.items() if v},
            "images_in_last_phase": len(watch.images),
            "kept": page.save(Path(order["keep"])) if page is not None and order["keep"] else [],
        },
    }


def _page_record(page: Page) -> dict[str, Any]:
    return {
        "client": "WebSocket",
        "frames": page.frames,
        "sounds": page.sounds,
        "missed": page.missed,
        "error": page.error,
    }


def main() -> int:
    return run_order(measure)


if __name__ == "__main__":
    sys.exit(main())
