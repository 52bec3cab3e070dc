# SPDX-License-Identifier: Apache-2.0
"""The soak test's plan, its figures from what was seen, and its verdict; faults of a link."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest

from flowact_ros.evaluation import soak, soak_plan, soak_report
from flowact_ros.evaluation.soak_plan import BY_NAME, CALM, KINDS, plan
from flowact_ros.evaluation.soak_report import longest_gap, lost_frames
from flowact_ros.launcher import supervisor

FRAMES = [(n / 25, n) for n in range(100)]


def test_a_plan_has_every_kind_and_is_of_its_seed() -> None:
    faults = plan(300, 1)
    assert {fault.kind for fault in faults} == set(BY_NAME)
    assert faults == plan(300, 1) and [f.kind for f in faults] != [f.kind for f in plan(300, 2)]
    assert plan(30, 4)[0].kind == KINDS[0].name == "kill generator"
    starts = [fault.at_s for fault in faults]
    assert starts == sorted(starts) and starts[-1] < 300


def test_a_long_run_leaves_processes_alone_for_most_of_it() -> None:
    faults = plan(3600, 0)
    assert {fault.kind for fault in faults[: len(KINDS)]} == set(BY_NAME)
    late = [BY_NAME[f.kind] for f in faults[len(KINDS) :] if f.at_s > CALM * 3600]
    assert len(late) > 20 and not any(kind.restarts for kind in late)


def test_only_some_kinds_and_an_end() -> None:
    assert {fault.kind for fault in plan(120, 0, ["cut page"])} == {"cut page"}
    assert len(plan(3600, 0, ["kill page"])) < 3600 * CALM  # it comes to an end


def test_a_hang_is_what_the_supervisor_takes_for_one() -> None:
    assert soak_plan.HANG_S == supervisor.HUNG_S
    assert supervisor.SILENT_S > soak_plan.PAUSE_S


def test_lost_frames() -> None:
    assert lost_frames(FRAMES, 0, 3) == 0
    missing = [frame for frame in FRAMES if frame[1] not in (10, 11, 30)]
    assert lost_frames(missing, 0, 3.9) == 3 and lost_frames(missing, 0.8, 3.9) == 1
    # A new stream after 2 s without one: 49 pictures were not there.
    again = [*FRAMES, *((FRAMES[-1][0] + 2 + n / 25, n) for n in range(100))]
    assert lost_frames(again, 0, 9) == 49
    assert longest_gap(again, 0, 9) == pytest.approx(2.0)
    assert lost_frames(FRAMES, 3.0, 5.0) == pytest.approx(26, abs=1)  # none came any more
    assert longest_gap(FRAMES, 3.0, 5.0) == pytest.approx(1.04)
    assert lost_frames(again, 4.5, 9, calm=True) == lost_frames(again, 0, 4.5, calm=True) == 0  # begins before a fault
    # Late ones that all come are not lost.
    assert lost_frames([(t if n < 20 else max(t, 2.0), n) for t, n in FRAMES], 0, 3.9) == 0


def seen(**changed: Any) -> dict[str, Any]:
    """Of a run of four minutes in which everything was well."""
    frames = [(n / 25, n) for n in range(240 * 25)]
    fault = {
        "kind": "kill page", "at": 20.0, "until": 23.0, "recovered_s": 3.0, "restarted": [], "lines": 0, "skew_s": 0.0,
    }  # fmt: skip
    memory = {"avatar_generator": [(float(t), 7, 500.0) for t in range(0, 240, 2)]}
    return {
        "seconds": 240.0, "frames": frames, "faults": [fault], "memory": memory, "repeated": 2, "underruns": 0,
        "skew_s": 0.01, "sentences": 70, "sentences_heard": 70, "log": "/tmp/log", **changed,
    }  # fmt: skip


ORDER = {"preset": "avatar_cpu", "seed": 3, "load_before": 0.1, "faults": [{"at_s": 20.0, "kind": "kill page"}]}


def missed(**changed: Any) -> list[str]:
    return [figure.key for figure in soak_report.figures(ORDER, seen(**changed)).figures if figure.met is False]


def fault(**changed: Any) -> list[dict[str, Any]]:
    return [{**seen()["faults"][0], **changed}]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"faults": fault(recovered_s=5.2)}, "faults.kill_page.recovery_s"),
        ({"faults": fault(recovered_s=None)}, "faults.kill_page.recovery_s"),
        ({"faults": fault(restarted=["avatar_generator"])}, "faults.kill_page.others_restarted"),
        ({"faults": fault(skew_s=0.05)}, "faults.kill_page.skew_ms"),
        ({"faults": fault(kind="flood speech", lines=16)}, "faults.flood_speech.log_lines"),
        ({"faults": fault(kind="flood speech", lines=0)}, "faults.flood_speech.log_lines"),
        ({"skew_s": 0.05}, "skew_ms"),
        ({"frames": [(n / 25, n) for n in range(6000) if n != 5000]}, "frames_lost"),
        ({"frames": [(n / 25, n) for n in range(6000) if n != 510]}, "faults.kill_page.frames_lost"),
    ],
)
def test_a_target_that_is_missed_is_found(changed: dict[str, Any], key: str) -> None:
    assert missed() == []
    assert missed(**changed) == [key]


def test_memory_is_judged_only_of_a_process_that_lived_for_long() -> None:
    grown = [(float(t), 7, 500 + t / 60) for t in range(0, 3000, 10)]  # 60 MB an hour
    assert missed(memory={"kiosk_bridge": grown}) == ["memory.kiosk_bridge.slope_mb_per_hour"]
    assert missed(memory={"kiosk_bridge": grown[:60]}) == []
    restarted = [(t, 7 + int(t > 1000) + int(t > 2000), mb) for t, _, mb in grown]
    assert missed(memory={"kiosk_bridge": restarted}) == []


@pytest.mark.parametrize("slow", [False, True])
def test_the_exit_status_and_the_json(
    slow: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = seen(faults=fault(recovered_s=9.0 if slow else 2.0))
    monkeypatch.setattr(soak, "run_program", lambda program, order: answer)
    assert soak.main(["--minutes", "4", "--chaos", "--json"]) == int(slow)
    record = json.loads(capsys.readouterr().out)["faults"]["kill_page"]["recovery_s"]
    assert record["met"] is not slow and record["target"] == "≤ 5" and record["n"] == 1
    assert soak.main(["--minutes", "4", "--chaos"]) == int(slow)
    table = capsys.readouterr().out
    assert "kill page" in table and ("NOT MET" in table) == slow


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--only", "cut page"], ["--threads", "0"]])
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flowact soak: --")


def test_the_nodes_are_started_as_ordered() -> None:
    """In a process of its own: what starts them knows ROS, this room does not."""
    pytest.importorskip("rclpy")
    args = soak._parser().parse_args(["--minutes", "1", "--draw-every", "2", "--seed", "5", "--character", "sofia"])
    program = """
