# SPDX-License-Identifier: Apache-2.0
"""Turn OpenAI's Whisper checkpoint into the weights of the `whisper` audio backend, once.

    python -m flowact_ros.models.convert_whisper tiny.en.pt whisper_tiny_en.safetensors
    python -m flowact_ros.models.convert_whisper large-v2.pt large_v2.safetensors --model large-v2 --speech *.wav

The file must be OpenAI's, byte for byte: its SHA-256 is part of the address OpenAI publishes it under. It is opened
in a child process with `weights_only`, so that a hostile pickle meets neither this process nor code to run. How large
the encoder is, is read from it. Tiny's features have the space that the shipped weights were trained in; those of a
larger encoder are brought to mean 0 and deviation 1 on the speech that is given.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from flowact_ros.models.checkpoint import CheckpointError, save_weights, weights_dir
from flowact_ros.models.whisper_encoder import KIND, WhisperConfig, WhisperEncoder
from flowact_ros.timebase import ENCODER_RATE, ENCODER_SAMPLES_PER_FRAME, FEATURE_DIM

OFFICIAL = {
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
}
HEAD = 64  # width of every Whisper's attention heads
LEAST_SPEECH_S = 10.0  # that a feature's mean and deviation are measured on
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


def read_official(path: Path, expected: str, timeout: float = 300.0) -> dict[str, Tensor]:
    """Encoder tensors of the OpenAI file at `path`, `encoder.` dropped from the names.

    Raises CheckpointError when the file is missing, its SHA-256 is not `expected`, or it is no Whisper checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give OpenAI's file, such as tiny.en.pt")
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


def sizes_of(state: dict[str, Tensor], name: str) -> WhisperConfig:
    """Sizes of an encoder from its tensors, all blocks but the last kept. Raises CheckpointError for another net."""
    try:
        width, mels, _ = state["conv1.weight"].shape
        positions = len(state["positional_embedding"])
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        return WhisperConfig(width=width, heads=width // HEAD, depth=blocks - 1, mels=mels, positions=positions)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{name} holds no encoder of Whisper ({type(error).__name__}: {error})") from None


def convert(
    source: Path | str,
    target: Path | str,
    *,
    expected: str = OFFICIAL["tiny.en"],
    config: WhisperConfig | None = None,
    space: dict[str, Tensor] | None = None,
    speech: Sequence[np.ndarray] = (),
) -> WhisperEncoder:
    """Write `target` (safetensors and card) from OpenAI's `source` and return the encoder.

    config: sizes, by default those of the file. space: {"feature_mean", "feature_std"}, each [width]; by default, of an
    encoder as wide as tiny those of the shipped embedded encoder, so that both backends speak to one denoiser, of
    another what is measured on `speech`, float32 [n] at 16 kHz each.
    """
    source = Path(source)
    state = read_official(source, expected)
    config = config or sizes_of(state, source.name)
    encoder = WhisperEncoder(config)
    if space is None and config.width == FEATURE_DIM:
        space = shipped_space()
    state.update(space or {name: encoder.state_dict()[name] for name in ("feature_mean", "feature_std")})
    own = encoder.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise CheckpointError(f"{source.name} lacks encoder.{name}")
        if state[name].shape != tensor.shape:
            got = tuple(state[name].shape)
            raise CheckpointError(f"{source.name}: encoder.{name} is {got}, expected {tuple(tensor.shape)}")
    encoder.load_state_dict({name: state[name].float() for name in own})
    encoder = encoder.eval().requires_grad_(False)
    if space is None:
        encoder.load_state_dict(measured_space(encoder, speech), strict=False)
    card = {"source": source.name, "source_sha256": expected, "licence": "MIT (OpenAI)"}
    save_weights(target, encoder, kind=KIND, config=config, card=card, dtype=torch.float32)
    return encoder


@torch.inference_mode()
def measured_space(encoder: WhisperEncoder, speech: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Mean and deviation of each of an encoder's numbers on speech float32 [n] at 16 kHz, heard as a stream hears it.

    Raises CheckpointError for less than 10 s of it.
    """
    hop = 12 * ENCODER_SAMPLES_PER_FRAME  # a chunk
    window = encoder.context_samples + hop + encoder.lookahead_samples
    parts = [torch.from_numpy(pcm).unfold(0, window, hop) for pcm in speech if len(pcm) >= window]
    seconds = sum(len(part) for part in parts) * hop / ENCODER_RATE
    if seconds < LEAST_SPEECH_S:
        raise CheckpointError(
            f"an encoder {encoder.width} wide needs {LEAST_SPEECH_S:.0f} s of speech to measure its features on, in "
            f"pieces of {window / ENCODER_RATE:.1f} s or more; {seconds:.0f} s were given (--speech FILE.wav ...)"
        )
    features = torch.cat([encoder.raw(piece[None])[0] for part in parts for piece in part])
    return {"feature_mean": features.mean(0), "feature_std": features.std(0).clamp_min(1e-3)}


def shipped_space() -> dict[str, Tensor]:
    """Mean and standard deviation of the feature space that the shipped weights were trained in."""
    path = weights_dir() / "audio_encoder.safetensors"
    try:
        tensors = load_file(str(path))
        return {name: tensors[name].float() for name in ("feature_mean", "feature_std")}
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path.name} holds no feature space ({error}); restore it") from None


def main(argv: list[str] | None = None) -> int:
    """0, or 1 after one line on what is wrong."""
    from flowact_ros.media.errors import MediaError
    from flowact_ros.media.resample import resample
    from flowact_ros.media.wav import read_audio

    parser = argparse.ArgumentParser(description="Convert OpenAI's Whisper for the whisper audio backend.")
    parser.add_argument("source", type=Path, help="OpenAI's file, such as tiny.en.pt")
    parser.add_argument("target", type=Path, help="safetensors file to write; a .json card goes beside it")
    parser.add_argument("--model", default="tiny.en", choices=OFFICIAL, help="which it is (default: tiny.en)")
    parser.add_argument(
        "--speech", nargs="+", default=[], metavar="FILE", help="recorded speech, for models wider than tiny"
    )
    arguments = parser.parse_args(argv)
    try:
        sounds = [read_audio(path) for path in arguments.speech]
        speech = [resample(pcm, rate, ENCODER_RATE) for pcm, rate in sounds]
        encoder = convert(arguments.source, arguments.target, expected=OFFICIAL[arguments.model], speech=speech)
    except (CheckpointError, MediaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.target}: {sum(p.numel() for p in encoder.parameters()):,} parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
