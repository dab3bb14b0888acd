"""Weights as they are packed: each is within its rounding, and the step computes with exactly what is stored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kernels.cpu import pack, step as kernel
from kernels.cpu.pack import Layer
from kernels.cpu.tiles import in_parts
from neds_core.model.model import Block


@pytest.mark.parametrize("n_in", [64, 512])
def test_float32_weights_in_three_bytes(
    times_panels: Callable[..., None], by_row: Callable[..., np.ndarray], n_in: int
) -> None:
    """Each within one unit in the last place of its row's largest, and a product about as far from the exact one."""
    rng = np.random.default_rng(n_in)
    w = rng.standard_normal((2, 64, n_in)).astype(np.float32)
    w[0, 1], w[0, 2], w[0, 3] = 0.0, w[0, 2] * np.float32(1e-20), w[0, 3] * np.float32(1e20)
    w[1, :8] *= 10.0 ** rng.uniform(-3, 0, (8, n_in)).astype(np.float32)  # rows whose largest stands alone
    rows = pack._rows(list(w), list(np.zeros((2, 64), np.float32)), "float32", large=True)
    kept = by_row(rows.weight) * 256.0 * rows.scale[..., None].astype(np.float64)
    largest = np.abs(w).max(2, keepdims=True)
    assert rows.weight.nbytes == w.nbytes * 3 // 4
    assert np.all(np.abs(kept - w) <= np.spacing(largest))

    x = rng.standard_normal((16, n_in)).astype(np.float32)
    exact, size = x.astype(np.float64) @ w[1].T.astype(np.float64), np.abs(w[1]).max(1)
    ours, plain = (np.zeros((16, 64), np.float32) for _ in range(2))
    times_panels(rows.weight[1], 0, 64, x, 0, 16, 0, ours, 0)
    times_panels(in_parts(w[1]), 0, 64, x, 0, 16, 0, plain, 0)
    off, off_plain = (np.sqrt(np.mean(((y - exact) / size) ** 2)) for y in (ours * rows.scale[1], plain))
    assert off <= 1.5 * off_plain  # measured 1.0 to 1.4: the sum's own rounding is the greater part


def test_float32_rows_that_are_not_finite_stay_so(times_panels: Callable[..., None]) -> None:
    """No plausible number is made of a poisoned weight, and its neighbours keep theirs."""
    w = np.ones((64, 16), np.float32)
    w[3, 5], w[4, 0], w[5, 1] = np.nan, np.inf, -np.inf
    rows = pack._rows([w], [np.zeros(64, np.float32)], "float32", large=True)
    y = np.zeros((1, 64), np.float32)
    times_panels(rows.weight[0], 0, 64, np.ones((1, 16), np.float32), 0, 1, 0, y, 0)
    with np.errstate(invalid="ignore"):
        y *= rows.scale[0]
    assert not np.isfinite(y[0, 3:6]).any()
    np.testing.assert_allclose(np.delete(y[0], [3, 4, 5]), 16.0, rtol=1e-6)


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 2.0**-8), ("int8", 1.0 / 254.0)])
def test_compact_weights_are_the_rounded_ones(
    by_row: Callable[..., np.ndarray],
    random_blocks: Callable[..., list[Block]],
    kernel_layers: Callable[..., list[Layer]],
    precision: pack.Precision,
    bound: float,
) -> None:
    """In fewer bits a weight is off by half a unit at most, and the step computes with exactly what is stored."""
    layers = kernel_layers(random_blocks(2, 2, 8, 5, 2, seed=0), torch.zeros(2, 16))
    norm = np.ones(16, np.float32), np.zeros(16, np.float32)
    exact, compact = pack.pack(layers, norm, 2), pack.pack(layers, norm, 2, precision)
    rounded = {}
    for name in ("qkv", "out", "up", "down"):
        rows, whole = getattr(compact, name), by_row(getattr(exact, name).weight)
        kept = by_row(rows.weight)
        stored = (kept.astype(np.uint32) << 16).view(np.float32) if precision == "bfloat16" else kept
        stored = (stored * rows.scale[..., None]).astype(np.float32)
        largest = np.abs(whole) if precision == "bfloat16" else np.abs(whole).max(2, keepdims=True)
        assert np.all(np.abs(stored - whole) <= bound * largest * 1.0001)
        rounded[name] = pack.Rows(in_parts(stored), np.ones_like(rows.scale), rows.bias)
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    found = []
    for stack in (compact, exact._replace(**rounded)):
        cache = pack.make_cache(layers, 2, 5, 1)
        work = pack.make_work(stack, cache, 3)
        parts = pack.Parts(stack, cache, work)
        for position in range(8):
            work.x[:3] = x + position
            kernel.step(parts, 1, 3, position)
        found.append(work.x[1:3].copy())
    # float32 products in another order; beside int8, tokens rounded to 1 / 65534 of their largest number, four times a
    # layer
    np.testing.assert_allclose(found[0], found[1], atol=1e-4 if precision == "int8" else 1e-5)


@pytest.mark.parametrize(
    ("heads", "precision", "says"),
    [(1, "int4", "cannot be stored as 'int4'; give one of float32, bfloat16, int8"), (4, "int8", "12 is not 4 heads")],
)
def test_what_cannot_be_packed_is_refused(
    random_blocks: Callable[..., list[Block]],
    kernel_layers: Callable[..., list[Layer]],
    heads: int,
    precision: pack.Precision,
    says: str,
) -> None:
    layers = kernel_layers(random_blocks(1, 2, 6, 3, 1, seed=0), torch.randn(1, 12))
    with pytest.raises(ValueError, match=says):
        pack.pack(layers, (np.ones(12, np.float32), np.zeros(12, np.float32)), heads, precision)