import json, sys
from flowact_ros.nodes.soak import _specs
nodes = {spec.name: spec.parameters for spec in _specs(json.loads(sys.stdin.read()))}
print(json.dumps(nodes["avatar_generator"]), int(nodes["kiosk_bridge"]["port"] > 0))
"""
    order = json.dumps(soak.make_order(args))
    done = subprocess.run([sys.executable, "-c", program], input=order, capture_output=True, text=True, check=True)
    parameters, port = done.stdout.rsplit(maxsplit=1)
    wanted = {"preset": "avatar_cpu", "character": "sofia", "draw_every": 2, "seed": 5}
    assert wanted.items() <= json.loads(parameters).items() and port == "1"


def test_every_kind_is_made_by_something() -> None:
    """In a process of its own: the makers know ROS, this room does not."""
    pytest.importorskip("rclpy")
    program = "from flowact_ros.nodes.soak_faults import MAKERS; print('\\n'.join(sorted(MAKERS)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == sorted(BY_NAME)


def test_a_bad_link_loses_delays_doubles_and_swaps() -> None:
    soak_faults = pytest.importorskip("flowact_ros.nodes.soak_faults")
    sent = list(range(10_000))
    came = soak_faults.disturbed(sent, random.Random(0))
    assert came[0] == 0 and came[-1] == 9_999
    lost = len(set(sent) - set(came)) / len(sent)
    doubled = (len(came) - len(set(came))) / len(sent)
    back = [a - b for a, b in zip(came, came[1:]) if b < a]
    assert lost == pytest.approx(0.05, abs=0.01) and doubled == pytest.approx(0.05, abs=0.01)
    assert sum(step == 1 for step in back) / len(sent) == pytest.approx(0.05, abs=0.015)  # swapped
    assert sum(step > 4 for step in back) / len(sent) == pytest.approx(0.05, abs=0.015)  # late
