# SPDX-License-Identifier: Apache-2.0
"""Decisions of the set-up without side effects: what the machine lacks, which torch to take, what a failure means."""

from __future__ import annotations

import configparser
import ctypes.util
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

SUPPORTED_ROS = ("jazzy", "kilted")
DISK_GB = 4.0  # the environment with the CPU build of torch is 1.7 GB, and pip unpacks beside it
TORCH_BACKEND = re.compile(r"auto|cpu|cu\d+|rocm[\d.]+|xpu")


class SetupError(RuntimeError):
    """One line that says what is missing and how to get it."""


def sourced_ros(environ: Mapping[str, str]) -> str | None:
    """The distribution of a sourced ROS 2 that can be used, None if none is sourced; SetupError for any other."""
    distro = environ.get("ROS_DISTRO", "")
    if not distro or not environ.get("AMENT_PREFIX_PATH"):
        return None
    if distro not in SUPPORTED_ROS:
        raise SetupError(
            f"ROS 2 {distro} is sourced, but {' or '.join(SUPPORTED_ROS)} is needed: "
            "open a shell in which it is not sourced (check ~/.bashrc); ROS 2 Jazzy then comes as Python wheels"
        )
    return distro


def missing_tools(environ: Mapping[str, str], which=shutil.which, include: str | None = None) -> list[str]:
    """What building flowact_msgs needs and the machine lacks, one line each. Not cmake: it exists as a wheel."""
    problems = []
    for variable, names, what in (
        ("CC", ("cc", "gcc", "clang"), "C"),
        ("CXX", ("c++", "g++", "clang++"), "C++"),
    ):
        candidates = (environ[variable].split()[0],) if environ.get(variable, "").strip() else names
        if not any(which(name) for name in candidates):
            problems.append(
                f"no {what} compiler ({', '.join(candidates)}): install one "
                "(Debian, Ubuntu: sudo apt-get install build-essential)"
            )
    if not any(which(name) for name in ("make", "gmake", "ninja")):
        problems.append("neither make nor ninja: install one (Debian, Ubuntu: sudo apt-get install make)")
    headers = Path(include or sysconfig.get_path("include"), "Python.h")
    if not headers.exists():
        problems.append(
            f"the headers of this Python are missing ({headers}): install them "
            "(Debian, Ubuntu: sudo apt-get install python3-dev)"
        )
    if importlib.util.find_spec("ensurepip") is None:
        problems.append("this Python cannot make virtual environments: sudo apt-get install python3-venv")
    return problems


def disk_problem(free_bytes: int) -> str | None:
    """One line if the folder's disk is too small for the environment."""
    if free_bytes >= DISK_GB * 1e9:
        return None
    return f"{free_bytes / 1e9:.1f} GB free, {DISK_GB:.0f} GB are needed: free some space or clone to a larger disk"


def portaudio_warning(find=ctypes.util.find_library) -> str | None:
    """One line if microphones and loudspeakers cannot be used; files still can."""
    if find("portaudio"):
        return None
    return (
        "no PortAudio library: microphones cannot be used, audio files can "
        "(Debian, Ubuntu: sudo apt-get install libportaudio2)"
    )


def requirements(setup_cfg: Path, extras: list[str]) -> list[str]:
    """The requirement lines of the package and of some extras; raises SetupError for an extra that does not exist."""
    parser = configparser.ConfigParser()
    parser.read(setup_cfg, encoding="utf-8")
    known = parser["options.extras_require"]
    unknown = [extra for extra in extras if extra not in known]
    if unknown:
        raise SetupError(f"unknown extra {unknown[0]!r}: one of {', '.join(known)}")
    lists = [parser["options"]["install_requires"], *(known[extra] for extra in extras)]
    return sorted({line.strip() for text in lists for line in text.splitlines() if line.strip()})


def torch_steps(
    wish: str, has_gpu: bool, requirement: str, cuda_packages: list[str] | None
) -> list[tuple[str, str]]:
    """How to get torch: (tool, argument) pairs to try one after the other.

    wish: the variable FLOWACT_TORCH, or what it was when it was set last ("" if never). cuda_packages: what pip would
    bring along for CUDA on this machine, None if that is not known. Tools: "pip" (argument: a requirement), "uv"
    (argument: a backend).
    """
    if wish == "skip":
        return []
    if TORCH_BACKEND.fullmatch(wish):
        return [("uv", wish)]
    if wish:
        return [("pip", wish)]
    if has_gpu:
        return [("uv", "auto"), ("pip", requirement)]
    if cuda_packages == []:  # pip has a CPU build at hand
        return [("pip", requirement)]
    return [("uv", "cpu"), ("pip", requirement)]


def cuda_packages(report: dict) -> list[str]:
    """The packages of a `pip install --dry-run --report` that only a CUDA build of torch needs."""
    names = [item["metadata"]["name"].lower() for item in report.get("install", [])]
    return [name for name in names if name.startswith(("nvidia-", "cuda-", "triton", "pytorch-triton"))]


def relocate(text: str, include: str, site_packages: str) -> str:
    """Puts this environment's paths in place of two of the wheels' build machine, which their CMake exports name."""
    text = re.sub(
        r"/opt/python/cp\d+-cp\d+t?/lib/python3\.\d+t?/site-packages", lambda _: site_packages, text
    )
    return re.sub(r"/opt/python/cp\d+-cp\d+t?/include/python3\.\d+t?", lambda _: include, text)


def explain(log: str) -> str:
    """What the output of a failed command means, in one line with the remedy; "" if the cause is not a usual one."""
    causes = (
        (r"No space left on device|Errno 28", "the disk is full: free some space and run it again"),
        (
            r"Temporary failure in name resolution|Name or service not known|NewConnectionError|Network is unreachable|"
            r"ConnectTimeoutError|ReadTimeoutError|ProxyError|dns error|Connection refused|Failed to fetch",
            "the package index cannot be reached: check the network (or pip's proxy settings) and run it again",
        ),
        (
            r"No matching distribution found for (\S+)",
            "the package index has no build of {0} for this Python and machine: "
            "try another Python (FLOWACT_PYTHON=python3.12)",
        ),
        (
            r"ResolutionImpossible",
            "the packages asked for contradict each other: check FLOWACT_TORCH and constraints/",
        ),
        (
            r"Python\.h: No such file",
            "the headers of this Python are missing: sudo apt-get install python3-dev",
        ),
        (r"No CMAKE_CXX_COMPILER", "no C++ compiler: sudo apt-get install build-essential"),
        (
            r"cc1plus.*Killed|Killed signal",
            "a compiler ran out of memory: close other programs and run it again",
        ),
    )
    for pattern, text in causes:
        match = re.search(pattern, log)
        if match:
            return text.format(*match.groups())
    return ""


def broken(report: str, *, without_torch: bool) -> str:
    """The errors of `flowact doctor --json` in one line, with what to do; "" if there are none."""
    try:
        checks = json.loads(report)["checks"]
    except (ValueError, KeyError, TypeError):
        return "`flowact doctor` gave no answer: run `.venv/bin/flowact doctor` to see why"
    errors = [check for check in checks if check["level"] == "error"]
    if without_torch:  # as it was asked for
        errors = [check for check in errors if check["name"] != "torch"]
    return "; ".join(f"{check['name']}: {check['found']} ({check['remedy']})" for check in errors)


def digest(paths: list[Path], *words: str) -> str:
    """Hash of the contents of files (folders: all files below), their names, and some words."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(os.fsencode(file.name) + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()
