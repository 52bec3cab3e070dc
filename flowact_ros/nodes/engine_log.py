# SPDX-License-Identifier: Apache-2.0
"""What the rooms without ROS log, in the log of the node that runs them: on /rosout, under its name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_ROOMS = "flowact_ros"


class _ToNode(logging.Handler):
    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy remembers the severity of each line that logs: each has a line of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def forward(logger: Any) -> Callable[[], None]:
    """Sends the rooms' lines to a node's logger until the function that it returns is called."""
    rooms, handler = logging.getLogger(_ROOMS), _ToNode(logger)
    level = rooms.level
    rooms.addHandler(handler)
    rooms.setLevel(logging.INFO)

    def end() -> None:
        rooms.removeHandler(handler)
        rooms.setLevel(level)

    return end
