# SPDX-License-Identifier: Apache-2.0
"""ROS domains for tests: workers that run beside each other never share one, nor do two modules of a worker soon."""

from __future__ import annotations

import os
import random

HIGHEST = 101  # the ports of greater ones are those of any program

_left: list[int] = []


def own_domain() -> str:
    """A ROS_DOMAIN_ID that no other worker of this run is given, and this one not again before all were in use.

    Drawn by each worker for itself, two of them would meet in one domain in every other run: dozens of modules draw.
    """
    if not _left:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        _left.extend(range(1 + worker % HIGHEST, HIGHEST + 1, workers))
        random.SystemRandom().shuffle(_left)  # another run on this machine should not begin with the same one
    return str(_left.pop())
