# SPDX-License-Identifier: Apache-2.0
"""`flowact export` on the smallest presets: files compute what torch does, with inputs that they were not made with."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from flowact_ros.cli import main
from flowact_ros.diffusion.kv_cache import REFERENCE_AT
from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.engine.onnx_parts import Part, codec_parts, denoiser_part, denoiser_parts
from flowact_ros.engine.runtime.denoiser import FlatDenoiser, Level, flatten
from flowact_ros.models.checkpoint import fill_random
from flowact_ros.models.config import preset
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.onnx_export import Deviation, ExportError, check, deviations, export, run
from flowact_ros.models.precision import set_precision

FILLS = [1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx")
    to = ["--weights", "random", "--out", str(out)]
    assert main(["export", "--preset", "debug", "--fill", *map(str, FILLS), *to]) == 0
    assert main(["export", "--preset", "avatar_spatial_debug", "--only", "codec", *to]) == 0
    return out


@pytest.fixture(scope="module")
def parts() -> dict[str, Part]:
    """What the files were made from."""
    motion, spatial = preset("debug"), preset("avatar_spatial_debug")
    made = [*codec_parts(motion, "random"), *codec_parts(spatial, "random"), *denoiser_parts(motion, "random", FILLS)]
    return {part.name: part for part in made}


def others(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs of the same shapes, some way off."""
    generator = torch.Generator().manual_seed(9)
    return tuple(x + 0.3 * torch.randn(x.shape, generator=generator) for x in tensors)


def test_the_files_of_a_preset(folder: Path, parts: dict[str, Part]) -> None:
    names = {"mouth", "eyes", "body", "handsprites", "decoder"}
    names |= {"denoiser_fill1", "denoiser_entry", "denoiser_reference"}
    assert set(parts) == names
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("onnx", "json")}


@pytest.mark.parametrize(
    "name",
    ["mouth", "eyes", "body", "handsprites", "decoder", "denoiser_fill1", "denoiser_entry", "denoiser_reference"],
)
def test_a_file_computes_what_torch_does(folder: Path, parts: dict[str, Part], name: str) -> None:
    part, path = parts[name], folder / f"{name}.onnx"
    tensors = others(part.tensors)
    found = deviations(path, part.module, tensors, part.outputs)
    check(path, found)
    assert all(deviation.largest > 0.05 for deviation in found.values())
    card = json.loads(path.with_suffix(".json").read_text())
    assert [x["name"] for x in card["inputs"]] == list(part.inputs)
    assert [x["shape"] for x in card["inputs"]] == [list(x.shape) for x in tensors]
    assert [x["name"] for x in card["outputs"]] == list(part.outputs)
    assert all(output["error"] <= 1e-3 * output["largest"] or output["dtype"] == "uint8" for output in card["outputs"])
    assert card["preset"] in ("debug", "avatar_spatial_debug") and len(card["weights"]) == 16
    assert card["opset"] == 18 and "Conv" in card["operators"] or "MatMul" in card["operators"]


def test_a_file_notices_each_of_its_inputs(folder: Path, parts: dict[str, Part]) -> None:
    """What was constant while the file was made must not have become a constant of it."""
    part, path = parts["denoiser_fill1"], folder / "denoiser_fill1.onnx"
    (before,) = run(path, part.tensors)
    for i, name in enumerate(part.inputs):
        moved = [x + 1.0 if i == j else x for j, x in enumerate(part.tensors)]
        assert np.abs(run(path, moved)[0] - before).max() > 1e-4, name


def test_a_stream_begins_outside_torch(folder: Path, parts: dict[str, Part]) -> None:
    """Reference, first entry of memory and the chunk after it, by the files alone, are those of the memory bank."""
    model, generator = parts["denoiser_fill1"].module.model, torch.Generator().manual_seed(4)
    config = model.config

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def heard(slots: int) -> Condition:
        return Condition(noise(1, slots, 4, config.dit.audio_dim), noise(1, slots, 1, config.dit.text_dim))

    size = config.schedule.chunk_latents
    reference, first, second = noise(1, *config.dit.latent_shape), heard(size), heard(size)
    latents, noisy = noise(1, size, *config.dit.latent_shape), noise(1, size, *config.dit.latent_shape)
    level = torch.full((1, size), 0.5)
    with torch.inference_mode():
        bank = MemoryBank.start(model, reference).commit(model, latents, first)
        wanted = bank.predictor(model, second)(noisy, level)

    def at(*frames: float) -> Tensor:
        return torch.tensor(frames)

    clean = torch.zeros(1, 1)
    nothing = Condition(torch.zeros(1, 1, 4, config.dit.audio_dim), torch.zeros(1, 1, 1, config.dit.text_dim))
    flat = flatten(model, reference[:, None], clean, nothing, model.windows(at(REFERENCE_AT)))
    _, *seen = map(torch.from_numpy, run(folder / "denoiser_reference.onnx", flat))
    flat = flatten(model, latents[:, -1:], clean, first.slots(size - 1, size), model.windows(at(-4), at(REFERENCE_AT)))
    _, *entry = map(torch.from_numpy, run(folder / "denoiser_entry.onnx", (*flat, *seen)))
    past = [torch.cat(pair, 2) for pair in zip(seen, entry)]
    flat = flatten(model, noisy, level, second, model.windows(at(0, 4, 8), at(REFERENCE_AT, -4)))
    (got,) = run(folder / "denoiser_fill1.onnx", (*flat, *past))
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)


