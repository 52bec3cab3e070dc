# SPDX-License-Identifier: Apache-2.0
"""Turn OpenAI's Whisper checkpoint into the weights of the `whisper` audio backend, once.

    python -m flowact_ros.models.convert_whisper tiny.en.pt whisper_tiny_en.safetensors

The file must be OpenAI's, byte for byte: its SHA-256 is part of the address OpenAI publishes it under. It is opened
in a child process with `weights_only`, so that a hostile pickle meets neither this process nor code to run.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from flowact_ros.models.checkpoint import CheckpointError, save_weights, weights_dir
from flowact_ros.models.whisper_encoder import KIND, WhisperConfig, WhisperEncoder

OFFICIAL = {"tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"}
CHILD = """
import sys, torch
from safetensors.torch import save_file
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)["model_state_dict"]
save_file({k[8:]: v.contiguous() for k, v in state.items() if k.startswith("encoder.")}, sys.argv[2])
"""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_official(path: Path, expected: str, timeout: float = 300.0) -> dict[str, torch.Tensor]:
    """Encoder tensors of the OpenAI file at `path`, `encoder.` dropped from the names.

    Raises CheckpointError when the file is missing, its SHA-256 is not `expected`, or it is no Whisper checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give OpenAI's tiny.en.pt")
    found = sha256(path)
    if found != expected:
        raise CheckpointError(
            f"{path.name} has SHA-256 {found[:16]}..., OpenAI's file has {expected[:16]}...: truncated or another model"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "encoder.safetensors"
        command = [sys.executable, "-I", "-c", CHILD, str(path), str(out)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise CheckpointError(f"{path.name} could not be read within {timeout:.0f} s") from None
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckpointError(f"{path.name} is not a Whisper checkpoint: {reason}")
        try:
            return load_file(str(out))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path.name} gave no readable tensors ({error})") from None


def convert(
    source: Path | str,
    target: Path | str,
    *,
    expected: str = OFFICIAL["tiny.en"],
    config: WhisperConfig | None = None,
    space: dict[str, torch.Tensor] | None = None,
) -> WhisperEncoder:
    """Write `target` (safetensors and card) from OpenAI's `source` and return the encoder.

    space: {"feature_mean", "feature_std"}, each [width]; by default those of the shipped embedded encoder, so that
           both backends speak to one denoiser.
    """
    source, config = Path(source), config or WhisperConfig()
    state = read_official(source, expected)
    encoder = WhisperEncoder(config)
    state.update(space or shipped_space())
    own = encoder.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise CheckpointError(f"{source.name} lacks encoder.{name}")
        if state[name].shape != tensor.shape:
            got = tuple(state[name].shape)
            raise CheckpointError(f"{source.name}: encoder.{name} is {got}, expected {tuple(tensor.shape)}")
    encoder.load_state_dict({name: state[name].float() for name in own})
    card = {"source": source.name, "source_sha256": expected, "licence": "MIT (OpenAI)"}
    save_weights(target, encoder, kind=KIND, config=config, card=card, dtype=torch.float32)
    return encoder.eval().requires_grad_(False)


def shipped_space() -> dict[str, torch.Tensor]:
    """Mean and standard deviation of the feature space that the shipped weights were trained in."""
    path = weights_dir() / "audio_encoder.safetensors"
    try:
        tensors = load_file(str(path))
        return {name: tensors[name].float() for name in ("feature_mean", "feature_std")}
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path.name} holds no feature space ({error}); restore it") from None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Convert OpenAI's tiny.en.pt for the whisper audio backend.")
    parser.add_argument("source", type=Path, help="OpenAI's tiny.en.pt")
    parser.add_argument("target", type=Path, help="safetensors file to write; a .json card goes beside it")
    arguments = parser.parse_args(argv)
    try:
        encoder = convert(arguments.source, arguments.target)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.target}: {sum(p.numel() for p in encoder.parameters()):,} parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
