# SPDX-License-Identifier: Apache-2.0
"""What a denoiser learns from, whatever its codec: latents of clips in a row, with their sound and text.

Two kinds: motion of performances, of which four frames are a latent that may begin with any of them, and latents of a
spatial preset's VAE, which begin where the VAE began them. An *item* is what a chunk may begin with: a frame of motion,
or a whole latent. All that a stage knows of the rig or of pictures is here: how errors are weighed, how far a denoiser
runs beside the truth, how that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flowact_ros.data.latents import Latents, load_vae, pictures_at, read_latents
from flowact_ros.data.latents import describe as describe_latents
from flowact_ros.data.performances import Performances, read_performances
from flowact_ros.data.performances import describe as describe_performances
from flowact_ros.engine.provenance import weights_hash
from flowact_ros.models.codec.motion import CONTROL_NAMES, normalise
from flowact_ros.models.config import ModelConfig, VideoConfig, video_of
from flowact_ros.models.dit import Condition
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.training import latent_figures, motion_figures
from flowact_ros.training.losses import latent_cost, motion_cost
from flowact_ros.training.pictures import save_sheet

CHANGES = 0.1  # weight of the error of changes from frame to frame, in units of the changes
EVENTS = {"blink_left": 4.0, "blink_right": 4.0, "gaze_x": 6.0, "gaze_y": 6.0}  # of rare, fast controls  # fmt: skip
SLOWEST = 0.055  # [deviations a frame] slower controls count like those that change by this
SOME = 100  # clips that the pace is measured on
SHOWN = 4  # clips on a sheet, and pictures of each


class Sequences(Protocol):
    """Clips `[len]` of `items` each, `per_latent` of them a latent; `shape`: of an item.

    Clips and places are int arrays `[B]`; latents `[B, count, P, C]`; made and true items `[B, T, *shape]`.
    """

    items: int
    per_latent: int
    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    @property
    def facts(self) -> dict[str, str]:
        """What a card is to tell of it."""
        ...

    @property
    def pace(self) -> Tensor:
        """By how much each channel changes from item to item, `[C]`: the root of the mean square."""
        ...

    def latents(self, clip: np.ndarray, start: np.ndarray, count: int) -> Tensor:
        """`count` latents from item `start` of each clip."""
        ...

    def condition(self, clip: np.ndarray, start: np.ndarray, count: int) -> Condition:
        """Sound and text of the same."""
        ...

    def still(self, clip: np.ndarray, at: np.ndarray) -> Tensor:
        """The latent `[B, P, C]` of a picture that shows item `at` of each clip; -1: the character at rest."""
        ...

    def cost(self, off: Tensor, sigma: Tensor) -> Tensor:
        """The summed cost of errors `off` of latents that were predicted at sigma `[B, S]`."""
        ...

    def figures(self, made: Tensor, truth: Tensor, chunk: int) -> dict[str, float]:
        """How like the truth free-running items are, in chunks of so many items."""
        ...

    def spread_error(self, row: dict[str, float]) -> float:
        """How much less or more it moves than the truth, by its figures: what distilled weights are chosen by."""
        ...

    def show(self, made: Tensor, truth: Tensor, path: Path) -> None:
        """Keep it, to be looked at; `path` is a picture's."""
        ...


def sequences(config: ModelConfig, folders: Sequence[Path]) -> Sequences:
    """Those of folders that `flowact data` made for a preset. Raises ValueError, one line, for what does not fit it."""
    if config.video is None:
        return MotionSequences(read_performances(*folders))
    return LatentSequences(read_latents(*folders), config, folders[0])


def description(config: ModelConfig, folders: Sequence[Path]) -> list[str]:
    """What the folders hold, for a card."""
    describe = describe_performances if config.video is None else describe_latents
    return [describe(folder) for folder in folders]


def items_of(latents: Tensor, data: Sequences) -> Tensor:
    """Latents `[B, count, P, C]` as items `[B, T, *shape]`."""
    return latents.reshape(len(latents), data.per_latent * latents.shape[1], *data.shape)


def latents_of(items: Tensor, count: int) -> Tensor:
    """The way back."""
    return items.reshape(len(items), count, -1, items.shape[-1])


def _vectors(vectors: np.ndarray) -> Tensor:
    return torch.from_numpy(vectors.astype(np.float32))


def _places(start: np.ndarray, count: int) -> np.ndarray:
    """`[B, count]`, of `count` items from each of `start`."""
    return start[:, None] + np.arange(count)


