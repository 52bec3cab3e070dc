# SPDX-License-Identifier: Apache-2.0
"""Clips of drawn characters as latents of a spatial preset's VAE: what its denoiser learns from, twenty to a file.

    flowact data latents --vae runs/spatial --count 2000 --seconds 12 --out runs/data/latents
    flowact data latents --vae runs/spatial --count 64 --seconds 12 --split heldout --out runs/data/latents_heldout

`NNNNNNN.npz` (the number of its first clip) holds, float16, of n clips of N latents with P places and C channels:
`latents` [n, N, P, C], `stills` [n, N, P, C] (each latent's last frame as a picture that does not move), `neutral`
[n, P, C] (the character at rest), and what goes with them as in `data.performances`: `sound` [n, N, 4, 384], `text`
int16 [n, N] (in force in the middle of a latent), `texts` and `vectors` [m, tokens, D] (sound and text are as wide as
the preset's encoders make them). A file appears only when it is complete. All
files of a folder are of one VAE, whose weights lie beside them: latents mean nothing to another one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.characters import Identity, render
from flowact_ros.data.clips import ClipSpec, make_performance
from flowact_ros.data.performances import SPEAKING, Embed, Encode, encoder_of
from flowact_ros.engine.provenance import weights_hash
from flowact_ros.models.checkpoint import load_weights, read_card, shard_paths
from flowact_ros.models.codec.motion import neutral
from flowact_ros.models.codec.video_vae import VideoVAE, from_tokens, to_tokens
from flowact_ros.models.config import VideoConfig
from flowact_ros.timebase import FRAMES_PER_LATENT

PER_FILE = 20
PIECE = 6  # latents that are drawn and encoded at once
VAE = "vae.safetensors"  # in a folder of weights, and in a folder of latents


@dataclass(frozen=True)
class Latents:
    """Clips in memory; shapes as in the module docstring, with one table of texts for all. vae: hash of its weights."""

    latents: np.ndarray
    stills: np.ndarray
    neutral: np.ndarray
    sound: np.ndarray
    text: np.ndarray
    vectors: np.ndarray
    texts: list[str]
    vae: str

    def __len__(self) -> int:
        return len(self.latents)


ARRAYS = ("latents", "stills", "neutral", "sound")  # that are put one below the other as they are


def load_vae(folder: Path, video: VideoConfig) -> VideoVAE:
    """The VAE of a folder of weights or of latents. Raises CheckpointError for one that is missing or another's."""
    vae = VideoVAE(video.vae)
    load_weights(folder / VAE, vae, kind="vae", config=video)
    return vae.eval().requires_grad_(False)


def fitted(pictures: Tensor, video: VideoConfig) -> Tensor:
    """The middle rows of square pictures `[T, C, W, W]`, as many as the video is high."""
    top = (pictures.shape[2] - video.height) // 2
    return pictures[:, :, top : top + video.height]


def pictures_of(who: Identity, raw: Tensor, video: VideoConfig) -> Tensor:
    """Pictures `[T, 3, H, W]` in [-1, 1] of a character with motion `[T, K]` in its own units."""
    return fitted(render(who, raw, video.width).float() / 127.5 - 1, video)


@torch.no_grad()
def still(vae: VideoVAE, pictures: Tensor) -> Tensor:
    """Tokens `[N, P, C]` of pictures `[N, 3, H, W]` that do not move."""
    video = pictures[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1)
    return to_tokens(vae.encode(video)[0])[:, 0]


