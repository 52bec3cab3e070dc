# SPDX-License-Identifier: Apache-2.0
"""A recording as tables for studies: motion, transcript, latencies, as CSV or parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowact_msgs.msg import StreamMetrics
from flowact_ros.media.bag import Bag, BagError
from flowact_ros.nodes import topics
from flowact_ros.nodes.bag_records import RECORD, read_records
from flowact_ros.nodes.convert import NANOSECONDS, from_time
from flowact_ros.timebase import FRAME_RATE, FRAMES_PER_LATENT, SAMPLES_PER_LATENT
from flowact_ros.vocabulary import IDLE, SPEAKING

CSV, PARQUET = "csv", "parquet"
FORMATS = (CSV, PARQUET)
_TEXTS = (topics.TRANSCRIPT, topics.CAPTIONS, topics.SPEECH_TEXT)
_NUMBERS = ("float", "double", "uint64", "uint32", "int64", "int32")

Columns = dict[str, list[Any]]


def write_tables(bag: Bag, folder: Path, form: str, namespace: str = "") -> Iterator[str]:
    """Writes the tables for which the recording has topics; a line for each of them.

    Times are in seconds from frame 0 of the stream, or from the first message where no record tells when that was.
    Raises BagError for a recording that has nothing of all that, and where parquet cannot be written.
    """
    if form == PARQUET:
        _parquet()
    origin = _Origin(bag, namespace)
    tables = {
        "motion": origin.motion() or _published_motion(bag, origin),
        "transcript": _transcript(bag, origin),
        "latencies": _latencies(bag, origin),
    }
    filled = {name: columns for name, columns in tables.items() if columns and next(iter(columns.values()))}
    if not filled:
        raise BagError(f"{bag.path} has neither records nor motion, transcripts or metrics: there is nothing to tell")
    folder.mkdir(parents=True, exist_ok=True)
    for name in tables:
        if name not in filled:
            yield f"no {name}: the recording has no topics for it (record with --profile watch or all)"
            continue
        path = folder / f"{name}.{form}"
        _write(path, filled[name], form)
        yield f"{path}: {len(next(iter(filled[name].values())))} rows of {len(filled[name])} columns"


class _Origin:
    """Whose topics are meant, and when its frame 0 was."""

    def __init__(self, bag: Bag, namespace: str) -> None:
        self.recorded = read_records(bag, namespace) if RECORD in bag.topics.values() else None
        stream = self.recorded.streams[0] if self.recorded is not None else None
        self.prefix = f"/{namespace.strip('/')}/" if namespace else ""
        if stream is not None:
            self.prefix = stream.topic.removesuffix(topics.CHUNKS)
        start_ns = None if stream is None else stream.start_ns
        if start_ns is None:
            start_ns = min((message.time_ns for message in bag.messages(list(bag.topics))), default=0)
        self.start_ns = start_ns

    def seconds(self, time_ns: int) -> float:
        return round((time_ns - self.start_ns) / NANOSECONDS, 6)

    def topic(self, bag: Bag, name: str) -> str | None:
        """The absolute name, of this avatar; of the only one that there is, where nothing says which."""
        found = [t for t in bag.topics if (t == self.prefix + name if self.prefix else t.endswith(f"/{name}"))]
        if len(found) > 1:
            raise BagError(f"{bag.path} has {name} of several avatars: choose by --namespace")
        return found[0] if found else None

    def motion(self) -> Columns:
        """Of every frame that was drawn and not taken back, from the records: a column a control."""
        if self.recorded is None:
            return {}
        names = self.recorded.controls
        columns: Columns = {"stream": [], "frame": [], "time_s": [], "behaviour": [], "utterance_id": []}
        for number, stream in enumerate(self.recorded.streams, 1):
            drawn = {}
            for record in stream.records:
                back = record.first_sample // SAMPLES_PER_LATENT  # a rewind takes back what was drawn from there on
                drawn = {k: v for k, v in drawn.items() if k < back}
                drawn |= {latent.latent: (latent.motion, record) for latent in record.drawn}
            for latent, (motion, record) in sorted(drawn.items()):
                for i, values in enumerate(motion):
                    frame = latent * FRAMES_PER_LATENT + i
                    known = names if len(names) == len(values) else [f"control_{k}" for k in range(len(values))]
                    row = {
                        "stream": number, "frame": frame, "time_s": frame / FRAME_RATE,
                        "behaviour": record.behaviour or (SPEAKING if record.spans else IDLE),
                        "utterance_id": record.utterance_id,
                        **dict(zip(known, values.tolist())),
                    }  # fmt: skip
                    for name, value in row.items():
                        columns.setdefault(name, []).append(value)
        return columns


def _published_motion(bag: Bag, origin: _Origin) -> Columns:
    topic = origin.topic(bag, topics.MOTION)
    columns: Columns = {"frame": [], "time_s": []}
    for message in bag.messages([topic] if topic else []):
        decoded = bag.decoded(message)
        row = {"frame": int(decoded.frame), "time_s": origin.seconds(from_time(decoded.header.stamp))}
        for name, value in (row | dict(zip(decoded.names, map(float, decoded.values)))).items():
            columns.setdefault(name, []).append(value)
    return columns


def _transcript(bag: Bag, origin: _Origin) -> Columns:
    """Final texts: of the user as recognised (transcript), of the avatar (speech/text), of both as shown (captions)."""
    names = ("time_s", "topic", "side", "utterance_id", "text", "locale", "confidence", "start_s", "end_s")
    columns: Columns = {name: [] for name in names}
    wanted = {topic: name for name in _TEXTS if (topic := origin.topic(bag, name))}
    for message in bag.messages(wanted):
        text = bag.decoded(message)
        if not text.final:
            continue
        start, end = from_time(text.start), from_time(text.end)
        row = (
            origin.seconds(from_time(text.header.stamp) or message.time_ns), wanted[message.topic],
            text.header.frame_id, text.utterance_id, text.text, text.locale, float(text.confidence),
            origin.seconds(start) if start else None, origin.seconds(end) if end else None,
        )  # fmt: skip
        for name, value in zip(names, row):
            columns[name].append(value)
    return columns


def _latencies(bag: Bag, origin: _Origin) -> Columns:
    """All single numbers of the metrics, once a second."""
    topic = origin.topic(bag, topics.METRICS)
    known = {name for name, kind in StreamMetrics.get_fields_and_field_types().items() if kind in _NUMBERS}
    columns: Columns = {"time_s": []}
    for message in bag.messages([topic] if topic else []):
        decoded = bag.decoded(message)
        columns["time_s"].append(origin.seconds(from_time(decoded.header.stamp) or message.time_ns))
        for name in StreamMetrics.get_fields_and_field_types():
            if name in known and hasattr(decoded, name):
                columns.setdefault(name, []).append(getattr(decoded, name))
    return columns


def _write(path: Path, columns: Columns, form: str) -> None:
    if form == PARQUET:
        arrow, parquet = _parquet()
        parquet.write_table(arrow.table(columns), path)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _parquet() -> tuple[Any, Any]:
    """Raises BagError where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BagError("parquet needs pyarrow: `.venv/bin/pip install pyarrow`, or use --format csv") from None
    return pyarrow, pyarrow.parquet
