# SPDX-License-Identifier: Apache-2.0
"""Starts a module as a program: `python start_node.py MODULE ARGUMENTS`.

Unlike `python -m`, which puts the current folder in front of everything: a `queue.py` that lies there would be executed
in place of Python's own. What cannot even be imported is told in one line, and is a bad setup: it would fail again.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0] or ".") == _HERE:  # Python put it there, unless it was told not to
    del sys.path[0]

import importlib  # noqa: E402 - from the path as it shall be
import json  # noqa: E402


def main() -> int:
    """The exit status of the module's `main`."""
    name = sys.argv[1]
    sys.argv[:] = [name, *sys.argv[2:]]
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever a broken package raises
        return _cannot_start(name, error)
    return int(module.main() or 0) if hasattr(module, "main") else 0


def _cannot_start(name: str, error: Exception) -> int:
    from flowact_ros.launcher.environment import EXIT_BAD_SETUP, import_advice

    package, place = _blamed(name, error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    text = f"{package} cannot be imported{place} ({reason}); {import_advice(package, os.environ)}"
    print(f"error: {text}", file=sys.stderr, flush=True)
    if os.environ.get("FLOWACT_STATUS_FD", "").isdigit():
        record = json.dumps({"event": "bad_setup", "error": text}) + "\n"
        os.write(int(os.environ["FLOWACT_STATUS_FD"]), record.encode())
    return EXIT_BAD_SETUP


def _blamed(name: str, error: Exception) -> tuple:
    """The package outside of ours in which the import failed, and where it lies."""
    from flowact_ros.launcher.environment import origin_of

    package = name.partition(".")[0]
    trace = error.__traceback__
    if isinstance(error, ImportError) and error.name:
        package, trace = error.name.partition(".")[0], None
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in ("__main__", "importlib", "flowact_ros", ""):
            package = module
            break
        trace = trace.tb_next
    origin = origin_of(package)
    return package, f" from {origin}" if origin else ""


if __name__ == "__main__":
    sys.exit(main())
