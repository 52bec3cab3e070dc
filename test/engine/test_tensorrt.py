# SPDX-License-Identifier: Apache-2.0
"""TensorRT on a machine without it: what is built and kept, what is refused, and buffers, against torch.

`tensorrt_double` stands for the package. It runs the very ONNX files that the package would be given.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorrt_double import TensorRtDouble
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.runtime import tensorrt as runtime
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.engine.runtime.static import in_place
from flowact_ros.engine.runtime.tensorrt import Engines, TensorRt
from flowact_ros.engine.runtime.tensorrt_api import TensorRtError
from flowact_ros.models.checkpoint import fill_random
from flowact_ros.models.codec import motion as rig
from flowact_ros.models.codec.live import LiveCodec
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import debug
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.precision import set_precision

REAL = torch.cuda.is_available() and importlib.util.find_spec("tensorrt") is not None
CPU = torch.device("cpu")
CARD = "a card, compute capability 9.0"


class Twice(nn.Module):
    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * x, x + 1


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flowact_ros" / "tensorrt"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> TensorRtDouble:
    return installed(monkeypatch)


def installed(monkeypatch: pytest.MonkeyPatch, **how: str) -> TensorRtDouble:
    double = TensorRtDouble(**how)
    monkeypatch.setitem(sys.modules, "tensorrt", double)
    return double


def engines(card: str = CARD) -> Engines:
    return Engines(CPU, stream=lambda: 7, card=card)


def test_an_engine_reads_and_writes_the_same_buffers(package: TensorRtDouble) -> None:
    x = torch.tensor([1.0, 2.0])
    replay = engines()(Twice(), (x,))
    twice, more = replay()
    assert (twice.tolist(), more.tolist()) == ([2.0, 4.0], [2.0, 3.0])
    x.copy_(torch.tensor([5.0, 6.0]))
    assert replay()[0] is twice and twice.tolist() == [10.0, 12.0]
    assert package.starts == [7, 7] and package.builds == ["twice.onnx"]


def test_an_engine_is_kept_for_its_card_version_weights_and_shapes(
    package: TensorRtDouble, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, x = Twice(), torch.ones(2)

    def built(module: nn.Module, tensor: Tensor, card: str = CARD) -> int:
        before = len(package.builds)
        assert engines(card)(module, (tensor,))()[0].tolist() == (module.factor * tensor).tolist()
        return len(package.builds) - before

    assert [built(one, x), built(one, x), built(Twice(), x)] == [1, 0, 0]
    assert [built(Twice(3.0), x), built(one, torch.ones(3)), built(one, x, "another card")] == [1, 1, 1]
    package = installed(monkeypatch, version="11.5.0")
    assert [built(one, x), built(one, x)] == [1, 0]
    assert len(list(folder.iterdir())) == 5 and all(path.suffix == ".engine" for path in folder.iterdir())


def test_the_file_of_another_card_is_not_loaded_under_our_name(
    package: TensorRtDouble, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = torch.ones(2)
    engines("NVIDIA A10, compute capability 8.6")(Twice(), (x,))
    (theirs,) = folder.iterdir()
    engines()(Twice(), (x,))
    (ours,) = set(folder.iterdir()) - {theirs}
    theirs.replace(ours)
    assert engines()(Twice(), (x,))()[0].tolist() == [2.0, 2.0]
    assert len(package.builds) == 3
    assert f"its card is NVIDIA A10, compute capability 8.6, not {CARD}: it is built anew" in caplog.text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def older(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"flowact-engine-1", b"flowact-engine-0"))


@pytest.mark.parametrize(
    "spoil, why",
    [(cut, "damaged or truncated"), (empty, "does not say what it is of"), (older, "has another format")],
)
def test_a_spoiled_file_is_built_anew(
    package: TensorRtDouble, folder: Path, caplog: pytest.LogCaptureFixture, spoil, why: str
) -> None:
    engines()(Twice(), (torch.ones(2),))
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    spoil(path)
    assert engines()(Twice(), (torch.ones(2),))()[0].tolist() == [2.0, 2.0]
    assert why in caplog.text and path.read_bytes() == whole


def test_what_tensorrt_itself_refuses_is_built_anew(
    package: TensorRtDouble, caplog: pytest.LogCaptureFixture
) -> None:
    engines()(Twice(), (torch.ones(2),))
    package.tag = b"another driver\n"
    assert engines()(Twice(), (torch.ones(2),))()[0].tolist() == [2.0, 2.0]
    assert len(package.builds) == 2 and "does not take this engine; its log says why): it is built anew" in caplog.text
    assert "TensorRT: building twice.onnx" in caplog.text  # its log is in ours


def test_a_folder_that_cannot_be_written_costs_a_warning(
    package: TensorRtDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert engines()(Twice(), (torch.ones(2),))()[0].tolist() == [2.0, 2.0]
    assert "each start builds it anew" in caplog.text


def test_what_cannot_be_parsed_is_said_in_one_line(package: TensorRtDouble) -> None:
    package.messages = ["In node 3 (parseGraph):\nUNSUPPORTED_NODE", "and more"]
    with pytest.raises(TensorRtError, match=r"^TensorRT 11.4.0 cannot read twice.onnx: In node 3 .*NODE; and more$"):
        engines()(Twice(), (torch.ones(2),))


def test_an_engine_for_other_buffers_is_refused(
    package: TensorRtDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engines, "_build", lambda self, module, buffers: package.tag + small)
    path = Path(runtime.cache_folder()) / "small.onnx"
    runtime.export(Twice(), (torch.ones(1),), path, ["input_0"], ["output_0", "output_1"])
    small = path.read_bytes()
    with pytest.raises(TensorRtError, match=r"the engine of Twice has an input input_0 of \(\(1,\), torch.float32\)"):
        engines()(Twice(), (torch.ones(2),))


@pytest.fixture
def computes(package: TensorRtDouble) -> TensorRt:
    return TensorRt(CPU, engines=engines(), lanes=Lanes(CPU), others=in_place)


def stream_of(computes: TensorRt, chunk_done: Callable[[int], None]) -> None:
    """The latents are torch's, from an empty memory until it has been full for two chunks, in which it changes."""
    config, device = debug(), computes.device
    model = DiT(config)
    fill_random(model, device="cpu")
    model = model.to(device).eval().requires_grad_(False)
    static = computes.denoiser(model)
    size, generator = config.schedule.chunk_latents, torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    with torch.inference_mode():
        first = torch.zeros(1, *config.dit.latent_shape, device=device)
        banks = [MemoryBank.start(each, first) for each in (model, static)]
        for k in range(config.memory.long_term + 3):
            heard = Condition(noise(1, size, 4, config.dit.audio_dim), noise(1, size, 1, config.dit.text_dim))
            noisy, level = noise(1, size, *config.dit.latent_shape), torch.full((1, size), 0.7, device=device)
            wanted, got = (
                bank.predictor(each, heard)(noisy, level) for bank, each in zip(banks, (model, static))
            )
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
            chunk_done(k)
            banks = [bank.commit(each, wanted, heard) for bank, each in zip(banks, (model, static))]


