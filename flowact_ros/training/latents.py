# SPDX-License-Identifier: Apache-2.0
"""Precomputed training material of the denoiser: what the frozen networks make of the rendered clips.

    flowact train latents --data runs/data/clips --out runs/latents

One .pt a clip: `latents` f16 [N, C, h, w] (normalised), `reference` f16 [C, h, w] (the character's neutral picture),
`audio` f16 [N, 4, 384], `weight` f16 [N, h, w] (loss weight of each latent cell), `text` int [N],
`opening` f32 [4N]; `movement` f32 [N, D] and `kind` int [N] (see `training.movement`); `words` f16 [K, tokens, 384]:
embeddings of the clip's instructions, which `text` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowact_ros.data.characters import NAMED, Identity, identity_from_seed, neutral, render
from flowact_ros.data.store import JpegFrames, StoredClip
from flowact_ros.engine.audio_window import AudioWindow
from flowact_ros.models.encoding import encode, encode_image
from flowact_ros.models.vae import VAE
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training.losses import box_mask
from flowact_ros.training.movement import kind_of, movements

MOUTH_WEIGHT, EYE_WEIGHT = 7.0, 4.0  # of cells the feature covers, beside 1 everywhere


def to_video(frames: np.ndarray) -> Tensor:
    """uint8 [T, 3, H, W] -> float [1, T, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).float().unsqueeze(0) / 127.5 - 1.0


def identity_of(name: str) -> Identity:
    """The character of a stored clip: a name, or "seed:N"."""
    return NAMED[name] if name in NAMED else identity_from_seed(int(name.rsplit(":", 1)[-1]))


@torch.no_grad()
def encode_frames(vae: VAE, frames: np.ndarray | JpegFrames, steps: int, piece: int = 8) -> Tensor:
    """uint8 [T, 3, H, W] -> normalised latents [T // 4, C, h, w] on the CPU, in pieces that stay in the cache."""
    weight = next(vae.parameters())
    usable = len(frames) - len(frames) % FRAMES_PER_LATENT
    parts, state = [], None
    for start in range(0, usable, piece):
        video = to_video(frames[start : min(start + piece, usable)]).to(weight)
        latents, state = encode(vae, video, steps, state)
        parts.append(latents[0].float().cpu())
    return torch.cat(parts)


def reference_latent(vae: VAE, identity: Identity, size: int, steps: int) -> Tensor:
    """Latent [C, h, w] of the character's neutral picture."""
    with torch.no_grad():
        picture = to_video(render(identity, neutral(1), size=size).numpy())[0]
        return encode_image(vae, picture.to(next(vae.parameters())), steps)[0].float().cpu()


def cell_weights(boxes: np.ndarray, size: int, stride: int) -> Tensor:
    """boxes float [T, 4, 4] -> loss weights [T // 4, size / stride, size / stride], mean 1 over each latent."""
    count = len(boxes) // FRAMES_PER_LATENT
    masks = box_mask(torch.from_numpy(np.array(boxes[: count * FRAMES_PER_LATENT, :3])), size, size).float()
    cover = F.avg_pool2d(masks, stride).unflatten(0, (count, FRAMES_PER_LATENT)).mean(1)  # [N, 3, h, w]
    weight = 1 + MOUTH_WEIGHT * cover[:, 0] + EYE_WEIGHT * cover[:, 1:].amax(1)
    return weight / weight.mean((1, 2), keepdim=True)


def prepare(
    vae: VAE,
    window: AudioWindow,
    text_encoder: object,
    clips: Sequence[StoredClip],
    out: Path,
    *,
    steps: int,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Write the latents of `clips` below `out`; clips already there are left alone. `vae` computes in its own dtype.

    steps: gradient steps on each latent (`models.encoding`).
    shard: (i, n) does every n-th clip from the i-th on, so that n processes share the work.
    """
    out.mkdir(parents=True, exist_ok=True)
    references: dict[str, Tensor] = {}
    for number, clip in list(enumerate(clips))[shard[0] :: shard[1]]:
        path = out / f"{clip.path.name}.pt"
        partial = path.with_suffix(".partial")
        if path.exists():
            continue
        name, size = clip.info["identity"], clip.info["size"]
        if name not in references:
            references[name] = reference_latent(vae, identity_of(name), size, steps)
        latents = encode_frames(vae, clip.array("frames"), steps)
        features = window.whole_features(np.array(clip.array("pcm"), dtype=np.float32))
        count = len(latents)
        spoken = [clip.instruction_at(FRAMES_PER_LATENT * k) for k in range(count)]
        texts = sorted(set(spoken))
        torch.save(
            {
                "identity": name,
                "latents": latents.half(),
                "reference": references[name].half(),
                "audio": features[: count * FRAMES_PER_LATENT].unflatten(0, (count, FRAMES_PER_LATENT)).half(),
                "weight": cell_weights(clip.array("boxes"), size, vae.config.spatial_stride).half(),
                "text": torch.tensor([texts.index(text) for text in spoken]),
                "words": text_encoder.encode(texts).half(),  # type: ignore[attr-defined]
                "movement": movements(clip.array("controls")),
                "kind": torch.tensor([kind_of(text) for text in spoken]),
                "opening": torch.from_numpy(np.array(clip.array("opening")[: count * FRAMES_PER_LATENT])),
            },
            partial,
        )
        partial.replace(path)  # a run that is ended here leaves no half of a clip
        print(f"{number + 1}/{len(clips)} {path}", flush=True)


def motion_deviation(out: Path) -> float:
    """Root mean square of (latent - reference) over prepared clips: what `ModelConfig.motion_scale` should be."""
    total, count = 0.0, 0
    for path in sorted(out.glob("[0-9]*.pt")):
        clip = torch.load(path, weights_only=True)
        difference = clip["latents"].float() - clip["reference"].float()
        total, count = total + float(difference.square().sum()), count + difference.numel()
    return (total / max(1, count)) ** 0.5


def load_prepared(*folders: Path) -> tuple[list[dict[str, Tensor]], Tensor]:
    """All prepared clips below `folders`, and the text embeddings [count, tokens, 384] that their `text` counts."""
    paths = [path for folder in folders for path in sorted(folder.glob("[0-9]*.pt"))]
    if not paths:
        named = ", ".join(map(str, folders))
        raise FileNotFoundError(f"{named} holds no prepared clips; make them with `flowact train latents`")
    clips, words, count = [], [], 0
    for path in paths:
        clip = torch.load(path, weights_only=True)
        clip["text"] = clip["text"] + count
        words.append(clip.pop("words").float())
        count += len(words[-1])
        clips.append(clip)
    return clips, torch.cat(words)
