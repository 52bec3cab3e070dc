# SPDX-License-Identifier: Apache-2.0
"""A running server; and the helpers beside these tests become importable, whatever pytest's import mode."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowact_ros.kiosk.server import KioskServer

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def server():
    with KioskServer(port=0) as running:
        yield running
