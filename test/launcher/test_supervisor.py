# SPDX-License-Identifier: Apache-2.0
"""The supervisor with small programs in place of nodes: start, states, restart, one log, a clean end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowact_ros.launcher import bringup
from flowact_ros.launcher.supervisor import NodeSpec, Supervisor, SupervisorError

PRELUDE = """
import json, os, signal, sys, time
def tell(**record):
    os.write(int(os.environ["FLOWACT_STATUS_FD"]), (json.dumps(record) + "\\n").encode())
"""
PROGRAMS = {
    # A node as it should be: tells its state, ends when it is asked to.
    "good": """
print("hello from", sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(0)))
tell(event="inactive"); tell(event="url", url="http://x/"); tell(event="active")
while True: time.sleep(0.05)
""",
    "deaf": """
signal.signal(signal.SIGTERM, signal.SIG_IGN); tell(event="active")
while True: time.sleep(0.05)
""",
    "failing": """
tell(event="failed", error="weights are missing"); tell(event="unconfigured")
while True: time.sleep(0.05)
""",
    "misconfigured": """
tell(event="bad_setup", error="parameter x: 9 is out of range"); sys.exit(2)
""",
    "short": """
tell(event="active"); tell(event="recorded", frames=25); sys.exit(0)
""",
    "loading": """
print("loading")
while True: time.sleep(0.05)
""",
    "hopeless": """
print("cannot open shared object file"); sys.exit(77)
""",
    "beating": """
from pathlib import Path
mark = Path(os.environ["FLOWACT_STATE_FOLDER"], "kept")
print("found", mark.exists()); mark.touch()
tell(event="alive"); tell(event="active")
while True: tell(event="alive"); time.sleep(0.1)
""",
    "orphan": """
tell(event="active"); os.read(0, 1); open(sys.argv[-1].split(":=")[1].strip('"'), "w").write("ended")
""",
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, body in PROGRAMS.items():
        (tmp_path / f"prog_{name}.py").write_text(PRELUDE + body)
    return tmp_path


def supervise(programs: Path, *names: str, lines: list[str] | None = None, **options) -> Supervisor:
    specs = [NodeSpec(name, f"prog_{name}", **options) for name in names]
    log = (lines if lines is not None else []).append
    return Supervisor(specs, environment={"PYTHONPATH": str(programs)}, log=log)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def test_start_states_log_and_clean_end(programs: Path) -> None:
    lines: list[str] = []
    supervisor = supervise(
        programs, "good", lines=lines, namespace="r1/avatar", parameters={"port": 0, "file": "a b"}
    )
    with supervisor:
        supervisor.wait_active(20)
        assert supervisor.state("good") == "active"
        assert supervisor.fact("good", "url") == "http://x/"
        pid = supervisor.pid("good")
    hello = next(line for line in lines if "hello from" in line)
    assert hello.startswith("good | ")
    for part in ("__ns:=/r1/avatar", "__node:=good", "port:=0", 'file:="a b"'):
        assert part in hello
    assert any(line == "good | bye" for line in lines)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.slow
def test_a_killed_node_comes_back_and_nothing_else_restarts(programs: Path) -> None:
    lines: list[str] = []
    with supervise(programs, "good", "deaf", lines=lines) as supervisor:
        supervisor.wait_active(20)
        first, other = supervisor.pid("good"), supervisor.pid("deaf")
        os.kill(first, signal.SIGKILL)
        until(lambda: supervisor.pid("good") not in (None, first) and supervisor.state("good") == "active")
        assert supervisor.restarts("good") == 1 and supervisor.restarts("deaf") == 0
        assert supervisor.pid("deaf") == other
        assert any("signal 9" in line for line in lines)


def test_a_node_that_does_not_end_is_killed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowact_ros.launcher.supervisor.STOP_S", 0.5)
    lines: list[str] = []
    with supervise(programs, "deaf", lines=lines) as supervisor:
        supervisor.wait_active(20)
        pid = supervisor.pid("deaf")
    assert any("killed" in line for line in lines)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_node_that_is_still_loading_ends_without_a_word(programs: Path) -> None:
    lines: list[str] = []
    with supervise(programs, "loading", lines=lines):
        until(lambda: bool(lines))
    assert [line.split("|")[1].strip() for line in lines] == ["loading"]


@pytest.mark.parametrize(
    ("name", "says"), [("failing", "weights are missing"), ("misconfigured", "out of range")]
)
def test_what_failed_is_said(programs: Path, name: str, says: str) -> None:
    with supervise(programs, "good", name) as supervisor:
        with pytest.raises(SupervisorError, match=f"{name}: .*{says}"):
            supervisor.wait_active(20)
        time.sleep(0.5)
        assert supervisor.restarts(name) == 0 and supervisor.failed() == [name]


def test_a_node_that_never_gets_ready_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its last line, which is the reason as far as anybody knows it."""
    monkeypatch.setattr("flowact_ros.launcher.supervisor.BACKOFF_S", (0.05,))
    with supervise(programs, "hopeless", "good") as supervisor:
        until(lambda: supervisor.failed() == ["hopeless"])
        assert supervisor.restarts("hopeless") == 2
        reason = str(supervisor.failure("hopeless"))
        assert "exit code 77" in reason and reason.endswith("cannot open shared object file")
        until(lambda: supervisor.state("good") == "active")


