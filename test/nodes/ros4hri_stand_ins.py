# SPDX-License-Identifier: Apache-2.0
"""Packages of ROS4HRI are in no wheel: modules with their interfaces stand in for them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch, package: str, kind: str, **interfaces: Any) -> None:
    """As if the package were there with these messages or actions (kind: msg, action)."""
    module, inner = ModuleType(package), ModuleType(f"{package}.{kind}")
    vars(inner).update(interfaces)
    monkeypatch.setitem(sys.modules, package, sys.modules.get(package, module))
    monkeypatch.setitem(sys.modules, f"{package}.{kind}", inner)
