# SPDX-License-Identifier: Apache-2.0
"""`flowact bench streams` on the debug preset: it counts, and ends where streams do not fit. Never how fast."""

from __future__ import annotations

import json

import pytest

from flowact_ros.evaluation import bench, bench_streams


def test_a_table_over_numbers_of_streams(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["streams", "--preset", "debug", "--batch", "2", "--counts", "1", "3", "--turns", "2", "--json"]
    assert bench.main([*argv, "--precision", "float32", "--workers", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["rows"]
    assert [row["streams"] for row in rows] == [1, 3][: len(rows)] and (result["batch"], result["workers"]) == (2, 1)
    assert result["fits"] == max((row["streams"] for row in rows if row["fits"]), default=0)
    assert all(row["turn_ms"] > 0 and row["device_load"] > 0 for row in rows)
    bench_streams.show(result)
    assert f"streams that fit: {result['fits']}" in capsys.readouterr().out


def test_what_fits_is_told_by_the_time_of_a_turn() -> None:
    assert bench_streams.row(4, [0.40, 0.43, 0.90])["fits"]
    late = bench_streams.row(5, [0.6, 0.6])
    assert not late["fits"] and late["device_load"] == 1.25 and late["fps_each"] == 20.0


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (["--batch", "65"], 2, "--batch: 65 is not 1 … 64"),
        (["--counts", "4", "2"], 2, "--counts: 4 2 do not rise"),
        (["--precision", "int8", "--batch", "2", "--preset", "debug"], 1, "batch 2 does not go with precision int8"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_streams.main(options) == status
    assert line in capsys.readouterr().err
