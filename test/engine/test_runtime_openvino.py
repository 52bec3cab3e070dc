# SPDX-License-Identifier: Apache-2.0
"""Graphs compiled for OpenVINO: static, in float32, kept between starts, and two threads may call one."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("openvino", reason="openvino has no wheel for this machine; make setup installs it where it has")

import openvino  # noqa: E402

from flowact_ros.engine.runtime import openvino_cache  # noqa: E402
from flowact_ros.engine.runtime.base import choose  # noqa: E402
from flowact_ros.engine.runtime.openvino import convert  # noqa: E402


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, x + 1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flowact_ros"


def test_a_graph_computes_what_its_module_does() -> None:
    runtime = choose("openvino")
    assert runtime.version.startswith("openvino 20")
    begin = runtime.compile(Twice(), (torch.ones(3),))
    twice, more = begin(torch.tensor([0.0, 1.0, 1.0001]))()
    np.testing.assert_array_equal(twice, np.float32([0.0, 2.0, 2.0002]))  # bfloat16 would round the last one
    np.testing.assert_allclose(more, [1.0, 2.0, 2.0001], rtol=1e-6)


def test_a_converted_graph_is_kept_until_its_weights_change(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(Twice(), (torch.ones(3),))
    assert len(list(cache.glob("twice-*.xml"))) == len(list(cache.glob("twice-*.bin"))) == 1
    other = Twice()
    with torch.no_grad():
        other.factor += 1.0
    assert convert(other, (torch.ones(3),))(torch.ones(3))()[0].tolist() == [3.0] * 3
    assert len(list(cache.glob("twice-*.xml"))) == 2
    monkeypatch.setattr(torch.jit, "trace", lambda *a, **k: pytest.fail("converted again"))
    assert convert(Twice(), (torch.ones(3),))(torch.ones(3))()[0].tolist() == [2.0] * 3


def test_what_was_compiled_is_kept_for_this_processor(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = convert(Twice(), (torch.ones(3),))(torch.tensor([0.0, 1.0, 1.0001]))()
    assert len(list(cache.glob("twice-*.blob"))) == 1
    monkeypatch.setattr(openvino.Core, "compile_model", lambda *a, **k: pytest.fail("compiled again"))
    again = convert(Twice(), (torch.ones(3),))(torch.tensor([0.0, 1.0, 1.0001]))()
    for before, after in zip(first, again):
        np.testing.assert_array_equal(before, after)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    monkeypatch.setattr(openvino_cache, "_processor_lines", lambda: ["flags : another processor's"])
    openvino_cache._compiler.cache_clear()
    try:
        convert(Twice(), (torch.ones(3),))
    finally:
        openvino_cache._compiler.cache_clear()
    assert len(list(cache.glob("twice-*.blob"))) == 2 and len(list(cache.glob("twice-*.xml"))) == 1


@pytest.mark.parametrize("kind", ["xml", "bin", "blob"])
@pytest.mark.parametrize("rest", [0.0, 0.5])
def test_a_kept_file_that_is_damaged_is_made_anew(
    cache: Path, kind: str, rest: float, caplog: pytest.LogCaptureFixture
) -> None:
    convert(Twice(), (torch.ones(3),))
    for path in cache.glob("twice-*"):
        data = path.read_bytes()
        if path.suffix == f".{kind}":
            path.write_bytes(data[: int(rest * len(data))])  # the power failed while it was written
        elif path.suffix == ".blob":
            path.unlink()
    assert convert(Twice(), (torch.ones(3),))(torch.ones(3))()[0].tolist() == [2.0] * 3
    assert "is damaged" in caplog.text
    caplog.clear()
    convert(Twice(), (torch.ones(3),))
    assert caplog.text == ""


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert convert(Twice(), (torch.ones(3),))(torch.ones(3))()[0].tolist() == [2.0] * 3
    assert "each start converts it anew" in caplog.text


def test_a_new_reference_may_be_drawn_beside_the_stream() -> None:
    begin, wrong = convert(Twice(), (torch.ones(3),)), []

    def draw(value: float) -> None:
        try:
            for _ in range(50):
                if not np.array_equal(begin(torch.full((3,), value))()[0], np.full(3, 2 * value, np.float32)):
                    wrong.append(value)
        except RuntimeError as error:
            wrong.append(error)

    threads = [threading.Thread(target=draw, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_caller_computes_what_no_other_thread_does() -> None:
    runtime = choose("openvino")
    twice, again = (runtime.compile(Twice(), (torch.ones(3),)) for _ in range(2))
    beside, own = twice(torch.ones(3)), again(torch.full((3,), 2.0))
    assert not runtime._workers.take()  # there is one, and it has begun
    assert own()[0].tolist() == [4.0] * 3 and beside()[0].tolist() == [2.0] * 3
    with pytest.raises(RuntimeError):
        twice(torch.ones(3, requires_grad=True))  # no array: neither the graph nor the thread is lost by it
    assert twice(torch.ones(3))()[0].tolist() == [2.0] * 3
    assert runtime._workers.take()


def test_streams_that_share_it_have_their_graphs_computed_beside_each_other() -> None:
    runtime = choose("openvino")
    begin = runtime.compile(Twice(), (torch.ones(3),))
    with pytest.raises((RuntimeError, ValueError)):
        begin(torch.ones(4))  # what cannot begin keeps nobody waiting
    assert begin(torch.ones(3))()[0].tolist() == [2.0] * 3
    runtime.beside = 2
    first, second = begin(torch.full((3,), 1.0)), begin(torch.full((3,), 2.0))  # the second one does not wait
    assert second()[0].tolist() == [4.0] * 3 and first()[0].tolist() == [2.0] * 3
