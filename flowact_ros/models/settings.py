# SPDX-License-Identifier: Apache-2.0
"""Overrides of a preset as a command line tells them: `--set dit.width=1536 schedule.steps=8`."""

from __future__ import annotations

from typing import Any

import yaml


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """["a.b=1", "a.c=x"] -> {"a": {"b": 1, "c": "x"}}; values as in YAML. Raises ValueError for what is no pair."""
    tree: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {pair!r} is no KEY=VALUE; e.g. --set schedule.steps=8")
        *groups, name = key.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(
                    f"--set {pair!r}: {group!r} was given a value before; it cannot hold {name!r}"
                )
        place[name] = yaml.safe_load(value)
    return tree


def pairs_of(tree: dict[str, Any], before: str = "") -> list[str]:
    """The pairs that `settings_of` makes such a tree of."""
    pairs: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            pairs += pairs_of(value, f"{before}{key}.")
        else:
            pairs.append(f"{before}{key}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}")
    return pairs
