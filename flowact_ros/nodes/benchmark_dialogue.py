# SPDX-License-Identifier: Apache-2.0
"""A user who talks to every node at work, for `flowact bench dialogue`: one JSON object on stdin tells what to do,
lines of JSON on stdout tell how far it is, and at last what was seen.

echo '{"script": "", "turns": 8, …}' | python -m flowact_ros.nodes.benchmark_dialogue

Not a node of the robot: a program that starts the nodes as `flowact up` does, in a domain of its own. The user's
microphone does not hear the avatar, so he may break into what it says.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import asdict, replace
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from flowact_ros.dialogue.persona import load_persona
from flowact_ros.dialogue.script import load_script, sound_of
from flowact_ros.dialogue.speech_text import split_sentences
from flowact_ros.evaluation.load import cpu_seconds
from flowact_ros.launcher.bringup import Options, node_specs
from flowact_ros.launcher.resources import config_file
from flowact_ros.launcher.supervisor import NodeSpec, Supervisor, SupervisorError
from flowact_ros.launcher.talk import SCRIPT
from flowact_ros.nodes.bench_page import Page
from flowact_ros.nodes.benchmark_program import run_order, tell
from flowact_ros.nodes.dialogue_watch import DialogueWatch, TurnTimes
from flowact_ros.nodes.scripted_user import READY_S, play
from flowact_ros.nodes.user_voice import UserVoice

NAMESPACE = "bench"
START_S = 180.0  # for the nodes to come up
METRICS_S = 2.0  # the generator sends them once a second
NODES = ("avatar_generator", "kiosk_bridge", "instruction_planner", "speech_synthesizer", "speech_recognizer")


def specs(order: dict[str, Any]) -> list[NodeSpec]:
    """The nodes of a conversation, with a planner and a recogniser that listen while the avatar speaks."""
    options = Options(
        namespace=NAMESPACE,
        preset=order["preset"],
        device=order["device"],
        talk=True,
        listen=order["listen"],
        recognizer=order["recognizer"],
        planner=order["planner"],
        planner_model=order["model"],
        planner_url=order["url"],
        port=0,
        microphone=False,
        browser=False,
        log_level="warn",
    )
    extra: dict[str, dict[str, Any]] = {
        "instruction_planner": {"barge_in": True, "seed": order["seed"], "questions_per_minute": 60.0},
        "speech_recognizer": {"echo": "none"},
        "avatar_generator": {"seed": order["seed"]},
    }
    return [
        replace(spec, parameters={**spec.parameters, **extra.get(spec.name, {})})
        for spec in node_specs(options)
    ]


def measure(order: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
    """Starts the nodes, plays the script, returns what was seen. Raises SupervisorError, ValueError, OSError."""
    script = load_script(order["script"] or config_file("dialogue_bench.yaml")).first(order["turns"])
    turns = [(turn, sound_of(turn, script)) for turn in script.turns]
    persona = load_persona(config_file("persona.yaml"))
    rclpy.init(args=[])
    node = rclpy.create_node("flowact_benchmark", namespace=NAMESPACE)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    fillers = (part for text in (*persona.fallback, persona.too_many) for part in split_sentences(text))
    watch = DialogueWatch(node, frozenset(fillers))
    spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinning.start()
    voice = UserVoice(node, transcribes=order["listen"] == SCRIPT)
    log: list[str] = []
    supervisor = Supervisor(specs(order), environment=environ, log=log.append)
    page: Page | None = None
    try:
        supervisor.start()
        supervisor.wait_active(START_S)
        page = Page(str(supervisor.fact("kiosk_bridge", "url")))
        page.start()
        _wait_ready(watch)
        return {
            **_play(turns, voice, watch, supervisor),
            "page_error": page.error,
            "page_frames": page.frames,
        }
    finally:
        watch.stop()
        if page is not None:
            page.end()
        voice.close()
        supervisor.stop()
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
        spinning.join(2.0)


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def _wait_ready(watch: DialogueWatch) -> None:
    deadline = time.monotonic() + READY_S
    while not (watch.ready and watch.metrics):
        if time.monotonic() > deadline:
            reason = (
                watch.planner.get("last_error") or "no frames, or a language model that is still being loaded"
            )
            raise SupervisorError(f"the avatar was not ready within {READY_S:.0f} s: {reason}")
        watch.sleep(0.2)


def _play(turns: list[Any], voice: UserVoice, watch: DialogueWatch, supervisor: Supervisor) -> dict[str, Any]:
    def on_turn(number: int, times: TurnTimes) -> None:
        tell({"done": (number + 1) / len(turns)})
        if supervisor.failed() or any(supervisor.restarts(name) for name in NODES if supervisor.has(name)):
            watch.stop()

    pids = {name: supervisor.pid(name) or 0 for name in NODES if supervisor.has(name)}
    used = {name: cpu_seconds(pid) for name, pid in pids.items()}
    first, before, began = watch.arrivals, watch.metrics, time.monotonic()
    played = play(turns, voice, watch, on_turn)
    seconds = time.monotonic() - began
    if watch.stopped:
        raise SupervisorError("a node crashed during the benchmark: see `flowact up` for its words")
    used = {name: cpu_seconds(pid) - used[name] for name, pid in pids.items()}
    frames = watch.arrivals - first
    watch.sleep(METRICS_S)
    after = watch.metrics
    assert before is not None and after is not None
    return {
        "turns": [asdict(times) for times in played],
        "seconds": seconds,
        "frames": frames,
        "repeated": after.repeated_frames - before.repeated_frames,
        "dropped": after.dropped_frames - before.dropped_frames,
        "planner": watch.planner,
        "processes": {name: f"{100 * spent / seconds:.0f} % of a core" for name, spent in used.items()},
    }


def main() -> int:
    return run_order(measure)


if __name__ == "__main__":
    sys.exit(main())
