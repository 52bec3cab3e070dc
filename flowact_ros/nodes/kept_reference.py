# SPDX-License-Identifier: Apache-2.0
"""The character that `set_reference` chose, kept for the process that takes over after a crash.

It lies in the folder of the supervisor (or of the launch file), which is gone when that ends: a new start begins with
the character of the parameters. It is taken away while it is being tried, so that a picture which brings the process
down does so once.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from flowact_ros.launcher.supervisor import STATE_FOLDER_VARIABLE


class KeptReference:
    """Of one node; does nothing where nobody keeps a folder for it."""

    def __init__(self, node_name: str) -> None:
        folder = os.environ.get(STATE_FOLDER_VARIABLE, "")
        self._path = Path(folder, f"{node_name.strip('/').replace('/', '.')}-reference.npz") if folder else None

    def keep(self, rgb: np.ndarray, name: str) -> None:
        """uint8 [H, W, 3] and its id. Raises OSError."""
        if self._path is not None:
            part = self._path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, rgb=rgb, name=np.array(name))
            part.replace(self._path)

    def take(self) -> tuple[np.ndarray, str] | None:
        """What was kept, once; None if nothing was, or it cannot be read."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                rgb, name = kept["rgb"], str(kept["name"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            rgb, name = None, ""
        self._path.unlink(missing_ok=True)
        return None if rgb is None else (rgb, name)
