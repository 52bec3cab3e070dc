# SPDX-License-Identifier: Apache-2.0
"""Makes every Python of the virtual environment a ROS 2 Python, without sourcing anything.

`scripts/setup` copies this module into the environment's site-packages beside a `.pth` file that calls `activate`
with the repository's path when the interpreter starts. It sets what `source install/setup.bash` would set (only what
is missing), and a passive OpenMP wait. The dynamic linker reads LD_LIBRARY_PATH only at the start of a process, so the
interpreter is replaced by itself once (`os.execve`: same PID, same arguments).
"""

from __future__ import annotations

import os
import sys
from glob import glob

PACKAGES = ("flowact_ros", "flowact_msgs")


def _prepend(name: str, paths: list[str]) -> bool:
    """Puts `paths` in front of the variable; False if all of them were in it already."""
    present = [part for part in os.environ.get(name, "").split(os.pathsep) if part]
    missing = [path for path in paths if path not in present]
    os.environ[name] = os.pathsep.join(missing + present)
    return bool(missing)


def _leave_current_folder_out() -> None:
    """An empty part of PYTHONPATH means the current folder, where somebody's `queue.py` would take Python's place."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [part for part in parts if part not in ("", ".")]
    if len(kept) == len(parts):
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    here = os.path.realpath(".")
    if here not in kept:
        sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != here]


def activate(root: str) -> None:
    """Prepares this interpreter for the packages built under `root`/install; may replace the process by itself."""
    if os.environ.get("PYTHONPATH"):
        _leave_current_folder_out()
    prefixes = [
        path for path in (os.path.join(root, "install", name) for name in PACKAGES) if os.path.isdir(path)
    ]
    if (
        not prefixes or os.environ.get("FLOWACT_ENVIRONMENT") == "off"
    ):  # the set-up is at work and says what it needs
        return
    libraries = [os.path.join(path, "lib") for path in prefixes]
    site = os.path.join("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    wheels = sorted(glob(os.path.join(sys.prefix, site, "ros_*.libs")))
    if wheels:  # ROS itself is made of wheels in this environment, not a sourced installation
        prefixes.append(sys.prefix)
        libraries += [os.path.join(sys.prefix, "lib"), *wheels]
    _prepend("AMENT_PREFIX_PATH", prefixes)
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # spinning OpenMP teams starve each other on few cores

    if _prepend("LD_LIBRARY_PATH", libraries):
        if wheels:  # the wheels' own hook, which does the same, need not do it again
            os.environ["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
        os.execve(sys.executable, sys.orig_argv, dict(os.environ))

    paths = [os.path.join(root, "install", name, site) for name in PACKAGES]
    paths.append(
        os.path.join(root, "build", "flowact_ros")
    )  # where a symlink install keeps its links to the sources
    sys.path += [path for path in paths if os.path.isdir(path) and path not in sys.path]
