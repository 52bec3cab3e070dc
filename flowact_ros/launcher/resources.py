# SPDX-License-Identifier: Apache-2.0
"""Where installed files are: configuration and the shipped sentence. No ROS in here."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = "flowact_ros"
FIRST_PORT = 8620  # of the page, as in config/flowact.yaml; several avatars' pages are on this one and the next ones
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def config_file(name: str) -> Path:
    """A file of `config/`: of the source tree if this is one, else of the installed share. Raises FileNotFoundError."""
    shares = [
        Path(part) / "share" / PACKAGE
        for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        if part
    ]
    candidates = [
        Path(__file__).resolve().parents[2] / "config" / name,
        *(share / "config" / name for share in shares),
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"config/{name} is not installed (looked in {', '.join(str(p.parent) for p in candidates)})"
    )


def use_image_profile() -> None:
    """Gives this process the Fast DDS profile for large images, unless the user has one; before rclpy is initialised.

    Only for a process that sends images: its shared memory takes 18 MB of /dev/shm (see config/fastdds.xml).
    """
    try:
        profile = str(config_file("fastdds.xml"))
    except FileNotFoundError:
        return  # images go through UDP then: slower, and `flowact doctor` says so
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, profile))