def frames_of(computes: TensorRt) -> None:
    """Frames are torch's to one level of 255."""
    config = debug().renderer
    renderer = Renderer(config)
    fill_random(renderer, device="cpu")
    picture = torch.rand(1, 3, config.size, config.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    exact, drawn = LiveCodec(renderer), LiveCodec(renderer, computes.compile)
    who, _ = exact.encode(picture)
    for seed in (1, 2):
        motion = torch.randn(4, rig.CONTROLS, generator=torch.Generator().manual_seed(seed))
        wanted, got = (codec.render(who, motion).astype(int) for codec in (exact, drawn))
        assert np.abs(got - wanted).max() <= 1
    assert wanted.std() > 10


def test_a_stream_under_a_full_memory_runs_in_an_engine(
    computes: TensorRt, package: TensorRtDouble
) -> None:
    def chunk_done(k: int) -> None:
        assert len(package.starts) == max(0, k - debug().memory.long_term)

    stream_of(computes, chunk_done)
    assert package.builds == ["flatdenoiser.onnx"]


def test_frames_drawn_by_engines_are_those_of_torch(computes: TensorRt, package: TensorRtDouble) -> None:
    frames_of(computes)
    assert sorted(package.builds) == ["body.onnx", "eyes.onnx", "handsprites.onnx", "mouth.onnx"]
    assert len(package.starts) > 6  # two latents by three graphs, and hands
    assert computes.version == "tensorrt 11.4.0"


@pytest.mark.cuda
@pytest.mark.skipif(not REAL, reason="needs a CUDA GPU and the package tensorrt")
def test_engines_of_the_real_package_compute_what_torch_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    computes = TensorRt("cuda")
    stream_of(computes, lambda k: None)
    frames_of(computes)
    names = {"flatdenoiser", "mouth", "eyes", "body", "handsprites"}
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == names


def test_fp8_is_refused_with_what_would_do(computes: TensorRt) -> None:
    model = DiT(debug()).eval().requires_grad_(False)
    set_precision(model, "fp8", "cpu")
    with pytest.raises(ValueError, match="computes no fp8; use precision bfloat16, or runtime graphs for fp8"):
        computes.denoiser(model)
