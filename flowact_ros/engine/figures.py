# SPDX-License-Identifier: Apache-2.0
"""The figures of a session, put together from those who count: the stream, its sound, the intake and the networks."""

from __future__ import annotations

from collections.abc import Mapping

from flowact_ros.engine.losses import INTERRUPTED, IntakeCounts
from flowact_ros.engine.metrics import StreamMetrics
from flowact_ros.engine.stream import Stream
from flowact_ros.timebase import SAMPLE_RATE


def metrics_of(
    stream: Stream, counts: IntakeCounts, waits_ms: Mapping[str, float], error: BaseException | None
) -> StreamMetrics:
    """Under the stream's lock. counts: of the intake; waits_ms: of the pipeline; error: that ended it."""
    timeline, watch = stream.timeline, stream.watch
    dropped = dict(counts.dropped)
    if timeline.cut:  # the intake had passed it on
        dropped[INTERRUPTED] = dropped.get(INTERRUPTED, 0) + timeline.cut
    return StreamMetrics(
        **stream.meter.figures(),  # type: ignore[arg-type]
        waits_ms=dict(waits_ms),
        ring_fill=stream.playout.ahead,
        queued_s=timeline.queued / SAMPLE_RATE,
        underruns=timeline.underruns,
        inserted_s=timeline.inserted / SAMPLE_RATE,
        unterminated=timeline.unterminated + counts.unended,
        received_samples=counts.received,
        heard_samples=counts.heard - timeline.cut,
        filled_samples=counts.filled,
        dropped_samples=dropped,
        repeats=counts.repeats,
        lost_chunks=counts.lost_chunks,
        lost_samples=counts.lost_samples,
        shortened_gaps=counts.shortened,
        reordered=counts.reordered,
        bad_samples=counts.bad_samples,
        clipped=counts.clipped,
        rescaled=counts.rescaled,
        **({} if watch is None else {"motion": watch.figures, "alarms_raised": watch.raised}),
        error="" if error is None else f"{type(error).__name__}: {error}",
    )