def narrow_parts() -> dict[str, Part]:
    """A denoiser and a decoder in bfloat16."""
    model = DiT(preset("debug", {"dit": {"single_blocks": 1}})).eval().requires_grad_(False)
    fill_random(model, device="cpu")
    entry = denoiser_part("entry", FlatDenoiser(model), Level(1, 1, 1))
    set_precision(model, "bfloat16", "cpu")
    past = [x.bfloat16() if name.startswith("past") else x for name, x in zip(entry.inputs, entry.tensors)]
    (decoder,) = codec_parts(preset("avatar_spatial_debug"), "random")
    decoder.module.to(torch.bfloat16)
    return {"entry": replace(entry, tensors=tuple(past)), "decoder": decoder}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entry", "decoder"])
def test_a_network_in_bfloat16_is_written_as_it_is(tmp_path: Path, name: str) -> None:
    """As TensorRT, which takes the types of the file, is given it. ONNX Runtime has no such kernels on a CPU; the
    reference of ONNX itself has."""
    part, path = narrow_parts()[name], tmp_path / f"{name}.onnx"
    export(part.module, part.tensors, path, part.inputs, part.outputs)
    written = onnx.load(str(path))
    onnx.checker.check_model(written, full_check=True)
    weights = [x for x in written.graph.initializer if np.prod(x.dims) > 1000]
    assert len(weights) > 10 and {x.data_type for x in weights} == {onnx.TensorProto.BFLOAT16}
    given = [x.float().numpy() for x in part.tensors]
    for i, x in enumerate(part.tensors):
        if x.dtype == torch.bfloat16:
            given[i] = given[i].astype(ml_dtypes.bfloat16)
    outputs = ReferenceEvaluator(written).run(None, dict(zip(part.inputs, given)))
    with torch.inference_mode():
        for wanted, got in zip(part.module(*part.tensors), outputs, strict=True):
            exact = wanted.float().numpy()
            assert np.abs(got.astype(np.float32) - exact).max() < 0.03 * np.abs(exact).max()


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    exact = Deviation(error=0.0, largest=2.0, shape=(3,), dtype="float32")
    check(tmp_path / "a.onnx", {"x": replace(exact, error=1e-4), "y": replace(exact, error=1.0, dtype="uint8")})
    rounded = replace(exact, error=2.0, dtype="uint8")
    for wrong in (replace(exact, error=0.01), replace(exact, error=float("nan")), rounded):
        with pytest.raises(ExportError, match="a.onnx: x is off by .* in ONNX Runtime; .* is allowed"):
            check(tmp_path / "a.onnx", {"x": wrong})


class Fourier(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.special.bessel_j0(x),)


def test_what_onnx_cannot_hold_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="^Fourier cannot be written as ONNX: [^\n]*bessel_j0[^\n]*$"):
        export(Fourier(), (torch.ones(2),), tmp_path / "fourier.onnx", ["x"], ["y"])
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_remedy_is_said(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "--preset", "debug", "--weights", "random", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "flowact export: ONNX needs the package onnx: `scripts/setup --extras onnx` or `pip install onnx`\n"
    )


@pytest.mark.parametrize(
    "arguments, status, told",
    [
        (["--preset", "debug"], 1, "preset debug comes without weights; --weights names their folder"),
        (["--weights", "/nowhere"], 1, "/nowhere holds no renderer.safetensors; --weights names their folder"),
        (["--only", "codec", "--fill", "1"], 2, "--fill is of the denoiser"),
        (["--only", "denoiser", "--fill", "9"], 2, "a memory of 9 entries was asked for; preset avatar_cpu"),
    ],
)
def test_bad_command_lines(tmp_path: Path, capsys, arguments: list[str], status: int, told: str) -> None:
    assert main(["export", "--out", str(tmp_path / "out"), *arguments]) == status
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "out").write_text("")
    assert main(["export", "--out", str(tmp_path / "out")]) == 2
    assert "out is no folder" in capsys.readouterr().err
