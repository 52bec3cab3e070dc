# SPDX-License-Identifier: Apache-2.0
"""What a soak test saw, as figures with targets: frames lost, recovery times, rise of memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flowact_ros.evaluation.load import slope_mb_per_hour
from flowact_ros.evaluation.report import Report, machine
from flowact_ros.evaluation.soak_plan import BY_NAME, SETTLE_S
from flowact_ros.timebase import FRAME_RATE

SLOPE_S = 1200.0  # [s] that a process must have run undisturbed, for its rise to be judged
MOST_SLOPE = 5.0  # [MB/h]
MOST_SKEW_S = 0.04
MOST_LINES = 15  # of log, for one burst of what is refused: two a kind of mistake, and some


def lost_frames(frames: list[tuple[float, int]], begin: float, end: float, *, calm: bool = False) -> int:
    """Frames that never came within a window. frames: ([s] arrival, index in its stream), in order of arrival; calm:
    leave out what begins or ends outside of the window, since that belongs to a fault.

    A stream that begins anew has lost what would have been seen while there was none.
    """
    lost = 0
    for (t0, i0), (t1, i1) in zip(frames, frames[1:]):
        if t1 < begin or t0 > end or (calm and not begin <= t0 <= t1 <= end):
            continue
        lost += i1 - i0 - 1 if i1 > i0 else max(0, round((t1 - t0) * FRAME_RATE) - 1)
    if frames and frames[-1][0] < end and (not calm or begin <= frames[-1][0]):  # none came any more
        lost += max(0, round((end - max(begin, frames[-1][0])) * FRAME_RATE) - 1)
    return lost


def longest_gap(frames: list[tuple[float, int]], begin: float, end: float) -> float:
    """[s] without a frame within a window, at most."""
    times = [begin, *(t for t, _ in frames if begin < t < end), end]
    return max(t1 - t0 for t0, t1 in zip(times, times[1:]))


def figures(order: dict[str, Any], seen: dict[str, Any]) -> Report:
    """order: what was asked for; seen: what `nodes/soak.py` observed, in seconds since the start of the run."""
    frames = [(float(t), int(i)) for t, i in seen["frames"]]
    chaos = f"chaos, seed {order['seed']}" if order["faults"] else "without faults"
    report = Report(f"flowact soak: {order['preset']}, {seen['seconds'] / 60:.1f} min, {chaos}")
    windows = [(fault["at"], fault["until"] + SETTLE_S) for fault in seen["faults"]]
    for name in BY_NAME:
        _add_fault(report, name, [fault for fault in seen["faults"] if fault["kind"] == name], frames)
    _add_stream(report, frames, windows, seen)
    _add_memory(report, seen["memory"])
    around = {**machine(), "load_before": round(order["load_before"], 2)}
    report.facts = {
        "faults_made": f"{len(seen['faults'])} of {len(order['faults'])} planned",
        "sentences": f"{seen['sentences']} said, {seen['sentences_heard']} heard",
        "machine": ", ".join(f"{key} {value}" for key, value in around.items()),
        "log": seen["log"],
        "events": seen["faults"],
    }
    return report


def _add_fault(report: Report, name: str, made: list[dict[str, Any]], frames: list[tuple[float, int]]) -> None:
    if not made:
        return
    kind, key = BY_NAME[name], "faults." + name.replace(" ", "_")
    times = [float("inf") if f["recovered_s"] is None else f["recovered_s"] for f in made]
    lost = [lost_frames(frames, f["at"], f["until"] + SETTLE_S) for f in made]
    report.add(
        f"{key}.recovery_s",
        f"{name}: {kind.recovered}, longest",
        max(times),
        "s",
        most=kind.most_s,
        n=len(made),
        digits=2,
        more={"median": float(np.median(times))},
    )
    most = 0 if kind.frames else None
    report.add(f"{key}.frames_lost", f"{name}: frames lost, most", float(max(lost)), most=most, digits=0)
    gap = max(longest_gap(frames, f["at"], f["until"] + SETTLE_S) for f in made)
    report.add(f"{key}.gap_s", f"{name}: longest time without a frame", gap, "s", digits=2)
    others = sum(len(f["restarted"]) for f in made)
    report.add(f"{key}.others_restarted", f"{name}: other nodes restarted", float(others), most=0, digits=0)
    if kind.input:
        lines = [float(f["lines"]) for f in made]
        report.add(
            f"{key}.log_lines", f"{name}: lines of log", max(lines), least=1, most=MOST_LINES, digits=0
        )
    skews = [f["skew_s"] for f in made if f["skew_s"] is not None]
    if skews:
        skew = 1e3 * max(skews)
        report.add(
            f"{key}.skew_ms", f"{name}: sound from picture after it", skew, "ms", most=1e3 * MOST_SKEW_S, digits=0
        )


def _add_stream(
    report: Report, frames: list[tuple[float, int]], windows: list[tuple[float, float]], seen: dict[str, Any]
) -> None:
    """What came while nothing was done to the avatar."""
    calm = _outside(windows, seen["seconds"])
    seconds = sum(end - begin for begin, end in calm)
    came = sum(begin <= t < end for t, _ in frames for begin, end in calm)
    if seconds > 1.0:
        report.add("fps", "frames a second, outside of faults", came / seconds, least=24.8, digits=2)
    lost = sum(lost_frames(frames, begin, end, calm=True) for begin, end in calm)
    report.add("frames_lost", "frames lost, outside of faults", float(lost), most=0, digits=0)
    report.add("repeated_frames", "frames repeated, since the engine was late", float(seen["repeated"]), digits=0)
    report.add("underruns", "silences within speech", float(seen["underruns"]), digits=0)
    skew = seen["skew_s"]
    if skew is not None:
        report.add(
            "skew_ms", "sound from picture at the end", 1e3 * skew, "ms", most=1e3 * MOST_SKEW_S, digits=0
        )


def _outside(windows: list[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    out, begin = [], 0.0
    for at, until in sorted(windows):
        if at > begin:
            out.append((begin, min(at, seconds)))
        begin = max(begin, until)
    if begin < seconds:
        out.append((begin, seconds))
    return out


def _add_memory(report: Report, memory: dict[str, list[tuple[float, int, float]]]) -> None:
    """memory: name -> ([s], process, MB). The rise is of the process of a node that lived longest."""
    for name, samples in memory.items():
        runs: dict[int, list[tuple[float, float]]] = {}
        for t, pid, mb in samples:
            runs.setdefault(pid, []).append((t, mb))
        if not runs:
            continue
        run = max(runs.values(), key=lambda points: points[-1][0] - points[0][0])
        seconds = run[-1][0] - run[0][0]
        report.add(f"memory.{name}.mb", f"memory of {name}, at the end", samples[-1][2], "MB", digits=0)
        report.add(
            f"memory.{name}.slope_mb_per_hour",
            f"its rise, within {seconds / 60:.0f} min",
            slope_mb_per_hour(run),
            "MB/h",
            most=MOST_SLOPE if seconds >= SLOPE_S else None,
            digits=1,
        )


COLUMNS = {  # of the table of faults: the last part of a figure's key
    "recovery_s": "recovery, longest [s]",
    "gap_s": "without a frame [s]",
    "frames_lost": "frames lost",
    "others_restarted": "others restarted",
    "skew_ms": "sound from picture [ms]",
    "log_lines": "lines of log",
}


def show(report: Report) -> None:
    """A line a kind of fault, each figure with its target; below, what holds for the whole run."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=report.title, title_justify="left")
    for name in ("fault", "n", "back", *COLUMNS.values(), ""):
        table.add_column(name, justify="left" if name in ("fault", "back", "") else "right")
    faults = [figure for figure in report.figures if figure.key.startswith("faults.")]
    for name, kind in BY_NAME.items():
        prefix = "faults." + name.replace(" ", "_") + "."
        found = {f.key.removeprefix(prefix): f for f in faults if f.key.startswith(prefix)}
        if not found:
            continue
        cells = []
        for column in COLUMNS:
            figure = found.get(column)
            text = "" if figure is None else f"{figure.value:.{figure.digits}f}"
            text += f" ({figure.target})" if figure is not None and figure.target else ""
            cells.append(f"[red]{text}" if figure is not None and figure.met is False else text)
        missed = any(figure.met is False for figure in found.values())
        count = found["recovery_s"].n
        table.add_row(name, str(count), kind.recovered, *cells, "[red]NOT MET" if missed else "[green]met")
    whole = Report(report.title, [f for f in report.figures if f not in faults], report.facts)
    if faults:
        Console(width=None if os.isatty(1) else 180).print(table)
        whole.title = "the whole run"
    whole.show()
