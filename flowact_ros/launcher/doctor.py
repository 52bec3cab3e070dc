# SPDX-License-Identifier: Apache-2.0
"""`flowact doctor`: what is installed and usable on this machine, and what to do about each problem.

Exit status 1 if anything is wrong that keeps the avatar from running.
"""

from __future__ import annotations

import argparse
import json as json_module
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from flowact_ros.launcher.doctor_checks import ERROR, OK, WARNING, Check, checks
from flowact_ros.launcher.isolation import isolated


def run(json: bool = False, found: Iterable[Check] | None = None) -> int:
    """Prints the checks as lines, or as one JSON object; 1 if one of them is an error."""
    results = []
    for check in found if found is not None else isolated(checks()):
        results.append(check)
        if not json:
            mark = {OK: "ok     ", WARNING: "WARNING", ERROR: "ERROR  "}[check.level]
            print(f"{mark} {check.name + ':':<14} {check.found}")
            if check.remedy:
                print(f"{'':22} -> {check.remedy}")
    errors = sum(check.level == ERROR for check in results)
    warnings = sum(check.level == WARNING for check in results)
    if json:
        print(json_module.dumps({"ok": not errors, "checks": [asdict(check) for check in results]}, indent=1))
    else:
        print(f"{errors} errors, {warnings} warnings")
    return 1 if errors else 0


def main(argv: Sequence[str] | None = None) -> int:
    """`flowact doctor [--json]`."""
    parser = argparse.ArgumentParser(
        prog="flowact doctor",
        description="What is installed on this machine, and what to do about each problem.",
        epilog="examples:\n  flowact doctor\n  flowact doctor --json | python -m json.tool",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return run(json=parser.parse_args(argv).json)


if __name__ == "__main__":
    sys.exit(main())
