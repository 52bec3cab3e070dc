# SPDX-License-Identifier: Apache-2.0
"""docs/motion.md tells of every control what the rig has."""

from __future__ import annotations

import re
from pathlib import Path

from flowact_ros.models.codec.motion import RIG

PAGE = Path(__file__).resolve().parents[2] / "docs" / "motion.md"


def test_the_table_is_the_rig() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (rad|fraction|amount) \| (\S+) \| (\S+) \| (\S+) \| .+ \|$", PAGE.read_text(), re.M
    )
    told = [(name, float(low), float(high), float(neutral)) for name, _, low, high, neutral in rows]
    assert told == [(c.name, c.low, c.high, c.neutral) for c in RIG]
