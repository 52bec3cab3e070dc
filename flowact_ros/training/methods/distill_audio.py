# SPDX-License-Identifier: Apache-2.0
"""Distil Whisper tiny's encoder into the small embedded audio encoder.

    flowact weights get whisper-tiny.en
    flowact train audio-encoder --run runs/audio --export

The student regresses the teacher's features of the clean sound, normalised a channel, from clean and from degraded
sound. Beside that, linear heads (dropped afterwards) read mouth shape, viseme class and loudness from its features, so
that the part of the space which moves lips is the part that is learned first. `report` then fits fresh linear probes
and reads them on held-out voices and sentences, for student and teacher alike; shuffled targets are the control that
must fail.

Why the teacher's third block: on synthetic speech a linear probe reads 14 viseme classes right in 0.52 / 0.53 / 0.50 of
the speaking frames after block 2 / 3 / 4, and loudness with R2 0.96 / 0.93 / 0.90 (sliding window of 2 s, 2026-11).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowact_ros.models.audio_encoder import KIND, AudioEncoderConfig, EmbeddedAudioEncoder
from flowact_ros.models.checkpoint import load_weights, save_weights, weights_dir
from flowact_ros.models.precision import best_dtype
from flowact_ros.models.whisper_encoder import CLIP, WhisperEncoder, load_whisper
from flowact_ros.timebase import ENCODER_SAMPLES_PER_FRAME
from flowact_ros.training.methods.distill_corpus import GROUPS, Corpus, joined, load_or_build, name_of
from flowact_ros.training.methods.distill_loop import adam, as_on_disk, averaged, descend, options_of
from flowact_ros.training.state_files import write_file
from flowact_ros.vocabulary import KOKORO, WHISPER
from flowact_ros.weights_store import WeightsError, find_audio_weights, stored

SEGMENT = 96  # frames of a training sample
PART = 10.0  # minutes of speech in a file
TEACHER_STEP = 4  # frames the teacher emits at once: one latent, the live step that knows least of the future
KOKORO_SHARE = 1 / 3
AUXILIARY = 0.5  # weight of the linear heads against the regression


@torch.no_grad()
def features(encoder: nn.Module, pcm: Tensor, step: int, batch: int = 32, bf16: bool = False) -> Tensor:
    """Features [T, D] of a whole recording [T*640], computed in live windows of `step` frames, stateless.

    bf16: where the processor multiplies it.
    """
    bf16 = bf16 and best_dtype(pcm.device.type) == torch.bfloat16
    window = encoder.context_samples + step * ENCODER_SAMPLES_PER_FRAME + encoder.lookahead_samples
    frames = len(pcm) // ENCODER_SAMPLES_PER_FRAME
    pad = -frames % step * ENCODER_SAMPLES_PER_FRAME
    padded = F.pad(pcm.float(), (encoder.context_samples, encoder.lookahead_samples + pad))
    parts = []
    for windows in padded.unfold(0, window, step * ENCODER_SAMPLES_PER_FRAME).split(batch):
        with torch.autocast(pcm.device.type, torch.bfloat16, enabled=bf16):
            parts.append(encoder(windows).float().flatten(0, 1))
    return torch.cat(parts)[:frames]


def heard_by_teacher(
    teacher: WhisperEncoder, run: Path, seed: int, split: str, minutes: float, of_kokoro: bool = False
) -> tuple[Corpus, Tensor]:
    """A corpus, and the teacher's raw features of its clean sound, [T, D]; both are kept in `run`."""
    corpus = load_or_build(run, seed, split, minutes, of_kokoro)
    cache = run / f"teacher_{name_of(seed, split, minutes, of_kokoro)}.npy"
    return corpus, teacher_targets(teacher, corpus, cache)


def teacher_targets(teacher: WhisperEncoder, corpus: Corpus, cache: Path) -> Tensor:
    """Raw teacher features of the clean sound, [T, D], kept in `cache`."""
    if not cache.is_file():
        identity = WhisperEncoder(teacher.config)
        identity.load_state_dict(teacher.state_dict())
        nn.init.zeros_(identity.feature_mean)
        nn.init.ones_(identity.feature_std)
        identity.clip = float("inf")
        np.save(
            cache, features(identity.eval(), torch.from_numpy(corpus.clean), TEACHER_STEP, bf16=True).numpy()
        )
    return torch.from_numpy(np.load(cache))


