# SPDX-License-Identifier: Apache-2.0
"""One operating-system process per node: starts them, restarts what crashes or hangs, one log, one clean end.

No ROS in here: a node that takes the interpreter down with it must not take the supervisor along. Nodes tell
their states and that they live through a pipe (`process.tell_supervisor`), and watch their stdin, which ends when the
supervisor does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flowact_ros.launcher.child import (
    STATE_FOLDER_VARIABLE,
    STATUS_FD_VARIABLE,
    SUPERVISED_VARIABLE,
    BadSetup,
    Child,
    NodeSpec,
    SupervisorError,
)
from flowact_ros.launcher.environment import EXIT_BAD_SETUP

__all__ = [
    "EXIT_BAD_SETUP",
    "STATE_FOLDER_VARIABLE",
    "STATUS_FD_VARIABLE",
    "SUPERVISED_VARIABLE",
    "BadSetup",
    "NodeSpec",
    "Supervisor",
    "SupervisorError",
]

BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 10.0)  # before the 1st, 2nd, … restart in a row
HEALTHY_S = 30.0  # a node that ran so long starts the row anew
HOPELESS = 3  # ends in a row of a node that was never configured: it is not started again
SILENT_S = 2.5  # an active node tells that it lives twice a second; after such a silence it is said that it does not
HUNG_S = 8.0  # and after this one it is killed and started again
# Nodes take SIGINT and SIGTERM alike; one that is still loading is ended by SIGTERM without a word, also where a shell
# in the background has its children ignore SIGINT.
END_SIGNAL = signal.SIGTERM
STOP_S = 6.0  # for a clean end, then SIGKILL
TICK_S = 0.1
STOOD_STILL_S = 1.0  # a look that comes so late: this process stood still, perhaps with the whole container


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
        names = [spec.title for spec in specs]
        if len(set(names)) != len(names):
            raise SupervisorError(f"node names must differ, got {', '.join(names)}")
        self._environment = {**os.environ, **(environment or {})}
        self._log = log or (lambda line: print(line, file=sys.stderr, flush=True))
        self._lock = threading.Condition()
        self._children = {spec.title: Child(spec, self._prefixed(spec.title, names), self._lock) for spec in specs}
        self._stopping = False
        self._state_folder = ""
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def _prefixed(self, name: str, names: Sequence[str]) -> Callable[[str], None]:
        width = max(map(len, names))
        return lambda line: self._log(f"{name:<{width}} | {line}")

    # ------------------------------------------------------------ for the caller

    def start(self) -> None:
        """Raises SupervisorError."""
        self._state_folder = tempfile.mkdtemp(prefix="flowact-state-")
        self._environment[STATE_FOLDER_VARIABLE] = self._state_folder
        for child in self._children.values():
            child.spawn(self._environment)
        self._thread.start()

    def state(self, name: str) -> str:
        """starting, inactive, active, unconfigured, silent, failed, restarting or exited."""
        return self._children[name].state

    def has(self, name: str) -> bool:
        return name in self._children

    @property
    def names(self) -> list[str]:
        """Of the nodes, in the order in which they were given."""
        return list(self._children)

    def failed(self) -> list[str]:
        """Names of the nodes that cannot go on."""
        return [name for name, child in self._children.items() if child.state == "failed"]

    def shared(self) -> dict[str, str]:
        """The states, by full name, of nodes that share their process with others, as far as they have told one."""
        with self._lock:
            return {node: state for child in self._children.values() for node, state in child.nodes.items()}

    def failure(self, name: str) -> SupervisorError:
        """Why a node failed."""
        return self._children[name].failure()

    def fact(self, name: str, key: str) -> Any:
        """A value that a node told, such as the page's `url`; None before."""
        return self._children[name].facts.get(key)

    def pid(self, name: str) -> int | None:
        return self._children[name].pid

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
                        raise child.failure()
                waiting = [c.spec.title for c in self._children.values() if not c.is_up]
                if not waiting:
                    return
                if self._stopping:
                    raise SupervisorError("stopped before all nodes were active")
                if (
                    not self._lock.wait(max(0.0, deadline - time.monotonic()))
                    and time.monotonic() >= deadline
                ):
                    raise SupervisorError(f"not active after {timeout_s:.0f} s: {', '.join(waiting)}")

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
            child.signal(END_SIGNAL)
        return self.wait_exit(name, timeout_s)

    def stop(self) -> None:
        """Ends every node: SIGTERM, and SIGKILL for one that does not end. Harmless when called again."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join()  # from here on nothing is restarted
        children = list(self._children.values())
        for child in children:
            child.signal(END_SIGNAL)
        deadline = time.monotonic() + STOP_S
        for child in children:
            try:
                child.reap(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log(f"{child.spec.title} did not end within {STOP_S:.0f} s: killed")
                child.signal(signal.SIGKILL)
                child.reap(STOP_S)
        for child in children:
            child.last_words()
        shutil.rmtree(self._state_folder, ignore_errors=True)

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------ what is done without being asked

    def _watch(self) -> None:
        """Restarts what has ended or hangs, with growing pauses."""
        last = time.monotonic()
        while True:
            with self._lock:
                if self._stopping:
                    return
                now = time.monotonic()
                late, last = now - last - TICK_S, now
                for child in self._children.values():
                    # Less than that is a busy processor. Were it forgiven, too, no silence would ever grow long on one.
                    if late > STOOD_STILL_S and child.heard:
                        child.heard += late
                    self._tend(child, now)
                self._lock.wait(TICK_S)

    def _tend(self, child: Child, now: float) -> None:
        if child.start_at:
            if now >= child.start_at:
                self._restart(child, now)
            return
        if child.process is None or child.state == "exited":
            return
        if child.process.poll() is None:
            self._listen(child, now)
            return
        child.exit_code = code = child.process.returncode
        child.close()
        child.process = None
        self._lock.notify_all()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if child.once or code == EXIT_BAD_SETUP:
            child.state = "exited" if code == 0 else "failed"
            child.bad_setup = code == EXIT_BAD_SETUP
            child.error = child.error or child.last_line or f"ended with {how}"
            return
        child.crashes_in_a_row = 0 if now - child.started > HEALTHY_S else child.crashes_in_a_row + 1
        if not child.came_up and child.crashes_in_a_row >= HOPELESS:
            child.state = "failed"
            child.error = f"ended {HOPELESS} times before it was ready ({how}); its last line: {child.last_line}"
            self._log(f"{child.spec.title} ended ({how}): it is not started again")
            return
        pause = BACKOFF_S[min(max(child.crashes_in_a_row, 1), len(BACKOFF_S)) - 1]
        self._log(f"{child.spec.title} ended ({how}) after {now - child.started:.1f} s: started again in {pause:g} s")
        child.state, child.start_at = "restarting", now + pause

    def _restart(self, child: Child, now: float) -> None:
        child.restarts += 1
        try:
            child.spawn(self._environment)
        except SupervisorError as error:  # no memory or no process left, for the moment
            self._log(f"error: {error}; tried again in {BACKOFF_S[-1]:g} s")
            child.start_at = now + BACKOFF_S[-1]

    def _listen(self, child: Child, now: float) -> None:
        """A node that is active has a heartbeat."""
        silence = now - child.heard
        if child.state == "silent" and silence <= SILENT_S:
            child.state = "active"
            self._log(f"{child.spec.title} ended its silence")
        elif child.state == "active" and child.heard and silence > SILENT_S:
            child.state = "silent"
            self._log(f"error: {child.spec.title} hangs: not a word for {silence:.1f} s; killed at {HUNG_S:g} s")
        elif child.state == "silent" and silence > HUNG_S:
            child.signal(signal.SIGKILL)
            return
        else:
            return
        self._lock.notify_all()
