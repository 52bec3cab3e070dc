# SPDX-License-Identifier: Apache-2.0
"""One operating-system process per node: starts them, restarts what crashes, one log, one clean end.

No ROS in here: a node that takes the interpreter down with it must not take the supervisor along. Nodes tell
their states through a pipe (`base.tell_supervisor`) and watch their stdin, which ends when the supervisor does.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

STATUS_FD_VARIABLE = "FLOWACT_STATUS_FD"  # where a supervised node writes its states, one JSON object a line
SUPERVISED_VARIABLE = "FLOWACT_SUPERVISED"  # set: the end of a node's stdin means that the supervisor is gone
EXIT_BAD_SETUP = 2  # a start that cannot succeed when tried again: wrong parameter, unreadable file
BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0)  # before the 1st, 2nd, … restart in a row
HEALTHY_S = 30.0  # a node that ran so long starts the row anew
# Nodes take SIGINT and SIGTERM alike; one that is still loading is ended by SIGTERM without a word, also where a shell
# in the background has its children ignore SIGINT.
END_SIGNAL = signal.SIGTERM
STOP_S = 6.0  # for a clean end, then SIGKILL


class SupervisorError(RuntimeError):
    """The nodes cannot be started: one line."""


@dataclass(frozen=True)
class NodeSpec:
    """What to start: `python -m module --ros-args …`. `oneshot`: it ends by itself and is not restarted."""

    name: str
    module: str
    namespace: str = "avatar"
    parameters: dict[str, Any] = field(default_factory=dict)
    params_file: str = ""
    log_level: str = ""
    oneshot: bool = False

    def command(self) -> list[str]:
        namespace = "/" + self.namespace.strip("/")
        command = [sys.executable, "-m", self.module, "--ros-args", "-r", f"__ns:={namespace}"]
        command += ["-r", f"__node:={self.name}"]
        if self.params_file:
            command += ["--params-file", self.params_file]
        for key, value in self.parameters.items():
            command += ["-p", f"{key}:={json.dumps(value, ensure_ascii=False)}"]
        if self.log_level:
            command += ["--log-level", self.log_level]
        return command


class _Child:
    """A running node and what it said last."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.once = spec.oneshot
        self.reader: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "starting"
        self.error = ""
        self.facts: dict[str, Any] = {}
        self.restarts = 0
        self.crashes_in_a_row = 0
        self.started = 0.0
        self.start_at = 0.0  # monotonic time of the next start; 0: none is due
        self.exit_code: int | None = None


