# SPDX-License-Identifier: Apache-2.0
"""The bookkeeping of captured graphs, with a capture that calls the network again: same results, copies, levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import noise_for, rollout
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.engine.runtime.base import choose
from flowact_ros.engine.runtime.denoiser import (
    FlatDenoiser,
    Level,
    StaticDenoiser,
    example,
    levels,
    past_shapes,
)
from flowact_ros.engine.runtime.graphs import CudaGraphs
from flowact_ros.engine.runtime.lanes import Lanes
from flowact_ros.engine.runtime.static import Capture, Replay, ShapeError, Slot, StaticCall, in_place
from flowact_ros.models.config import ModelConfig, avatar_spatial_debug, debug, with_overrides
from flowact_ros.models.dit import Condition, DiT

CPU = torch.device("cpu")


class Recorder:
    """A `Capture` that notes what it captured and how often each was replayed, and overwrites what it gave before."""

    def __init__(self) -> None:
        self.captured: list[tuple[tuple[int, ...], ...]] = []
        self.replays: list[int] = []

    def __call__(self, module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
        index = len(self.captured)
        self.captured.append(tuple(tuple(x.shape) for x in buffers))
        places = [x.data_ptr() for x in buffers]
        outputs = [x.clone() for x in module(*buffers)]

        def replay() -> tuple[Tensor, ...]:
            assert [x.data_ptr() for x in buffers] == places
            self.replays.append(index)
            for mine, new in zip(outputs, module(*buffers)):
                mine.copy_(new)
            return tuple(outputs)

        return replay


def network(config: ModelConfig) -> DiT:
    torch.manual_seed(0)
    model = DiT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return model


@torch.inference_mode()
def stream(model: DiT | StaticDenoiser, chunks: int = 7) -> list[Tensor]:
    """Chunks of all sizes under memory of all fills."""
    config, generator = model.config, torch.Generator().manual_seed(1)
    sizes = [1 + i % config.schedule.chunk_latents for i in range(chunks)]
    conditions = [
        Condition(
            torch.randn(1, n, 4, config.dit.audio_dim, generator=generator),
            torch.randn(1, n, config.dit.text_tokens, config.dit.text_dim, generator=generator),
        )
        for n in sizes
    ]

    def noise(first: int, count: int) -> Tensor:
        return torch.stack([noise_for(3, first + i, config.dit.latent_shape) for i in range(count)], 1)

    bank = MemoryBank.start(model, torch.randn(1, *config.dit.latent_shape, generator=generator))
    made = list(rollout(model, bank, conditions, noise, step_sigmas(config.schedule)))
    return [latents for latents, _ in made] + [made[-1][1].refine(model).entries[-1].latent]


@pytest.mark.parametrize("make", [debug, avatar_spatial_debug])
def test_captured_levels_give_what_the_network_gives(make) -> None:
    config = with_overrides(make(), {"schedule": {"steps": 2}, "memory": {"long_term": 1}})
    model, recorder = network(config), Recorder()
    static = StaticDenoiser(model, recorder)
    static.prepare()
    for step, (captured, exact) in enumerate(zip(stream(static), stream(model), strict=True)):
        assert torch.equal(captured, exact), f"chunk {step}"
    assert len(recorder.captured) == len(levels(config)) == 10
    assert {0, 9} <= set(recorder.replays)  # a chunk under full memory, and the reference's own pass


def test_levels_of_the_steady_state_are_captured_first_and_told() -> None:
    config, lines, recorder = debug(), [], Recorder()
    static = StaticDenoiser(network(config), recorder)
    static.prepare(lines.append)
    full = 1 + config.memory.long_term + 1
    assert recorder.captured[0][0] == (1, config.schedule.chunk_latents, *config.dit.latent_shape)
    assert lines[0].startswith(f"the denoiser's graphs: 1 of {len(lines)} (3 slots under {full} cached ones)")
    assert len(lines) == len(recorder.captured) == 3 * full + 1
    static.prepare()
    assert len(recorder.captured) == len(lines)  # none of them again
    diagonal = with_overrides(config, {"schedule": {"order": "diagonal"}})
    assert {level.slots for level in levels(diagonal)} == set(range(1, 10))
    assert len(levels(config, (1, 4))) == 2 * len(lines)


def test_memory_is_copied_once_a_chunk_and_a_chunk_lies_where_it_lay(monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[int, set[int]] = {}

    def capture(module: nn.Module, buffers: tuple[Tensor, ...]) -> Replay:
        places.setdefault(buffers[0].shape[1], set()).add(buffers[0].data_ptr())
        return in_place(module, buffers)

    config = with_overrides(debug(), {"schedule": {"steps": 4}})
    static = StaticDenoiser(network(config), capture)
    static.prepare()
    assert all(len(addresses) == 1 for addresses in places.values()) and len(places) == 3
    bank = MemoryBank.start(static, torch.zeros(1, *config.dit.latent_shape))
    condition = Condition(torch.zeros(1, 2, 4, 384), torch.zeros(1, 2, 1, 384))
    copied, copy = [], Tensor.copy_
    monkeypatch.setattr(Tensor, "copy_", lambda self, *a, **k: (copied.append(self.shape), copy(self, *a, **k))[1])
    predict = bank.predictor(static, condition)
    for _ in range(3):
        predict(torch.randn(1, 2, *config.dit.latent_shape), torch.ones(1, 2))
    keys = past_shapes(static.model, Level(1, 2, 1))
    assert sum(shape in keys for shape in copied) == 2 * 3  # key and value of three layers, of the first evaluation
    assert sum(shape == condition.audio.shape for shape in copied) == 1


def test_a_changed_shape_is_an_error_that_names_both() -> None:
    static = StaticDenoiser(network(debug()), in_place)
    condition = Condition(torch.zeros(1, 4, 4, 384), torch.zeros(1, 4, 1, 384))
    noisy = torch.zeros(1, 4, *static.config.dit.latent_shape)
    windows = static.windows(torch.arange(4.0) * 4)
    with pytest.raises(ShapeError, match="prepared for 1 slots under 0 .* to 3 slots under 5 .*, not for 4 slots"):
        static(noisy, torch.zeros(1, 4), condition, windows)
    call = StaticCall("a sum", nn.Identity(), [Slot(torch.zeros(2, 3), CPU)], lambda m, x: lambda: (x[0] + 1,))
    assert call(torch.ones(2, 3))[0].tolist() == [[2.0] * 3] * 2
    with pytest.raises(ShapeError, match=r"a sum was prepared for tensors of \[\(2, 3\)\], not of \[\(3, 2\)\]"):
        call(torch.ones(3, 2))
    mask = static.windows(torch.zeros(1), mask=torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="without a mask"):
        static(noisy[:, :1], torch.zeros(1, 1), condition.slots(0, 1), mask)


def test_the_flat_network_takes_what_its_example_gives() -> None:
    model = network(debug())
    for level in (Level(1, 1, 0), Level(1, 1, 2), Level(2, 3, 5)):
        past = [torch.zeros(shape) for shape in past_shapes(model, level)]
        clean, *own = FlatDenoiser(model)(*example(model, level, CPU), *past)
        assert clean.shape == (level.batch, level.slots, *model.config.dit.latent_shape)
        assert len(own) == (6 if level.slots == 1 else 0)


@pytest.mark.slow
def test_blocks_can_be_compiled_whole() -> None:
    """By the compiler's front end, which finds what it cannot follow; its back end needs a GPU's compiler."""
    sizes = {"dit": {"single_blocks": 1}, "memory": {"long_term": 0}, "schedule": {"chunk_latents": 1, "steps": 1}}
    config = with_overrides(debug(), sizes)
    model, exact = network(config), network(config)
    compiled: list[nn.Module] = []

    def compile_block(block: nn.Module) -> None:
        compiled.append(block)
        block.compile(fullgraph=True, backend="eager")

    runtime = CudaGraphs("cpu", capture=in_place, lanes=Lanes(CPU), compile_block=compile_block)
    static = runtime.denoiser(model)
    lines: list[str] = []
    runtime.prepare(static, lines.append)
    assert len(compiled) == 2 and len(lines) == 3
    for made, wanted in zip(stream(static, 3), stream(exact, 3), strict=True):
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5)


def test_graphs_of_the_renderer_answer_as_the_module() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.factor * x, x + 1

    capture: Capture = Recorder()
    begin = CudaGraphs("cpu", capture=capture, lanes=Lanes(CPU)).compile(Twice(), (torch.zeros(3),))
    first, second = begin(torch.ones(3)), begin(torch.full((3,), 5.0))
    assert [x.tolist() for x in first()] == [[2.0] * 3, [2.0] * 3]  # the second did not overwrite it
    assert [x.tolist() for x in second()] == [[10.0] * 3, [6.0] * 3]
    with pytest.raises(ShapeError, match=r"Twice was prepared for tensors of \[\(3,\)\], not of \[\(4,\)\]"):
        begin(torch.ones(4))


def test_a_runtime_is_chosen_by_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.engine.runtime import base

    there = {"openvino"}
    monkeypatch.setattr(base, "installed", lambda package: package in there)
    assert choose("auto").name == "openvino" and choose("eager").name == "eager"
    there.clear()
    assert choose("auto").name == "eager"
    for name, device, message in (
        ("abacus", "cpu", "runtime 'abacus' does not exist; use auto, .* or tensorrt"),
        ("openvino", "cpu", "needs the package openvino"),
        ("graphs", "cpu", "runtime 'graphs' needs a CUDA GPU, and the device is cpu; use auto"),
        ("tensorrt", "cuda", "needs the package tensorrt"),
    ):
        with pytest.raises(ValueError, match=message):
            choose(name, device)
