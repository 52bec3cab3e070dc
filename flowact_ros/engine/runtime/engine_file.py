# SPDX-License-Identifier: Apache-2.0
"""Engines of TensorRT on disk: a line of JSON that says what an engine is of, then the engine.

An engine runs on the kind of card and the version of TensorRT that it was built with. Both are in the name of the file
and in the file: one that was copied from another machine under a fitting name is not loaded either.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_LOG = logging.getLogger(__name__)
FORMAT = "flowact-engine-1"


@dataclass(frozen=True)
class EngineKey:
    """What an engine is of. Any other value of any field needs another engine.

    network: name of the module; tensorrt: its version; card: name and compute capability of the GPU; weights: hash of
    names and values; code: hash of what the weights are used for; shapes: of the inputs, with their types.
    """

    network: str
    tensorrt: str
    card: str
    weights: str
    code: str
    shapes: str

    def file(self, folder: Path) -> Path:
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:20]
        return folder / f"{self.network.lower()}-{digest}.engine"

    def difference(self, other: EngineKey) -> str:
        """The first field in which the two differ, in words, or nothing."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"its {field.name} is {theirs}, not {mine}"
        return ""


def read_engine(key: EngineKey, folder: Path) -> bytes | None:
    """The engine that was kept for `key`, or None: where there is none, and, with a line in the log, where the file is
    of something else or damaged.
    """
    path = key.file(folder)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _LOG.warning("the engine %s cannot be read (%s): it is built anew", path, error)
        return None
    problem = _problem(content, key)
    if problem:
        _LOG.warning("the engine %s is not loaded, %s: it is built anew", path, problem)
        return None
    return content.partition(b"\n")[2]


def _problem(content: bytes, key: EngineKey) -> str:
    """Why these bytes are not the engine of `key`, or nothing."""
    head, _, plan = content.partition(b"\n")
    try:
        card = json.loads(head)
        if card.pop("format") != FORMAT:
            return "it has another format"
        digest, found = card.pop("sha256"), EngineKey(**card)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it does not say what it is of"
    if hashlib.sha256(plan).hexdigest() != digest:
        return "it is damaged or truncated"
    return key.difference(found)


def keep_engine(key: EngineKey, folder: Path, plan: bytes) -> None:
    """Written whole or not at all; a folder that cannot be written costs a line in the log."""
    path = key.file(folder)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    card = {"format": FORMAT, **asdict(key), "sha256": hashlib.sha256(plan).hexdigest()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(json.dumps(card).encode() + b"\n")
                file.write(plan)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("an engine of TensorRT is not kept (%s): each start builds it anew", error)