@torch.no_grad()
def encoded(vae: VideoVAE, video: VideoConfig, who: Identity, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and stills, `[N, P, C]` each, of a character with motion `[4 N, K]`, as of the module docstring."""
    latents, stills, state = [], [], None
    for part in raw.split(PIECE * FRAMES_PER_LATENT):
        pictures = pictures_of(who, part, video)
        made, state = vae.encode(pictures[None], state)
        latents.append(to_tokens(made)[0])
        stills.append(still(vae, pictures[FRAMES_PER_LATENT - 1 :: FRAMES_PER_LATENT]))
    return torch.cat(latents), torch.cat(stills)


@torch.no_grad()
def pictures_at(vae: VideoVAE, video: VideoConfig, tokens: Tensor, at: Sequence[int]) -> Tensor:
    """Pictures `[B, len(at), 3, H, W]` in [-1, 1]: the last frames of the latents `at` of tokens `[B, N, P, C]`."""
    planes = from_tokens(tokens, video.grid)
    frames = [vae.decode(planes[:, k : k + 1], vae.state_after(planes[:, :k]) if k else None)[0][:, -1] for k in at]
    return torch.stack(frames, 1).clamp(-1, 1)


class Writer:
    """Makes clips and writes them below `out`, file by file.

    vae: the folder of its weights; heard_by: the name of the encoder that `encode` asks. Raises CheckpointError for a
    VAE that cannot be loaded, ValueError for a folder that holds anything else than latents of it, heard alike.
    """

    def __init__(
        self, out: Path, vae: Path, video: VideoConfig, encode: Callable[[], tuple[Encode, Embed]], heard_by: str
    ) -> None:
        self.out, self.video, self.heard_by = out, video, heard_by
        self.vae = load_vae(vae, video)
        self.name = weights_hash([self.vae])
        self._check()
        self.encode, self.embed = encode()
        if not (out / VAE).exists():
            source = vae / VAE
            for path in (*shard_paths(source, read_card(source)), source.with_suffix(".json")):
                shutil.copyfile(path, out / path.name)

    def _check(self) -> None:
        for path in sorted(self.out.glob("[0-9]*.npz")):
            found = vae_of(path)
            if found is None:
                raise ValueError(f"{self.out} holds motion, not latents; give another folder as --out")
            if found != self.name:
                raise ValueError(
                    f"{self.out} holds latents of the VAE {found}, and --vae is {self.name}; give another folder as "
                    "--out"
                )
        heard_by = encoder_of(self.out)
        if heard_by not in (None, self.heard_by):
            raise ValueError(
                f"{self.out} holds latents heard by the {heard_by} encoder; with --audio-encoder {self.heard_by} give "
                "another folder as --out"
            )

    def write(self, first: int, count: int, split: str, seconds: float) -> None:
        """Makes the clips `first` … of a split; those that are there are not made again."""
        for start in range(first, first + count, PER_FILE):
            path, stop = self.out / f"{start:07d}.npz", min(start + PER_FILE, first + count)
            if path.exists() and _clips_in(path) >= stop - start:
                continue
            made = [make_performance(k, split, seconds, SPEAKING[k % len(SPEAKING)]) for k in range(start, stop)]
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, **self._arrays(made))
            partial.replace(path)
            print(f"{stop - first}/{count} {path}", flush=True)

    def _arrays(self, made: Sequence[ClipSpec]) -> dict[str, np.ndarray]:
        texts = sorted({words for spec in made for _, words in spec.performance.instruction})
        rows = [self._row(spec, texts) for spec in made]
        return {
            **{name: np.stack([row[name] for row in rows]).astype(np.float16) for name in ARRAYS},
            "text": np.stack([row["text"] for row in rows]),
            "vectors": np.stack([self.embed(words) for words in texts]).astype(np.float16),
            "texts": np.array(texts),
            "heard_by": np.array(self.heard_by),
            "vae": np.array(self.name),
        }

    def _row(self, spec: ClipSpec, texts: list[str]) -> dict[str, np.ndarray]:
        performance = spec.performance
        count = performance.frames // FRAMES_PER_LATENT
        raw = torch.as_tensor(performance.controls[: count * FRAMES_PER_LATENT], dtype=torch.float32)
        latents, stills = encoded(self.vae, self.video, spec.identity, raw)
        text = np.zeros(performance.frames, np.int16)
        for frame, words in performance.instruction:
            text[frame:] = texts.index(words)
        sound = self.encode(performance.pcm)[: count * FRAMES_PER_LATENT]
        return {
            "latents": latents.numpy(),
            "stills": stills.numpy(),
            "neutral": still(self.vae, pictures_of(spec.identity, neutral(1), self.video))[0].numpy(),
            "sound": sound.reshape(count, FRAMES_PER_LATENT, -1),
            "text": text[FRAMES_PER_LATENT // 2 : count * FRAMES_PER_LATENT : FRAMES_PER_LATENT],
        }


def vae_of(path: Path) -> str | None:
    """The hash of the VAE whose latents a file holds; None for a file of motion."""
    with np.load(path) as file:
        return str(file["vae"]) if "vae" in file else None


def _clips_in(path: Path) -> int:
    with np.load(path) as file:
        return len(file["text"])


def read_latents(*folders: Path) -> Latents:
    """All complete files of the folders. Raises ValueError if there is none, or if they do not fit together."""
    paths = [path for folder in folders for path in sorted(folder.glob("[0-9]*.npz"))]
    if not paths:
        raise ValueError(f"{', '.join(map(str, folders))}: no latents; make them with `flowact data latents`")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*ARRAYS, "text")}
    vectors: dict[str, np.ndarray] = {}
    name, shape = vae_of(paths[0]), None
    for path in paths:
        found = vae_of(path)
        if found is None:
            raise ValueError(f"{path} holds motion, which an embedded preset learns; make `flowact data latents`")
        if found != name:
            raise ValueError(f"{path} holds latents of the VAE {found}, and {paths[0]} of {name}")
        with np.load(path) as file:
            words = [str(w) for w in file["texts"]]
            vectors |= dict(zip(words, file["vectors"]))
            order = {w: i for i, w in enumerate(vectors)}
            for key in ARRAYS:
                parts[key].append(file[key])
            parts["text"].append(np.array([order[w] for w in words])[file["text"]])
        clip, heard, text = parts["latents"][-1], parts["sound"][-1], next(iter(vectors.values()))
        made = tuple(list(size) for size in (clip.shape[1:], heard.shape[1:], text.shape))
        shape = made if shape is None else shape
        if made != shape:
            raise ValueError(f"{path} has clips of {made}, not {shape}; make all alike, with the same --seconds")
    joined = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    assert name is not None  # there is one file at least, and it is of latents
    return Latents(**joined, vectors=np.stack(list(vectors.values())), texts=list(vectors), vae=name)


def describe(folder: Path) -> str:
    """What a folder holds, for a card: its name, how many clips, the number of the first, and who heard them."""
    paths = sorted(folder.glob("[0-9]*.npz"))
    count = sum(_clips_in(path) for path in paths)
    return f"{folder.name}: {count} clips from number {int(paths[0].stem)}, heard by {encoder_of(folder)}"
