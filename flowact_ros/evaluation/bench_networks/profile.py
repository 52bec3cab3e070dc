# SPDX-License-Identifier: Apache-2.0
"""What a whole step consists of: a trace for a viewer, and the operators that take the most time."""

from __future__ import annotations

from pathlib import Path

from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as profiler

from flowact_ros.evaluation.bench_networks.parts import Setting, free
from flowact_ros.evaluation.bench_networks.stream import sound

ROWS = 40  # of the table
WARM = 3  # steps before: kernels are chosen


def profile(setting: Setting, folder: Path) -> list[Path]:
    """Writes both into `folder`, which is made; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    free(setting.device)
    stream = setting.stream(setting.precision, {})
    pipeline, size = stream.pipeline, setting.config.schedule.chunk_latents
    precision, pcm = pipeline.provenance.precision, sound(pipeline, size)
    for _ in range(WARM):
        stream.step(pcm)
    cuda = setting.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    setting.clock.wait()
    with profiler(activities=kinds, record_shapes=True) as seen:
        with record_function("denoise"):
            chunk = stream.denoise(stream.full, pcm, size)
        with record_function("decode"):
            pipeline.render(stream.reference, chunk)
        with record_function("commit"):
            pipeline.advance(stream.full, chunk)
        setting.clock.wait()
    name = f"{setting.config.name}-{precision}"
    trace, table = folder / f"trace-{name}.json.gz", folder / f"operators-{name}.txt"
    seen.export_chrome_trace(str(trace))
    order = f"self_{'device' if cuda else 'cpu'}_time_total"
    averages = seen.key_averages(group_by_input_shape=True)
    table.write_text(averages.table(sort_by=order, row_limit=ROWS) + "\n", encoding="utf-8")
    return [trace, table]
