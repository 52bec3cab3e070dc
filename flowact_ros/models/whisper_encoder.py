# SPDX-License-Identifier: Apache-2.0
"""Audio backend `whisper`: the encoder of OpenAI's Whisper on a sliding window, pooled to 25 features a second.

Whisper (arXiv 2212.04356, section 2.2) hears 30 s at once. A live stream has about two seconds of past and 80 ms of
future, so this encoder takes whatever window it is given, slices the table of positions to its length, and uses a
fixed log-mel reference (see `mel`). Its 50 tokens a second are averaged in pairs: tokens 2i and 2i + 1 are centred a
quarter and three quarters into frame i.

Module names follow OpenAI's checkpoint, so that `convert_whisper` only drops the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowact_ros.models.checkpoint import CheckpointError, load_onto, read_card
from flowact_ros.models.mel import FLOOR, N_FFT, N_MELS, AudioInputError, LogMel, check_pcm
from flowact_ros.timebase import ENCODER_SAMPLES_PER_FRAME, FEATURE_DIM

KIND = "whisper_encoder"
LOOKAHEAD = 1120  # samples (70 ms): leaves 10 ms of the 80 ms budget to the resampler before the encoder
LEAD = ENCODER_SAMPLES_PER_FRAME // 4  # a frame's first token is centred a quarter into it
START = (
    ENCODER_SAMPLES_PER_FRAME + LEAD - N_FFT // 2
)  # the window's frame 0 gives way to the first mel window
TAIL = 20  # columns of silence after the end: Whisper knows sound that ends in silence, not sound that breaks off
CLIP = 6.0  # standard deviations; a handful of Whisper's channels spike far beyond
#: Published sizes: width -> heads and blocks, of tiny, base, small, medium and large.
SIZES = {384: (6, 4), 512: (8, 6), 768: (12, 12), 1024: (16, 24), 1280: (20, 32)}


@dataclass(frozen=True, kw_only=True, slots=True)
class WhisperConfig:
    """Sizes of a Whisper encoder; the defaults are `tiny` and `tiny.en`."""

    width: int = FEATURE_DIM
    heads: int = 6
    depth: int = (
        3  # blocks kept: the third reads visemes and loudness better than the fourth (see `distill_audio`)
    )
    mels: int = N_MELS  # bands of the spectrogram: 128 of large-v3, 80 of all others
    positions: int = 1500  # rows of the checkpoint's positional table (20 ms each)
    context_frames: int = 50  # video frames of past sound in a window (2 s)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"whisper width {self.width} is not a multiple of its {self.heads} heads")


class Attention(nn.Module):
    """Multi-head self-attention; Whisper's keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, asking: Tensor) -> Tensor:
        """All tokens [B, L, D] and those of them whose answer is wanted [B, A, D] -> [B, A, D]."""
        projected = self.query(asking), self.key(x), self.value(x)
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projected)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block of the encoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn_ln = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, wanted: slice = slice(None)) -> Tensor:
        """[B, L, D] -> the same of the `wanted` tokens; the others are only attended to."""
        normed = self.attn_ln(x)
        x = x[:, wanted] + self.attn(normed, normed[:, wanted])
        return x + self.mlp(self.mlp_ln(x))


class WhisperEncoder(nn.Module):
    """[B, context_samples + 640*n + lookahead_samples] at 16 kHz -> [B, n, width], stateless, unit variance a channel.

    Feature i belongs to the frame whose samples are pcm[context + 640*i : context + 640*(i + 1)]. Features are taken
    after `config.depth` blocks and normalised by constants kept with the weights, the same that the embedded encoder
    was distilled under. Raises AudioInputError for a wrong length, NaN, or a window longer than the position table.
    """

    lookahead_samples = LOOKAHEAD

    @property
    def width(self) -> int:
        """Numbers of a feature."""
        return self.config.width

    def __init__(self, config: WhisperConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WhisperConfig()
        self.clip = CLIP
        self.context_samples = config.context_frames * ENCODER_SAMPLES_PER_FRAME
        self.mel = LogMel(config.mels)
        self.conv1 = nn.Conv1d(config.mels, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(config.positions, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.register_buffer("feature_mean", torch.zeros(config.width))
        self.register_buffer("feature_std", torch.ones(config.width))

    def tokens(self, mel: Tensor, wanted: slice = slice(None)) -> Tensor:
        """Log-mel [B, mels, M] -> activations after the last block kept, [B, M // 2, width], 50 a second.

        wanted: those of them that are computed and returned.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        if x.shape[1] > self.config.positions:
            raise AudioInputError(
                f"window of {x.shape[1]} tokens; this encoder knows {self.config.positions} positions"
            )
        x = x + self.positional_embedding[: x.shape[1]]
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return last(x, wanted)

    def raw(self, pcm: Tensor) -> Tensor:
        """Features before normalisation, [B, n, width]."""
        n = check_pcm(
            pcm, self.context_samples + self.lookahead_samples, ENCODER_SAMPLES_PER_FRAME, "whisper encoder"
        )
        # Column m of the mel is centred at START + 160*m + 200, so token 0 is centred LEAD into the window's frame 1.
        mel = self.mel(pcm[:, START:])
        mel = F.pad(mel, (0, TAIL + mel.shape[-1] % 2), value=(FLOOR + 4.0) / 4.0)
        first = 2 * (self.config.context_frames - 1)
        return self.tokens(mel, slice(first, first + 2 * n)).unflatten(1, (n, 2)).mean(2)

    def forward(self, pcm: Tensor) -> Tensor:
        return ((self.raw(pcm) - self.feature_mean) / self.feature_std).clamp(-self.clip, self.clip)


def load_whisper(path: Path | str, device: torch.device | str = "cpu") -> WhisperEncoder:
    """The encoder converted by `convert_whisper`, on `device`, in eval mode; its card says how large it is.

    Raises CheckpointError for missing or damaged files.
    """
    sizes: Any = read_card(path).get("config")  # whatever a foreign card holds
    try:
        config = WhisperConfig(**sizes)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{Path(path).name}: its card holds no Whisper sizes ({error}); convert it again"
        ) from None
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    load_onto(path, encoder, kind=KIND, config=sizes, device=device)
    return encoder.eval().requires_grad_(False)
