# SPDX-License-Identifier: Apache-2.0
"""What SROS 2 needs of the environment, looked at before a node fails for it in the middleware."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

ENABLE = "ROS_SECURITY_ENABLE"
KEYSTORE = "ROS_SECURITY_KEYSTORE"


def security_problem(environ: Mapping[str, str]) -> tuple[str, str]:
    """(what is wrong with the security settings, what to do about it); two empty texts if nothing is."""
    if environ.get(ENABLE) != "true":
        return "", ""
    if _of_wheels():
        return (
            f"{ENABLE}=true, but the ROS 2 of this environment is made of wheels, whose Fast DDS has no security",
            "source a ROS 2 from packages and run `make setup` again, or unset it",
        )
    keystore = environ.get(KEYSTORE, "")
    if not (keystore and (Path(keystore) / "enclaves").is_dir()):
        return (
            f"{ENABLE}=true, but {KEYSTORE}={keystore or '(unset)'} is no keystore",
            "make one as docs/security.md shows, and name it, or unset the first",
        )
    return "", ""


def _of_wheels() -> bool:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return any((Path(sys.prefix) / "lib" / version / "site-packages").glob("ros_*.libs"))
