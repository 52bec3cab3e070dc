# SPDX-License-Identifier: Apache-2.0
"""Triton kernels against torch. `test_kernels.py` runs this file in a process of its own: whether kernels are compiled
for the GPU or interpreted is decided when triton is imported.
"""

from __future__ import annotations

import os

import pytest
import torch

from flowact_ros.engine.kernels import gate, modulate, operations, rope
from flowact_ros.models import operations as plain
from flowact_ros.models.config import DiTConfig, ModelConfig
from flowact_ros.models.dit import Condition, DiT
from flowact_ros.models.fp8 import E4M3, Rows, use_fp8
from flowact_ros.models.rope import rotate, rotation

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(scope="module")
def kernels() -> plain.Operations:
    return operations()


def tokens(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def vectors(of: int, x: torch.Tensor) -> list[torch.Tensor]:
    """Three parts of one wider row, as a modulation gives them; `of`: tokens that share one."""
    b, s, t, d = x.shape
    return list(tokens(b, s, t // of, 3 * d, dtype=x.dtype, seed=1).mul(0.3).chunk(3, -1))


ACCURACY = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(ACCURACY))
@pytest.mark.parametrize("shared", [1, 3])
def test_norm_and_modulation(kernels: plain.Operations, dtype: torch.dtype, shared: int) -> None:
    x = tokens(2, 2, 3, 48, dtype=dtype) * 5 + 1  # 48 columns: the block of 64 has an end that is masked
    shift, scale, _ = vectors(shared, x)
    out, exact = kernels.modulate(x, shift, scale), plain.modulate(x, shift, scale)
    torch.testing.assert_close(out, exact, rtol=ACCURACY[dtype], atol=ACCURACY[dtype])
    torch.testing.assert_close(modulate.reference(x, shift, scale), exact, rtol=ACCURACY[dtype], atol=ACCURACY[dtype])
    with pytest.raises(ValueError, match="do not fit tokens"):
        kernels.modulate(x, shift[:, :1], scale)


def test_fp8_rows_of_the_same_pass(kernels: plain.Operations) -> None:
    x = tokens(1, 2, 3, 48)
    x[0, 0, 0] *= 1000
    shift, scale, _ = vectors(1, x)
    made, exact = kernels.modulate_rows(x, shift, scale), modulate.reference_rows(x, shift, scale)
    assert isinstance(made, Rows) and made.values.dtype == E4M3 and (made.axes, made.dtype) == (exact.axes, exact.dtype)
    torch.testing.assert_close(made.scale, exact.scale, rtol=1e-5, atol=0)
    given, wanted = made.values.float(), exact.values.float()
    same = given == wanted
    if DEVICE == "cpu":  # the interpreter's cast loses the carry of a mantissa that is rounded up to a power of two
        same |= (wanted.frexp().mantissa.abs() == 0.5) & (2 * given == wanted)
    assert same.float().mean() > 0.99  # the others lie between two steps, as close as torch's last bits
    assert ((given - wanted).abs() <= 0.125 * wanted.abs().clamp_min(1))[~same].all()
    wide = kernels.modulate_rows(x, shift * 1e6, scale)
    assert torch.isfinite(wide.values.float()).all()


@pytest.mark.parametrize("dtype", list(ACCURACY))
def test_rotation(kernels: plain.Operations, dtype: torch.dtype) -> None:
    x = tokens(2, 2, 19, 24, dtype=dtype)  # 19 tokens: the second block of 16 is masked
    tables = tuple(t.to(DEVICE) for t in rotation(torch.arange(19.0)[:, None] - 7, (24,), 100.0))
    bound = {"rtol": ACCURACY[dtype], "atol": ACCURACY[dtype]}
    torch.testing.assert_close(kernels.rotate(x, tables), rotate(x, tables), **bound)
    torch.testing.assert_close(rope.reference(x, tables), rotate(x, tables), **bound)
    torch.testing.assert_close(kernels.rotate(x.transpose(0, 1), tables), rotate(x, tables).transpose(0, 1), **bound)
    each = tuple(torch.stack([t, t.flip(0)])[:, None] for t in tables)  # of two streams
    torch.testing.assert_close(kernels.rotate(x, each), rotate(x, each), **bound)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.rotate(x, tuple(t[:5] for t in tables))


@pytest.mark.parametrize("dtype", list(ACCURACY))
@pytest.mark.parametrize("shared", [1, 3])
def test_gated_sum(kernels: plain.Operations, dtype: torch.dtype, shared: int) -> None:
    x, a, b = (tokens(2, 2, 3, 40, dtype=dtype, seed=i) for i in range(3))
    by = vectors(shared, x)[2]
    for parts in ((a,), (a, b)):
        exact = plain.gate(x, by, *parts)
        bound = {"rtol": ACCURACY[dtype], "atol": ACCURACY[dtype]}
        torch.testing.assert_close(kernels.gate(x, by, *parts), exact, **bound)
        torch.testing.assert_close(gate.reference(x, by, *parts), exact, **bound)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fp8", [False, True])
def test_a_network_computes_the_same_with_them(kernels: plain.Operations, fp8: bool, compiled: bool) -> None:
    sizes = DiTConfig(width=32, heads=2, double_blocks=1, single_blocks=1, rope_axes=(16,), mlp_ratio=2)
    torch.manual_seed(0)
    model = DiT(ModelConfig(name="small", dit=sizes)).to(DEVICE).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    if fp8:
        use_fp8(model.double_blocks)
        use_fp8(model.single_blocks)
    c = model.config.dit
    condition = Condition(tokens(1, 2, 4, c.audio_dim), tokens(1, 2, c.text_tokens, c.text_dim))
    noisy, at = tokens(1, 2, *c.latent_shape), torch.arange(2.0, device=DEVICE) * 4
    sigma = torch.full((1, 2), 0.5, device=DEVICE)

    def clean() -> torch.Tensor:
        return model(noisy, sigma, condition, model.windows(at))[0]

    exact = clean()
    for block in (*model.double_blocks, *model.single_blocks) if compiled else ():
        block.compile(fullgraph=True, backend="eager")  # what the compiler cannot follow is an error
    plain.set_operations(model, kernels)
    torch.testing.assert_close(clean(), exact, rtol=0, atol=0.05 if fp8 else 1e-4)
    assert not torch.equal(clean(), exact)  # they were used
    plain.set_operations(model, plain.TORCH)
    assert compiled or torch.equal(clean(), exact)
