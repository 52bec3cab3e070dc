# SPDX-License-Identifier: Apache-2.0
"""What the benches' programs share: an order on stdin, records on stdout, one line for what went wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from flowact_ros.launcher.bringup import environment
from flowact_ros.launcher.supervisor import SupervisorError


def tell(record: dict[str, Any]) -> None:
    """One JSON object, a line, to whoever started the program."""
    print(json.dumps(record), flush=True)


def run_order(measure: Callable[[dict[str, Any], dict[str, str]], dict[str, Any]]) -> int:
    """Read an order, measure in a domain of our own, tell the result. Exit status: 0 done, 1 failed with `error`.

    measure: takes the order and the nodes' environment
    """
    order = json.loads(sys.stdin.readline())
    environ = environment(private=True)
    os.environ.update(environ)  # the same domain as the nodes
    try:
        tell(measure(order, environ))
        return 0
    except (SupervisorError, ValueError, OSError) as error:
        tell({"error": str(error).splitlines()[0]})
        return 1