class MotionSequences:
    """`Sequences` of performances: normalised motion."""

    per_latent = FRAMES_PER_LATENT

    def __init__(self, data: Performances) -> None:
        self.data, self.items, self.shape = data, data.frames, (data.controls.shape[2],)
        self.vectors = _vectors(data.vectors)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def facts(self) -> dict[str, str]:
        return {}

    @cached_property
    def pace(self) -> Tensor:
        some = normalise(torch.from_numpy(self.data.controls[:SOME].astype(np.float32)))
        return some.diff(dim=1).square().mean((0, 1)).sqrt()

    @cached_property
    def weight(self) -> Tensor:
        """Of each control `[K]`."""
        return torch.tensor([EVENTS.get(name, 1.0) for name in CONTROL_NAMES])

    @cached_property
    def change_weight(self) -> Tensor:
        """Of the error of each control's changes `[K]`, beside its own: slow ones are held to their own pace."""
        return CHANGES / (self.pace.square() + SLOWEST**2)

    def latents(self, clip: np.ndarray, start: np.ndarray, count: int) -> Tensor:
        frames = _places(start, FRAMES_PER_LATENT * count)
        motion = normalise(torch.from_numpy(self.data.controls[clip[:, None], frames].astype(np.float32)))
        return motion.unflatten(1, (count, FRAMES_PER_LATENT))

    def condition(self, clip: np.ndarray, start: np.ndarray, count: int) -> Condition:
        """A latent's text is the one in force in its middle."""
        frames = _places(start, FRAMES_PER_LATENT * count)
        audio = torch.from_numpy(self.data.sound[clip[:, None], frames].astype(np.float32))
        middles = frames[:, FRAMES_PER_LATENT // 2 :: FRAMES_PER_LATENT]
        text = self.vectors[torch.from_numpy(self.data.text[clip[:, None], middles])]
        return Condition(audio.unflatten(1, (count, FRAMES_PER_LATENT)), text.unsqueeze(2))

    def still(self, clip: np.ndarray, at: np.ndarray) -> Tensor:
        motion = normalise(torch.from_numpy(self.data.controls[clip, at].astype(np.float32)))
        motion = torch.where(torch.from_numpy(at < 0)[:, None], 0.0, motion)
        return motion[:, None].expand(-1, FRAMES_PER_LATENT, -1)

    def cost(self, off: Tensor, sigma: Tensor) -> Tensor:
        return motion_cost(off, sigma, self.weight.to(off.device), self.change_weight.to(off.device))

    def figures(self, made: Tensor, truth: Tensor, chunk: int) -> dict[str, float]:
        return motion_figures.figures(made, truth, chunk)

    def spread_error(self, row: dict[str, float]) -> float:
        return motion_figures.spread_error(row)

    def show(self, made: Tensor, truth: Tensor, path: Path) -> None:
        np.savez(path.with_suffix(".npz"), made=made.numpy(), truth=truth.numpy())


class LatentSequences:
    """`Sequences` of a spatial preset's latents; folder: where their VAE lies.

    Raises ValueError, CheckpointError for those of another preset, and for another VAE.
    """

    per_latent = 1

    def __init__(self, data: Latents, config: ModelConfig, folder: Path) -> None:
        self.data, self.items, self.shape = data, data.latents.shape[1], data.latents.shape[2:]
        self.video: VideoConfig = video_of(config)
        self.vae = load_vae(folder, self.video)
        if (name := weights_hash([self.vae])) != data.vae:
            raise ValueError(f"{folder} has latents of the VAE {data.vae}, and beside them lies {name}")
        if self.shape != config.dit.latent_shape:
            raise ValueError(
                f"{folder} has latents of {list(self.shape)}, those of preset {config.name} are "
                f"{list(config.dit.latent_shape)}"
            )
        ports = (data.sound.shape[3], *data.vectors.shape[1:])
        if ports != (wanted := (config.dit.audio_dim, config.dit.text_tokens, config.dit.text_dim)):
            raise ValueError(f"{folder} has sound and text of {list(ports)}, preset {config.name} takes {list(wanted)}")
        self.vectors = _vectors(data.vectors)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def facts(self) -> dict[str, str]:
        return {"vae": self.data.vae}

    @cached_property
    def pace(self) -> Tensor:
        some = torch.from_numpy(self.data.latents[:SOME].astype(np.float32))
        return some.diff(dim=1).square().mean((0, 1, 2)).sqrt()

    def latents(self, clip: np.ndarray, start: np.ndarray, count: int) -> Tensor:
        return torch.from_numpy(self.data.latents[clip[:, None], _places(start, count)].astype(np.float32))

    def condition(self, clip: np.ndarray, start: np.ndarray, count: int) -> Condition:
        at = _places(start, count)
        audio = torch.from_numpy(self.data.sound[clip[:, None], at].astype(np.float32))
        return Condition(audio, self.vectors[torch.from_numpy(self.data.text[clip[:, None], at])])

    def still(self, clip: np.ndarray, at: np.ndarray) -> Tensor:
        stills = np.where((at < 0)[:, None, None], self.data.neutral[clip], self.data.stills[clip, at])
        return torch.from_numpy(stills.astype(np.float32))

    def cost(self, off: Tensor, sigma: Tensor) -> Tensor:
        return latent_cost(off, sigma)

    def figures(self, made: Tensor, truth: Tensor, chunk: int) -> dict[str, float]:
        return latent_figures.figures(made, truth, chunk)

    def spread_error(self, row: dict[str, float]) -> float:
        return latent_figures.spread_error(row)

    @torch.no_grad()
    def show(self, made: Tensor, truth: Tensor, path: Path) -> None:
        """Rows of clips: true pictures, as the VAE gives them back, and made ones in turn."""
        at = np.linspace(0, truth.shape[1] - 1, SHOWN).astype(int).tolist()
        pair = [pictures_at(self.vae, self.video, x[:SHOWN], at) for x in (truth, made)]
        save_sheet([[x[i, k] for k in range(SHOWN) for x in pair] for i in range(len(pair[0]))], path)