def test_a_node_that_hangs_is_told_and_restarted(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowact_ros.launcher.supervisor.SILENT_S", 1.0)
    monkeypatch.setattr("flowact_ros.launcher.supervisor.HUNG_S", 3.0)
    lines: list[str] = []
    with supervise(programs, "beating", lines=lines) as supervisor:
        supervisor.wait_active(20)
        first = supervisor.pid("beating")
        os.kill(first, signal.SIGSTOP)
        # A busy machine may miss the moments between: lines of the log stay, states do not.
        until(lambda: supervisor.restarts("beating") > 0 and supervisor.state("beating") == "active", 60)
        assert supervisor.pid("beating") != first
        # What a node keeps for itself is there after a restart, and gone with the supervisor.
        assert [line.split("| ")[1] for line in lines if "| found" in line][:2] == ["found False", "found True"]
        folder = supervisor._state_folder
    told = [next(n for n, line in enumerate(lines) if sign in line) for sign in ("beating hangs", "signal 9")]
    assert told == sorted(told)
    assert not os.path.exists(folder)


def test_a_short_silence_is_no_reason(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowact_ros.launcher.supervisor.SILENT_S", 1.5)
    monkeypatch.setattr("flowact_ros.launcher.supervisor.HUNG_S", 60.0)
    with supervise(programs, "beating") as supervisor:
        supervisor.wait_active(20)
        os.kill(supervisor.pid("beating"), signal.SIGSTOP)
        until(lambda: supervisor.state("beating") == "silent")
        os.kill(supervisor.pid("beating"), signal.SIGCONT)
        until(lambda: supervisor.state("beating") == "active")
        assert supervisor.restarts("beating") == 0


def test_a_watch_whose_looks_come_late_finds_silence_in_its_time(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy processor has every look come late: that is not this process standing still, which is forgiven."""
    monkeypatch.setattr("flowact_ros.launcher.supervisor.SILENT_S", 1.0)
    lines: list[str] = []
    tend = Supervisor._tend

    def slowly(self: Supervisor, child, now: float) -> None:
        time.sleep(0.4)
        tend(self, child, now)

    monkeypatch.setattr(Supervisor, "_tend", slowly)
    with supervise(programs, "beating", lines=lines) as supervisor:
        supervisor.wait_active(20)
        os.kill(supervisor.pid("beating"), signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: any("beating hangs" in line for line in lines), 60)
        waited = time.monotonic() - stopped
    told = next(line for line in lines if "beating hangs" in line)
    assert float(told.split("not a word for ")[1].split()[0]) > 0.3 * waited


@pytest.mark.parametrize(("name", "status"), [("misconfigured", 2), ("failing", 1)])
def test_up_without_a_working_node_ends(
    programs: Path, name: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(programs))
    monkeypatch.setattr(bringup, "node_specs", lambda options: [NodeSpec("lonely", f"prog_{name}")])
    monkeypatch.setattr(bringup, "_stop_on_signals", threading.Event)
    assert bringup.run_up(bringup.Options(log_file=str(programs / "log"))) == status
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert first.startswith("error: lonely: ") and last == "error: no node is left that works"
    assert "active" not in out


def test_a_oneshot_node_ends_and_stays_ended(programs: Path) -> None:
    with supervise(programs, "short", oneshot=True) as supervisor:
        assert supervisor.wait_exit("short", 20) == 0
        supervisor.wait_active(1)
        deadline = time.monotonic() + 10
        while supervisor.fact("short", "frames") is None and time.monotonic() < deadline:
            time.sleep(0.01)  # its last line may be read after its end
        assert supervisor.fact("short", "frames") == 25
        time.sleep(0.5)
        assert supervisor.restarts("short") == 0


def test_finish_ends_one_node(programs: Path) -> None:
    with supervise(programs, "good") as supervisor:
        supervisor.wait_active(20)
        assert supervisor.finish("good", 20) == 0
        time.sleep(0.4)
        assert supervisor.pid("good") is None and supervisor.restarts("good") == 0


def test_waiting_has_an_end(programs: Path) -> None:
    (programs / "prog_mute.py").write_text("import time\nwhile True: time.sleep(0.1)\n")
    with supervise(programs, "mute") as supervisor, pytest.raises(SupervisorError, match="mute"):
        supervisor.wait_active(0.3)


def test_nodes_learn_of_the_supervisors_end(programs: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    supervisor = supervise(programs, "orphan", parameters={"mark": str(mark)})
    supervisor.start()
    supervisor.wait_active(20)
    # What the kernel does when the supervisor is killed: its end of the pipe goes away.
    supervisor._children["orphan"].process.stdin.close()
    until(mark.exists)
    supervisor.stop()


def test_stop_ends_a_wait(programs: Path) -> None:
    supervisor = supervise(programs, "good")
    supervisor.start()
    supervisor.wait_active(20)
    waiter = threading.Thread(target=lambda: supervisor.wait_exit("good", 60))
    waiter.start()
    supervisor.stop()
    waiter.join(5)
    assert not waiter.is_alive()


def test_names_must_differ() -> None:
    with pytest.raises(SupervisorError, match="differ"):
        Supervisor([NodeSpec("a", "x"), NodeSpec("a", "y")])
    with pytest.raises(SupervisorError, match="no nodes"):
        Supervisor([])
