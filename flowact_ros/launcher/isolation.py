# SPDX-License-Identifier: Apache-2.0
"""Checks that cannot take each other along: they are made in a child process, and what ends it is a finding.

A middleware that does not fit ends the process with a status of its own, a torch for another processor with a signal,
and a sound system may never answer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import IO

from flowact_ros.launcher.doctor_checks import ERROR, Check

PATIENCE_S = 60.0  # for one check; torch comes from a cold disk


def isolated(
    checks: Sequence[tuple[str, Callable[[], Check]]], patience_s: float = PATIENCE_S
) -> Iterator[Check]:
    """The finding of every check, whatever happens in it: an exception, the end of the process, silence."""
    done = 0
    while done < len(checks):
        with tempfile.TemporaryFile() as noise:  # libraries write where they like
            child, answers = _fork(checks[done:], noise)
            with answers:
                while done < len(checks) and (line := _line(answers, patience_s)):
                    yield Check(**json.loads(line))
                    done += 1
            ended = _end(child)
            if done < len(checks):  # the one after that does not take part any more
                how = f"did not answer within {patience_s:g} s" if line is None else ended
                yield Check(checks[done][0], ERROR, f"the check {how}{_last_line(noise)}", _remedy(checks[done][0]))
                done += 1


def _remedy(name: str) -> str:
    if name in ("ros", "rmw", "flowact_msgs"):
        return "start a fresh shell without RMW_IMPLEMENTATION, RCUTILS_… and PYTHONPATH; else run `make setup`"
    if name in ("disk", "dds profile", "shared memory"):
        return "look at the file or folder that it names; change to a folder that exists"
    return "run `make setup` in the repository; a device that hangs: unplug it, or restart the machine"


def _fork(checks: Sequence[tuple[str, Callable[[], Check]]], noise: IO[bytes]) -> tuple[int, IO[bytes]]:
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(write_end)
        return child, os.fdopen(read_end, "rb", buffering=0)
    try:
        os.close(read_end)
        for number in (1, 2):
            os.dup2(noise.fileno(), number)
        for name, check in checks:
            os.write(write_end, (json.dumps(asdict(_found(name, check))) + "\n").encode())
    finally:
        os._exit(0)  # nothing of the parent's is flushed or ended twice


def _found(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        return Check(name, ERROR, f"cannot be looked at: {type(error).__name__}: {text}", _remedy(name))


def _line(answers: IO[bytes], patience_s: float) -> bytes | None:
    """The next line; empty once the child has ended, None when it does not answer."""
    line, deadline = b"", time.monotonic() + patience_s
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([answers], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        byte = answers.read(1)
        if not byte:
            return b""
        line += byte
    return line


def _end(child: int) -> str:
    """How it ended; a child that still runs is ended."""
    os.kill(child, signal.SIGKILL)  # it is a zombie, or hangs
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended the process with status {code}"


def _last_line(noise: IO[bytes]) -> str:
    noise.seek(0)
    lines = noise.read().decode("utf-8", "replace").split("\n")
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
    return f": {last[:160]}" if last else ""