class Supervisor:
    """Starts `specs` and keeps them running until `stop`. `log` gets every line, with the node's name in front."""

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        environment: dict[str, str] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        if not specs:
            raise SupervisorError("no nodes to start")
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise SupervisorError(f"node names must differ, got {', '.join(names)}")
        self._children = {spec.name: _Child(spec) for spec in specs}
        self._environment = {**os.environ, **(environment or {})}
        self._log = log or (lambda line: print(line, file=sys.stderr, flush=True))
        self._width = max(len(name) for name in names)
        self._lock = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    # ------------------------------------------------------------ for the caller

    def start(self) -> None:
        for child in self._children.values():
            self._spawn(child)
        self._thread.start()

    def state(self, name: str) -> str:
        """starting, inactive, active, unconfigured, failed, restarting or exited."""
        return self._children[name].state

    def has(self, name: str) -> bool:
        return name in self._children

    def failed(self) -> list[str]:
        """Names of the nodes that cannot go on."""
        return [name for name, child in self._children.items() if child.state == "failed"]

    def fact(self, name: str, key: str) -> Any:
        """A value that a node told, such as the page's `url`; None before."""
        return self._children[name].facts.get(key)

    def pid(self, name: str) -> int | None:
        process = self._children[name].process
        return None if process is None or process.poll() is not None else process.pid

    def restarts(self, name: str) -> int:
        return self._children[name].restarts

    def exit_code(self, name: str) -> int | None:
        """Of the last run, if it has ended."""
        return self._children[name].exit_code

    def wait_active(self, timeout_s: float) -> None:
        """Until every node is active (oneshot ones may have ended well). Raises SupervisorError with what failed."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while True:
                for child in self._children.values():
                    if child.state == "failed":
                        raise SupervisorError(f"{child.spec.name}: {child.error}")
                waiting = [c.spec.name for c in self._children.values() if not self._is_up(c)]
                if not waiting:
                    return
                if self._stopping:
                    raise SupervisorError("stopped before all nodes were active")
                if (
                    not self._lock.wait(max(0.0, deadline - time.monotonic()))
                    and time.monotonic() >= deadline
                ):
                    raise SupervisorError(f"not active after {timeout_s:.0f} s: {', '.join(waiting)}")

    @staticmethod
    def _is_up(child: _Child) -> bool:
        return child.state == "active" or (child.once and child.state == "exited" and child.exit_code == 0)

    def wait_exit(self, name: str, timeout_s: float | None = None) -> int | None:
        """Until a oneshot node has ended; its exit code, or None after the timeout."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        child = self._children[name]
        with self._lock:
            while child.state not in ("exited", "failed") and not self._stopping:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._lock.wait(left)
        return child.exit_code

    def finish(self, name: str, timeout_s: float) -> int | None:
        """Asks one node to end, waits, and does not restart it. Its exit code, None if it did not end."""
        child = self._children[name]
        with self._lock:
            child.start_at = 0.0
            child.once = True
            self._signal(child, END_SIGNAL)
        return self.wait_exit(name, timeout_s)

    def stop(self) -> None:
        """Ends every node: SIGTERM, and SIGKILL for one that does not end. Harmless when called again."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join()  # from here on nothing is restarted
        for child in self._children.values():
            self._signal(child, END_SIGNAL)
        deadline = time.monotonic() + STOP_S
        for child in self._children.values():
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log(f"{child.spec.name} did not end within {STOP_S:.0f} s: killed")
                self._signal(child, signal.SIGKILL)
                child.process.wait()
            if child.process.stdin is not None:
                child.process.stdin.close()
        for child in self._children.values():
            if child.reader is not None:
                child.reader.join(timeout=2.0)  # the last lines of the log

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------ processes

    def _spawn(self, child: _Child) -> None:
        read_end, write_end = os.pipe()
        environment = {**self._environment, STATUS_FD_VARIABLE: str(write_end), SUPERVISED_VARIABLE: "1"}
        environment.setdefault("PYTHONUNBUFFERED", "1")
        try:
            child.process = subprocess.Popen(
                child.spec.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(write_end,),
                start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor, which ends the nodes in order
            )
        except OSError as error:
            os.close(read_end)
            raise SupervisorError(f"{child.spec.name} cannot be started: {error}") from error
        finally:
            os.close(write_end)
        child.state, child.started, child.start_at, child.exit_code = "starting", time.monotonic(), 0.0, None
        child.error = ""
        child.reader = threading.Thread(
            target=self._read,
            args=(child, child.process, read_end),
            name=f"read-{child.spec.name}",
            daemon=True,
        )
        child.reader.start()

    def _read(self, child: _Child, process: subprocess.Popen[bytes], status_fd: int) -> None:
        """Log lines and states of one process until it ends."""
        assert process.stdout is not None
        with os.fdopen(status_fd, "rb", buffering=0) as status, selectors.DefaultSelector() as selector:
            buffers = {process.stdout.fileno(): b"", status.fileno(): b""}
            for pipe in (process.stdout, status):
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                        continue
                    *lines, buffers[key.fd] = (buffers[key.fd] + data).split(b"\n")
                    for line in lines:
                        self._on_line(child, line, key.fd == status.fileno())
            rest = buffers[process.stdout.fileno()]
            if rest:
                self._on_line(child, rest, False)
        process.wait()
        with self._lock:
            self._lock.notify_all()

    def _on_line(self, child: _Child, line: bytes, is_status: bool) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not is_status:
            self._log(f"{child.spec.name:<{self._width}} | {text}")
            return
        record = json.loads(text)
        with self._lock:
            event = record.pop("event", "")
            if event in ("active", "inactive", "unconfigured"):
                if not (event == "unconfigured" and child.state == "failed"):  # it cleans up after the failure
                    child.state = event
            elif event in ("failed", "bad_setup"):
                child.state, child.error = "failed", str(record.get("error", ""))
            else:
                child.facts.update(record)
            self._lock.notify_all()

    def _watch(self) -> None:
        """Restarts what has ended, with growing pauses."""
        while True:
            with self._lock:
                if self._stopping:
                    return
                now = time.monotonic()
                for child in self._children.values():
                    self._tend(child, now)
                self._lock.wait(0.1)

    def _tend(self, child: _Child, now: float) -> None:
        if child.start_at:
            if now >= child.start_at:
                child.restarts += 1
                self._spawn(child)
            return
        if child.process is None or child.state == "exited" or child.process.poll() is None:
            return
        child.exit_code = code = child.process.returncode
        if child.process.stdin is not None:
            child.process.stdin.close()
        if child.once or code == EXIT_BAD_SETUP:
            # A bad setup would fail the same way again.
            if code == EXIT_BAD_SETUP:
                child.error = child.error or "its settings are not usable"
            child.state = "exited" if code == 0 else "failed"
            child.error = child.error or f"ended with exit code {code}"
            child.process = None
            self._lock.notify_all()
            return
        ran = now - child.started
        child.crashes_in_a_row = 0 if ran > HEALTHY_S else child.crashes_in_a_row + 1
        pause = BACKOFF_S[min(max(child.crashes_in_a_row, 1), len(BACKOFF_S)) - 1]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._log(f"{child.spec.name} ended ({how}) after {ran:.1f} s: started again in {pause:g} s")
        child.state, child.start_at, child.process = "restarting", now + pause, None
        self._lock.notify_all()

    @staticmethod
    def _signal(child: _Child, number: int) -> None:
        if child.process is not None and child.process.poll() is None:
            try:
                os.killpg(child.process.pid, number)
            except ProcessLookupError:
                return  # it ended between the two lines


def file_log(path: Path, also: Callable[[str], None] | None) -> tuple[Callable[[str], None], IO[str]]:
    """A log function that appends to `path`, and to `also`; with the open file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("a", encoding="utf-8", buffering=1)
    lock = threading.Lock()

    def log(line: str) -> None:
        with lock:
            handle.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        if also is not None:
            also(line)

    return log, handle
