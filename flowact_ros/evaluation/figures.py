# SPDX-License-Identifier: Apache-2.0
"""From clips, as they were drawn and as the stream made them, to figures with their references and controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from flowact_ros.evaluation import metrics
from flowact_ros.evaluation.clips import Clip
from flowact_ros.evaluation.report import Report

LINES = 512.0  # openings are told in lines of a 512 canvas
STILL_PX = 0.5  # lines of a 512 canvas: a mouth that moves less is still to the eye


@dataclass
class ClipResult:
    """What one clip contributes. Openings are in lines of a 512 canvas, changes are `metrics.differences`."""

    clip: Clip
    psnr: float
    ssim: float
    eyes: float
    mouth: float
    face: dict[
        str, float
    ]  # PSNR [dB] of the face against the truth: "VAE", "stream", "still" (the reference)
    detail: dict[str, float]  # edge strength in the face ÷ the truth's: "VAE", "stream", "blur"
    true: np.ndarray
    read_truth: np.ndarray
    read_bound: np.ndarray
    read: np.ndarray
    changes_truth: np.ndarray
    changes_bound: np.ndarray
    changes: np.ndarray
    starts: list[int]
    made_in: float
    rows: list[tuple[str, Tensor]]
    mouths: list[tuple[str, Tensor]]


def picture_figures(report: Report, results: list[ClipResult]) -> None:
    """The VAE, and the face that the stream draws with it."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(r, name) for r in results]))

    add = report.add
    add("vae_psnr", "VAE round trip, whole picture", mean("psnr"), "dB", least=29.0, digits=2)
    add("vae_ssim", "VAE round trip, SSIM of the luma", mean("ssim"), least=0.96, digits=4)
    add("vae_eye_psnr", "VAE round trip, eyes", mean("eyes"), "dB", least=28.0, digits=2)
    add("vae_mouth_psnr", "VAE round trip, mouth", mean("mouth"), "dB", least=28.0, digits=2)

    def inside(name: str, part: str) -> float:
        return float(np.mean([getattr(r, part)[name] for r in results]))

    add(
        "face_detail", "edges in the face ÷ truth (control: blurred)", inside("stream", "detail"), truth=1.0,
        bound=inside("VAE", "detail"), control=inside("blur", "detail"),
        least=round(0.8 * inside("VAE", "detail"), 3), most=1.25,
    )  # fmt: skip
    add(
        "face_psnr", "face against truth (control: a still picture)", inside("stream", "face"), "dB",
        bound=inside("VAE", "face"), control=inside("still", "face"), digits=2,
    )  # fmt: skip


