# SPDX-License-Identifier: Apache-2.0
"""The generator's YAML file: settings of the live stream, and overrides of the model preset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.nodes.params import ParameterError


def engine_config(path: str) -> tuple[Any, dict[str, Any]]:
    """(SessionConfig, overrides of the model preset) from the `session:` and `model:` parts of a YAML file.

    Defaults for an empty path. Raises ParameterError for a file that cannot be read and for unknown keys.
    """
    if not path:
        return SessionConfig(), {}
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"engine config {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or set(content) - {"session", "model"}:
        raise ParameterError(f"engine config {path}: the keys are 'session' and 'model', settings below them")
    session, model = content.get("session") or {}, content.get("model") or {}
    if not isinstance(session, dict) or not isinstance(model, dict):
        raise ParameterError(f"engine config {path}: 'session' and 'model' must hold names with values")
    known = {field.name for field in fields(SessionConfig)}
    unknown = sorted(set(session) - known)
    if unknown:
        hint = ", ".join(sorted(known))
        raise ParameterError(
            f"engine config {path}: unknown session.{', session.'.join(unknown)}; known: {hint}"
        )
    try:
        return SessionConfig(**session), model
    except (TypeError, ValueError) as error:
        raise ParameterError(f"engine config {path}: {error}") from None
