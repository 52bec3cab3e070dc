# SPDX-License-Identifier: Apache-2.0
"""Latents of the shipped characters, encoded once: a start need not encode, nor does a change of character.

`characters.safetensors` beside the VAE's weights: bf16 `[C, h, w]` by `picture_id`, and in the metadata which VAE they
belong to. Written by `flowact train export-characters`; those of another VAE are not used.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_LOG = logging.getLogger(__name__)
NAME = "characters.safetensors"


def vae_id(folder: Path) -> str:
    """What tells the VAE in `folder` from others: the SHA-256 of its card, which every export writes anew."""
    return hashlib.sha256((folder / "vae.json").read_bytes()).hexdigest()


def save_shelf(folder: Path, latents: Mapping[str, Tensor]) -> Path:
    """Write latents `[C, h, w]` by picture id, for the VAE in `folder`."""
    path = folder / NAME
    partial = path.with_name(NAME + ".partial")
    tensors = {name: latent.to(torch.bfloat16).contiguous() for name, latent in latents.items()}
    save_file(tensors, str(partial), metadata={"vae": vae_id(folder)})
    partial.chmod(0o644)
    partial.replace(path)
    return path


def load_shelf(folder: Path) -> dict[str, Tensor]:
    """Latents by picture id; none where there is no shelf, or a damaged one or another VAE's (said in the log)."""
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        with safe_open(str(path), "pt") as shelf:
            if (shelf.metadata() or {}).get("vae") != vae_id(folder):
                _LOG.warning("%s belongs to another VAE: characters are encoded when they are shown", path.name)
                return {}
            return {name: shelf.get_tensor(name) for name in shelf.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        _LOG.warning("%s cannot be read (%s): characters are encoded when they are shown", path.name, error)
        return {}