def lip_figures(
    report: Report,
    results: list[ClipResult],
    shuffled: list[tuple[ClipResult, np.ndarray]],
    named: list[tuple[Clip, np.ndarray, Tensor]],
) -> None:
    """shuffled: clips with the openings made to another clip's sound; named: clips, openings, pictures."""

    def mean(curve: str) -> float:
        return float(np.mean([metrics.correlation(getattr(r, curve), r.true) for r in results]))

    control = (
        float(np.mean([metrics.correlation(read, r.true) for r, read in shuffled])) if shuffled else None
    )
    add = report.add
    add(
        "lips_correlation", "mouth opening against truth, correlation", mean("read"),
        truth=mean("read_truth"), bound=mean("read_bound"), control=control, least=0.85,
    )  # fmt: skip
    lags = {name: metrics.best_lag([(getattr(r, name), r.true) for r in results]) for name in
            ("read", "read_truth", "read_bound")}  # fmt: skip
    add(
        "lips_lag_ms", "the same, best lag (+: lips late)", 1e3 * lags["read"].seconds, "ms",
        truth=1e3 * lags["read_truth"].seconds, bound=1e3 * lags["read_bound"].seconds,
        least=-40.0, most=40.0, digits=0,
    )  # fmt: skip
    if named:
        value = float(np.mean([metrics.correlation(read, clip.opening * LINES) for clip, read, _ in named]))
        add("lips_named", "the same on named characters", value, least=0.85)

    def spread(curve: str) -> float:
        return float(
            np.mean([np.std(getattr(r, curve)) for r in results]) / np.mean([np.std(r.true) for r in results])
        )

    add(
        "lips_range", "how far the lips move ÷ truth", spread("read"), truth=spread("read_truth"),
        bound=spread("read_bound"), control=0.0, least=0.7, most=1.3,
    )  # fmt: skip

    def error(curve: str) -> float:
        return float(np.mean([np.abs(getattr(r, curve) - r.true).mean() for r in results]))

    add(
        "lips_error_px", "mouth opening, mean error in lines of 512", error("read"), "px",
        truth=error("read_truth"), bound=error("read_bound"),
        control=float(np.mean([np.abs(r.true - np.median(r.true)).mean() for r in results])), digits=2,
    )  # fmt: skip

    def calm(curve: str) -> float:
        values = [metrics.stillness(getattr(r, curve), r.clip.silent) for r in results]
        return float(np.sqrt(np.nanmean(np.square(values)))) if np.isfinite(values).any() else float("nan")

    own = max(calm("read_truth"), STILL_PX)
    add(
        "silence_ratio", "mouth's movement in silence ÷ truth", calm("read") / own, truth=1.0,
        bound=calm("read_bound") / own,
        control=float(np.mean([np.std(r.true) for r in results])) / own, most=1.5,
    )  # fmt: skip


def motion_figures(report: Report, results: list[ClipResult]) -> None:
    """Neither frozen nor jittering, and without seams between steps."""

    def energy(curve: str) -> float:
        return float(np.mean([metrics.motion_energy(getattr(r, curve)) for r in results]))

    own = max(energy("changes_truth"), 1e-6)
    report.add(
        "motion", "motion ÷ truth", energy("changes") / own, truth=1.0, bound=energy("changes_bound") / own,
        control=0.0, least=0.8, most=1.25,
    )  # fmt: skip

    def jump(curve: str) -> float:
        """Of all clips together: one clip has too few seams."""
        parts = [getattr(r, curve) for r in results]
        offsets = np.cumsum([0, *(len(p) for p in parts[:-1])])
        seams = [
            int(offset) + k for offset, r in zip(offsets, results, strict=True) for k in r.starts if k > 0
        ]
        return metrics.boundary_jump(np.concatenate(parts), seams)

    jumpy = np.concatenate([r.changes_truth for r in results])
    offsets = np.cumsum([0, *(len(r.changes_truth) for r in results[:-1])])
    seams = [int(offset) + k for offset, r in zip(offsets, results, strict=True) for k in r.starts if k > 0]
    jumpy[[k - 1 for k in seams]] += np.median(jumpy)  # the control: each seam shows as a jump of usual size
    report.add(
        "chunk_jump", "jump between chunks ÷ within", jump("changes"), truth=jump("changes_truth"),
        bound=jump("changes_bound"), control=metrics.boundary_jump(jumpy, seams), most=1.15,
    )  # fmt: skip


def clip_record(r: ClipResult) -> dict[str, object]:
    """The figures of one clip, for the JSON report."""
    return {
        "character": r.clip.name,
        "style": r.clip.identity.style,
        "vae_psnr": round(r.psnr, 2),
        "vae_mouth_psnr": round(r.mouth, 2),
        "vae_eye_psnr": round(r.eyes, 2),
        "lips_correlation": round(metrics.correlation(r.read, r.true), 4),
        "lips_correlation_truth": round(metrics.correlation(r.read_truth, r.true), 4),
        "lips_correlation_vae": round(metrics.correlation(r.read_bound, r.true), 4),
        "lips_lag_ms": round(1e3 * metrics.best_lag([(r.read, r.true)]).seconds, 1),
        "motion": round(
            metrics.motion_energy(r.changes) / max(metrics.motion_energy(r.changes_truth), 1e-6), 3
        ),
    }
