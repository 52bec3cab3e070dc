# SPDX-License-Identifier: Apache-2.0
"""Where what was converted for this machine is kept between starts."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/flowact_ros`, by default `~/.cache/flowact_ros`. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowact_ros"
