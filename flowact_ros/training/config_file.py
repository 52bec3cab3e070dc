# SPDX-License-Identifier: Apache-2.0
"""`flowact train STAGE --config FILE`: options of a stage from a YAML file, before those of the command line.

Keys are the names of options; `set` holds overrides of the preset, in groups. A list gives several values, true a
flag. What the command line tells, too, wins.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from flowact_ros.models.settings import pairs_of


def with_file(argv: list[str]) -> list[str]:
    """The command line with the options of the file that it names. Raises ValueError, OSError for a bad file."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    found, rest = finder.parse_known_args(argv)
    if found.config is None:
        return argv
    try:
        content = yaml.safe_load(found.config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{found.config} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{found.config} holds no options; write lines such as `lr: 0.0002`")
    return [*rest[:1], *(word for name, value in content.items() for word in _words(name, value)), *rest[1:]]


def _words(name: str, value: Any) -> list[str]:
    if name == "set" and isinstance(value, dict):
        return ["--set", *pairs_of(value)]
    if value is True:
        return [f"--{name}"]
    values = value if isinstance(value, list) else [value]
    return [f"--{name}", *(str(v) for v in values)]
