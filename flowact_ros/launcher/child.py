# SPDX-License-Identifier: Apache-2.0
"""One node as a process: how it is started, what it says, how it is ended. When, and how often: see supervisor.py."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowact_ros.launcher import start_node

STATUS_FD_VARIABLE = "FLOWACT_STATUS_FD"  # where a supervised node writes its states, one JSON object a line
SUPERVISED_VARIABLE = "FLOWACT_SUPERVISED"  # set: the end of a node's stdin means that the supervisor is gone
STATE_FOLDER_VARIABLE = "FLOWACT_STATE_FOLDER"  # what a node leaves there is there again after it was restarted


class SupervisorError(RuntimeError):
    """The nodes cannot be started, or cannot go on: one line."""


class BadSetup(SupervisorError):
    """A node was given something that it cannot run with: it would fail again."""


@dataclass(frozen=True)
class NodeSpec:
    """What to start: `python start_node.py module --ros-args …`. `oneshot`: it ends by itself and is not restarted.

    namespaces: of a process that has a node of this name in each of several; label: what it is called here, where
    several namespaces have one of its name.
    """

    name: str
    module: str
    namespace: str = "avatar"
    parameters: dict[str, Any] = field(default_factory=dict)
    params_file: str = ""
    log_level: str = ""
    oneshot: bool = False
    namespaces: tuple[str, ...] = ()
    label: str = ""

    @property
    def title(self) -> str:
        """What it is called here: no two specs have the same."""
        return self.label or self.name

    def command(self) -> list[str]:
        namespace = "/" + self.namespace.strip("/")
        command = [sys.executable, str(Path(start_node.__file__).resolve()), self.module]
        if self.namespaces:
            command += ["--namespaces", *self.namespaces, "--ros-args"]
        else:
            command += ["--ros-args", "-r", f"__ns:={namespace}"]
        command += ["-r", f"__node:={self.name}"]
        command += ["--enclave", f"{namespace.rstrip('/')}/{self.name}"]  # its keys, where SROS 2 is switched on
        if self.params_file:
            command += ["--params-file", self.params_file]
        for key, value in self.parameters.items():
            command += ["-p", f"{key}:={json.dumps(value, ensure_ascii=False)}"]
        if self.log_level:
            command += ["--log-level", self.log_level]
        return command


class Child:
    """A node and what it said last. `changed`: told of every state and of its end, with its lock."""

    def __init__(self, spec: NodeSpec, log: Callable[[str], None], changed: threading.Condition) -> None:
        self.spec = spec
        self.once = spec.oneshot
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "starting"
        self._nodes: dict[str, str] = {}  # the states of its nodes, of which most processes have one
        self.error = ""
        self.bad_setup = False
        self.facts: dict[str, Any] = {}
        self.last_line = ""
        self.came_up = False  # this run of it was configured once
        self.heard = 0.0  # monotonic time of its last word; 0: it has no heartbeat
        self.restarts = 0
        self.crashes_in_a_row = 0
        self.started = 0.0
        self.start_at = 0.0  # monotonic time of the next start; 0: none is due
        self.exit_code: int | None = None
        self._log = log
        self._changed = changed
        self._reader: threading.Thread | None = None

    @property
    def is_up(self) -> bool:
        return self.state == "active" or (self.once and self.state == "exited" and self.exit_code == 0)

    @property
    def pid(self) -> int | None:
        return None if self.process is None or self.process.poll() is not None else self.process.pid

    @property
    def nodes(self) -> dict[str, str]:
        """The states of those that have told one since it started, by full name, of a process of several."""
        return dict(self._nodes) if self.spec.namespaces else {}

    def failure(self) -> SupervisorError:
        return (BadSetup if self.bad_setup else SupervisorError)(f"{self.spec.title}: {self.error}")

    def spawn(self, environment: Mapping[str, str]) -> None:
        """Starts the process. Raises SupervisorError."""
        read_end, write_end = os.pipe()
        added = {STATUS_FD_VARIABLE: str(write_end), SUPERVISED_VARIABLE: "1"}
        try:
            self.process = subprocess.Popen(
                self.spec.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PYTHONUNBUFFERED": "1", **environment, "PYTHONIOENCODING": "utf-8", **added},
                pass_fds=(write_end,),
                start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor, which ends the nodes in order
            )
        except OSError as error:
            os.close(read_end)
            raise SupervisorError(f"{self.spec.title} cannot be started: {error}") from error
        finally:
            os.close(write_end)
        self.state, self.started, self.start_at, self.exit_code = "starting", time.monotonic(), 0.0, None
        self.error, self.bad_setup, self.came_up, self.heard, self.last_line = "", False, False, 0.0, ""
        self._nodes.clear()
        self._reader = threading.Thread(
            target=self._read, args=(self.process, read_end), name=f"read-{self.spec.title}", daemon=True
        )
        self._reader.start()

    def signal(self, number: int) -> None:
        """To the process and those that it started; nothing if it has ended."""
        if self.process is not None and self.process.poll() is None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return  # it ended between the two lines

    def reap(self, timeout_s: float) -> None:
        """Waits for the end of a process that was asked to end. Raises subprocess.TimeoutExpired."""
        if self.process is not None:
            self.process.wait(timeout_s)
            self.close()

    def close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def last_words(self) -> None:
        """The last lines of its log are in the log when this returns."""
        if self._reader is not None:
            self._reader.join(timeout=2.0)

    # ------------------------------------------------------------ what it says

    def _read(self, process: subprocess.Popen[bytes], status_fd: int) -> None:
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
                        self._on_line(line, key.fd == status.fileno())
            rest = buffers[process.stdout.fileno()]
            if rest:
                self._on_line(rest, False)
        process.wait()
        with self._changed:
            self._changed.notify_all()

    def _on_line(self, line: bytes, is_status: bool) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not is_status:
            self.last_line = text or self.last_line
            self._log(text)
            return
        record = json.loads(text)
        with self._changed:
            if record.get("event") == "alive":
                self.heard = time.monotonic()
                return
            self._on_event(record.pop("event", ""), record)
            self._changed.notify_all()

    def _on_event(self, event: str, record: dict[str, Any]) -> None:
        if event in ("active", "inactive", "unconfigured", "failed"):
            self.came_up = self.came_up or event in ("active", "inactive")
            node = str(record.get("node", ""))
            if event == "failed":
                self.error = str(record.get("error", ""))
            if not (event == "unconfigured" and self._nodes.get(node) == "failed"):  # it cleans up after the failure
                self._nodes[node] = event
                self.state = self._common_state()
        elif event == "bad_setup":
            self.state, self.error, self.bad_setup = "failed", str(record.get("error", "")), True
        else:
            self.facts.update(record)

    def _common_state(self) -> str:
        """Of one node its own; of several "starting" until each has said something, then the best of theirs."""
        states = list(self._nodes.values())
        if len(states) < len(self.spec.namespaces):
            return "starting"
        return next(state for state in ("active", "inactive", "unconfigured", "failed") if state in states)