class Student(nn.Module):
    """The encoder and the heads that only training has."""

    def __init__(self, config: AudioEncoderConfig, mouth: int) -> None:
        super().__init__()
        self.encoder = EmbeddedAudioEncoder(config)
        self.heads = nn.Linear(config.features, len(GROUPS) + mouth + 1)
        self.mouth = mouth

    def loss(
        self, pcm: Tensor, target: Tensor, viseme: Tensor, lips: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """pcm [B, S]; target [B, n, D]; viseme [B, n]; lips [B, n, mouth + 1], normalised."""
        found = self.encoder(pcm)
        regression = F.mse_loss(found.float(), target)
        classes, shape = self.heads(found).float().split((len(GROUPS), self.mouth + 1), -1)
        spoken = F.cross_entropy(classes.flatten(0, 1), viseme.flatten())
        shaped = F.mse_loss(shape, lips)
        loss = regression + AUXILIARY * (0.3 * spoken + shaped)
        return loss, {"regression": regression, "viseme": spoken, "lips": shaped}


class Material:
    """Random segments of a corpus with their targets.

    kokoro: frames at its end that Kokoro speaks; `KOKORO_SHARE` of the segments begin there, however few they are
    """

    def __init__(self, corpus: Corpus, targets: Tensor, config: AudioEncoderConfig, kokoro: int = 0) -> None:
        self.config, self.kokoro = config, kokoro
        pad = (config.context, config.lookahead)
        self.sound = [F.pad(torch.from_numpy(x), pad) for x in (corpus.clean, *corpus.heard)]
        self.targets = targets
        self.viseme = torch.from_numpy(corpus.viseme)
        lips = torch.from_numpy(np.concatenate([corpus.mouth, corpus.loudness[:, None]], 1)).float()
        self.lips = (lips - lips.mean(0)) / lips.std(0).clamp(min=0.02)

    def draw(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        usual, last = len(self.viseme) - self.kokoro, len(self.viseme) - SEGMENT
        starts = rng.integers(0, min(usual, last), batch)
        if self.kokoro:
            starts = np.where(rng.random(batch) < KOKORO_SHARE, rng.integers(usual, last, batch), starts)
        length = self.config.context + SEGMENT * ENCODER_SAMPLES_PER_FRAME + self.config.lookahead
        pcm = []
        for start in starts:
            offset = int(start) * ENCODER_SAMPLES_PER_FRAME
            pcm.append(self.sound[int(rng.integers(len(self.sound)))][offset : offset + length].float())
        rows = torch.from_numpy(starts)[:, None] + torch.arange(SEGMENT)
        return torch.stack(pcm), self.targets[rows], self.viseme[rows], self.lips[rows]


def probe(x: Tensor, y: Tensor, x_test: Tensor, ridge: float = 100.0) -> Tensor:
    """Predictions of a linear ridge regression fitted on x [N, D] -> y [N, K], for x_test."""
    mean, std = x.mean(0), x.std(0) + 1e-4
    one = torch.ones(1, 1)
    x, x_test = (torch.cat([(z - mean) / std, one.expand(len(z), 1)], 1).double() for z in (x, x_test))
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    return (x_test @ torch.linalg.solve(gram, x.T @ y.double())).float()


def readable(
    x: Tensor, corpus: Corpus, x_test: Tensor, test: Corpus, shuffle: bool = False
) -> dict[str, float]:
    """What a linear probe reads from features: viseme accuracy (speaking frames), R2 of loudness, jaw and lip press."""
    order = (
        torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        if shuffle
        else torch.arange(len(x))
    )

    def targets(c: Corpus) -> tuple[Tensor, Tensor]:
        shapes = np.concatenate([c.loudness[:, None], c.mouth], 1)
        return torch.from_numpy(c.viseme), torch.from_numpy(shapes).float()

    (seen, shapes), (truth, shapes_test) = targets(corpus), targets(test)
    spoken = truth > 0
    guess = probe(x, F.one_hot(seen[order], len(GROUPS)).float(), x_test).argmax(1)
    fit = probe(x, shapes[order], x_test)
    r2 = 1 - (fit - shapes_test).square().mean(0) / shapes_test.var(0)
    return {
        "viseme": float((guess == truth)[spoken].float().mean()),
        "silence": float(((guess == 0) == (truth == 0)).float().mean()),
        "loudness_r2": float(r2[0]),
        "jaw_r2": float(r2[1]),
        "mouth_r2": float(r2[1:].mean()),
    }


def report(
    encoder: EmbeddedAudioEncoder, train: tuple[Corpus, Tensor], test: tuple[Corpus, Tensor]
) -> dict[str, Any]:
    """Held-out figures of the student on clean and degraded sound, beside the teacher's on clean sound."""
    encoder.eval()
    (corpus, seen), (held, truth) = train, test
    limit = min(corpus.frames, 12_000)
    few = Corpus(
        corpus.clean[: limit * 640],
        corpus.heard[:, : limit * 640],
        corpus.mouth[:limit],
        corpus.viseme[:limit],
    )
    ours = features(encoder, torch.from_numpy(few.clean), 48, bf16=True)
    clean, heard = (features(encoder, torch.from_numpy(x), 48) for x in (held.clean, held.heard[0]))

    def explained(found: Tensor) -> float:
        return float(1 - ((found - truth).square().mean(0) / truth.var(0)).mean())

    return {
        "r2_to_teacher": explained(clean),
        "r2_to_teacher_degraded": explained(heard),
        "r2_to_teacher_shuffled": explained(
            clean[torch.randperm(len(clean), generator=torch.Generator().manual_seed(0))]
        ),
        "embedded": readable(ours, few, clean, held),
        "embedded_degraded": readable(ours, few, heard, held),
        "embedded_shuffled_targets": readable(ours, few, clean, held, shuffle=True),
        "whisper": readable(seen[:limit], few, truth, held),
        "std": float(clean.std(0).mean()),
    }


def train(
    student: Student,
    material: Material,
    *,
    run: Path,
    minutes: float,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> int:
    """Train for `minutes` or to step `steps`, going on from `run`/last.pt if it is there. Returns the step reached."""
    optimizer, average = adam(student, lr, weight_decay=0.02), averaged(student)
    step, last = 0, run / "last.pt"
    if last.is_file():
        state = torch.load(last, weights_only=True)
        step = state["step"]
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    rng = np.random.default_rng([seed, step])
    bf16 = best_dtype("cpu") == torch.bfloat16

    def loss() -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value, parts = student.loss(*material.draw(rng, batch))
        return value, list(parts.values())

    def keep(reached: int) -> None:
        state = {"step": reached, "student": student.state_dict(), "average": average.state_dict()}
        write_file(last, {**state, "optimizer": optimizer.state_dict()})

    limits = {"minutes": minutes, "steps": steps, "lr": lr, "step": step, "annealing": 0.5, "keep": keep}
    step = descend(student, average, optimizer, loss, run / "log.csv", **limits)
    student.load_state_dict(average.module.state_dict())
    return step


def in_space(raw: Tensor, encoder: EmbeddedAudioEncoder) -> Tensor:
    """Raw features of the teacher, normalised as the student's are."""
    return ((raw - encoder.feature_mean) / encoder.feature_std).clamp(-CLIP, CLIP)


def distil(args: argparse.Namespace) -> None:
    """Makes or reads the material, trains for a slice, prints the report and exports if asked for.

    Raises WeightsError, CheckpointError, OSError.
    """
    teacher = load_whisper(find_audio_weights(WHISPER, args.teacher))
    options = options_of(args)
    if args.kokoro and not stored(KOKORO):
        raise WeightsError(f"--kokoro: its voices are not on this machine: flowact weights get {KOKORO}")

    def heard(minutes: float, of_kokoro: bool) -> list[tuple[Corpus, Tensor]]:
        seeds = range(args.seed, args.seed + round(minutes / PART)) or [args.seed]
        part = min(PART, minutes)
        return [heard_by_teacher(teacher, args.run, seed, "train", part, of_kokoro) for seed in seeds]

    usual, of_kokoro = heard(args.speech, False), heard(args.kokoro, True) if args.kokoro else []
    parts = usual + of_kokoro
    corpus, raw = joined([part for part, _ in parts]), torch.cat([targets for _, targets in parts])
    kinds = (False, True) if args.kokoro else (False,)
    tests = [heard_by_teacher(teacher, args.run, args.seed, "heldout", 3.0, kind) for kind in kinds]
    config = AudioEncoderConfig()
    student = Student(config, corpus.mouth.shape[1])
    encoder = student.encoder
    # The space stays that of the weights in the package: denoisers have learned to read it.
    shipped, slices = weights_dir() / "audio_encoder.safetensors", []
    if args.from_shipped:
        slices = load_weights(shipped, encoder, kind=KIND, config=config)["slices"]
    space = safetensors.torch.load_file(shipped)
    mean, std = (space[name].float() for name in ("feature_mean", "feature_std"))
    encoder.feature_mean.copy_(mean)
    encoder.feature_std.copy_(std)
    heard_train, *heard_tests = ((c, in_space(r, encoder)) for c, r in ((corpus, raw), *tests))
    material = Material(*heard_train, config, sum(part.frames for part, _ in of_kokoro))
    step = train(student, material, run=args.run, **options)
    as_on_disk(encoder)
    figures, *others = (report(encoder, heard_train, test) for test in heard_tests)
    if others:
        figures["kokoro"] = others[0]
    print(json.dumps(figures, indent=1))
    if args.export:
        card = {
            "made_by": "flowact train audio-encoder",
            "teacher": "OpenAI Whisper tiny.en encoder, output of block 3 (MIT)",
            "steps": sum(one["steps"] for one in slices) + step,
            "slices": [*slices, {**options, "steps": step, "speech": args.speech, "kokoro": args.kokoro}],
            "probe": "ridge regression on 8 min of training speech, read on held-out voices and sentences",
            "heldout": figures,
        }
        save_weights(shipped, encoder, kind=KIND, config=config, card=card)
