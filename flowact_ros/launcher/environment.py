# SPDX-License-Identifier: Apache-2.0
"""The environment that a node starts in: looked at before anything starts, refused with one line, put right where that
is possible. No ROS in here: a broken one must not keep us from saying so.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import MutableMapping, Sequence
from ctypes.util import find_library
from importlib import util
from pathlib import Path

from flowact_ros.launcher.security import security_problem

HIGHEST_DOMAIN = 232  # the ports of a higher one would lie above 65535
MOST_NAMESPACE = 200  # [characters] rmw allows 245, and the longest of our topic names follows
EXIT_BAD_SETUP = 2  # a start that cannot succeed when tried again: wrong parameter, broken environment

_TOKEN = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OWN_NAMESPACE = re.compile(r"(?:^|.*:)__ns:=(.*)")


class EnvironmentProblem(RuntimeError):
    """Nothing can start here: what was found, and what would be right, in one line."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}: {remedy}")
        self.found, self.remedy = found, remedy


def checked_namespace(text: str) -> str:
    """A ROS namespace without slashes around it. Raises EnvironmentProblem for one that no node can have."""
    name = text.strip().removeprefix("/").removesuffix("/")
    tokens = name.split("/")
    if name and len(name) <= MOST_NAMESPACE and "__" not in name and all(map(_TOKEN.fullmatch, tokens)):
        return name
    words = [re.sub(r"[^A-Za-z0-9]+", "_", token).strip("_") for token in tokens]
    near = "/".join(f"r{word}" if word[0].isdigit() else word for word in words if word)[:MOST_NAMESPACE]
    raise EnvironmentProblem(
        f"namespace {text!r} is none that ROS takes",
        f"between single slashes a letter, then letters, digits and single underscores, at most {MOST_NAMESPACE} "
        f"characters; for example {near or 'avatar'!r}",
    )


def check(environ: MutableMapping[str, str], arguments: Sequence[str] = ()) -> None:
    """Looks at what every node reads, and puts right what can be. `arguments`: of a node, with its namespace.

    Raises EnvironmentProblem.
    """
    try:
        os.getcwd()
    except OSError:  # torch ends the process there
        raise EnvironmentProblem("the current folder does not exist any more", "change to one that does") from None
    _check_domain(environ.get("ROS_DOMAIN_ID", ""))
    _check_middleware(environ)
    if any(problem := security_problem(environ)):
        raise EnvironmentProblem(*problem)
    for argument in arguments:
        namespace = _OWN_NAMESPACE.fullmatch(argument)
        if namespace and namespace[1].strip("/"):  # "/" alone is ROS's own default
            checked_namespace(namespace[1])
    put_right(environ)


def put_right(environ: MutableMapping[str, str]) -> None:
    """Gives logs and caches a place where there is no home that can be written to: service units have none.

    Raises EnvironmentProblem for a folder that was named and cannot be written to.
    """
    if not _writable(log_folder(environ)):
        named = next((name for name in ("ROS_LOG_DIR", "ROS_HOME") if environ.get(name)), "")
        if named:
            remedy = "unset it, or name another folder"
            raise EnvironmentProblem(f"{named}={environ[named]} cannot be written to", remedy)
        environ["ROS_LOG_DIR"] = str(_temporary("log"))
    if not environ.get("XDG_CACHE_HOME") and not _writable(_home(environ) / ".cache"):
        environ["XDG_CACHE_HOME"] = str(_temporary("cache"))


def log_folder(environ: MutableMapping[str, str]) -> Path:
    """Where logs go; as rcl finds it."""
    own, ros = environ.get("ROS_LOG_DIR"), environ.get("ROS_HOME")
    return Path(own) if own else Path(ros or _home(environ) / ".ros") / "log"


def origin_of(package: str) -> str:
    """The folder that a package would be imported from; "" if there is none. Imports nothing."""
    try:
        spec = util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return ""
    if spec is None:
        return ""
    if spec.origin:
        return str(Path(spec.origin).parent)
    return next(iter(spec.submodule_search_locations or ()), "")


def import_advice(package: str, environ: MutableMapping[str, str]) -> str:
    """What to do about a package that is there or should be, and cannot be imported."""
    origin = origin_of(package)
    if origin and not origin.startswith((sys.prefix, sys.base_prefix)):
        for part in filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)):
            if origin.startswith(part):
                return f"PYTHONPATH names {part}, and this Python cannot use it: unset PYTHONPATH, or take {part} out"
    return "run `make setup` in the repository"


def _check_domain(text: str) -> None:
    if text and not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_DOMAIN):
        raise EnvironmentProblem(
            f"ROS_DOMAIN_ID={text} is no domain", f"set it to a whole number, 0 … {HIGHEST_DOMAIN}, or unset it"
        )


def _check_middleware(environ: MutableMapping[str, str]) -> None:
    """rcl would end the process with a status of its own."""
    name = environ.get("RMW_IMPLEMENTATION", "")
    folders = [os.path.join(sys.prefix, "lib")]
    folders += environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders += [os.path.join(part, "lib") for part in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    if not name or any(os.path.exists(os.path.join(folder, f"lib{name}.so")) for folder in folders if folder):
        return
    if not find_library(name):  # of the system
        raise EnvironmentProblem(
            f"RMW_IMPLEMENTATION={name} is not installed here", "unset it, or source a ROS 2 that has it"
        )


def _home(environ: MutableMapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.devnull)  # below which nothing can be made


def _writable(folder: Path) -> bool:
    """Can files be made in there, or the folder itself?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary(name: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"flowact-{os.getuid()}" / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
