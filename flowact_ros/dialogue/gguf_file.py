# SPDX-License-Identifier: Apache-2.0
"""A GGUF file as a folder of safetensors, made once: dequantising takes half a minute, reading the result a second."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from flowact_ros.engine.runtime.cache import cache_folder

_LOG = logging.getLogger(__name__)
_DONE = "complete"  # a file that is written last


def converted(path: Path) -> Path:
    """The folder with the model of a GGUF file, kept in the user's cache under the file's name and content."""
    folder = cache_folder() / "language_models" / f"{path.stem}-{_digest(path)[:16]}"
    if (folder / _DONE).is_file():
        return folder
    _LOG.info("converting %s, once", path.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        _convert(path, work)
        (work / _DONE).touch()
        shutil.rmtree(folder, ignore_errors=True)  # of a conversion that did not end
        try:
            os.replace(work, folder)
        except OSError:
            if not (folder / _DONE).is_file():  # another process was quicker otherwise
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # It is plain floats now, and would otherwise refuse to be written.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    # 16 bits hold what 4 to 8 bits a weight did.
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
