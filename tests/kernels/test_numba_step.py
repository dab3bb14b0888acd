"""The Numba step is the offline forward of the same blocks, one bin at a time, and each of its parts is its formula."""

from __future__ import annotations

import gc
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kernels import numba_pack, numba_step as kernel
from kernels.numba_tiles import across, linear, paired
from neds_core.attention import attention
from neds_core.config import ModelConfig
from neds_core.model import Block

MAX_TOKENS = 7


def random_blocks(layers: int, heads: int, head_width: int, band: int, mlp_ratio: int, seed: int) -> list[Block]:
    """Blocks with weights of ordinary size, norms that are not the identity, in evaluation mode."""
    torch.manual_seed(seed)
    size = ModelConfig(width=heads * head_width, layers=layers, heads=heads, band=band, mlp_ratio=mlp_ratio)
    blocks = [Block(size).eval().requires_grad_(False) for _ in range(layers)]
    for block in blocks:
        for norm in (block.norm_attention, block.norm_mlp):
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    return blocks


def arrays(module: nn.Linear | nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().numpy(), module.bias.detach().numpy()


def kernel_layers(blocks: list[Block], sinks: torch.Tensor) -> list[numba_pack.Layer]:
    """The blocks' weights, and the sinks' keys and values as they pass through them."""
    found, x = [], sinks[None]
    n = x.shape[1]
    for block in blocks:
        _, k, v = block.heads_of(x)
        parts = [arrays(m) for m in (block.norm_attention, block.qkv, block.out, block.norm_mlp, block.up, block.down)]
        found.append(numba_pack.Layer(*parts, k[0].numpy(), v[0].numpy()))  # pyright: ignore[reportCallIssue]
        x = block(x, torch.zeros(n, dtype=torch.int64), torch.zeros((1, n), dtype=torch.bool), n, attention)
    return found


@st.composite
def cases(draw: st.DrawFn) -> dict[str, int]:
    names = {
        "layers": (1, 3), "heads": (1, 3), "half": (1, 9), "band": (1, 6), "mlp_ratio": (1, 3), "n_sinks": (1, 4),
        "slots": (1, 3), "queries": (1, 4), "n_bins": (1, 16), "start": (0, 10**7), "seed": (0, 2**31),
    }  # fmt: skip
    return {name: draw(st.integers(*span)) for name, span in names.items()}


@settings(max_examples=30)
@given(case=cases(), live=st.lists(st.integers(0, 3), min_size=16, max_size=16))
@torch.inference_mode()
def test_step_is_the_offline_forward(case: dict[str, int], live: list[int]) -> None:
    """Any widths (not multiples of the lanes), bands, keys a bin, dropouts and starts, beyond where the ring wraps."""
    heads, head_width = case["heads"], 2 * case["half"]
    n_sinks, n_bins, queries, width = case["n_sinks"], case["n_bins"], case["queries"], heads * head_width
    blocks = random_blocks(case["layers"], heads, head_width, case["band"], case["mlp_ratio"], case["seed"])
    n_keys = [min(n, case["slots"]) for n in live[:n_bins]]
    sinks = torch.randn(n_sinks, width)
    tokens = [torch.randn(n + queries, width) for n in n_keys]
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)

    bins = torch.cat([torch.full((n + queries,), case["start"] + t) for t, n in enumerate(n_keys)])
    hidden = torch.cat([torch.arange(n + queries) >= n for n in n_keys])
    x = torch.cat([sinks, *tokens])[None]
    for block in blocks:
        x = block(
            x,
            torch.cat([bins.new_zeros(n_sinks), bins]),
            torch.cat([hidden.new_zeros(n_sinks), hidden])[None],
            n_sinks,
            attention,
        )
    expected = norm(x)[0, n_sinks:][hidden].numpy()

    layers = kernel_layers(blocks, sinks)
    stack = numba_pack.pack(layers, arrays(norm), heads)
    cache = numba_pack.make_cache(layers, heads, case["band"], case["slots"])
    work = numba_pack.make_work(stack, cache, MAX_TOKENS)
    got = []
    for t, (n, shown) in enumerate(zip(n_keys, tokens, strict=True)):
        work.x[: len(shown), :width] = shown.numpy()
        kernel.step(stack, cache, work, n, len(shown), case["start"] + t)
        got.append(work.x[n : len(shown), :width].copy())

    # 1e-4 of values of about 1: float32 through up to three layers, norms folded into weights, a polynomial erf;
    # the widths are small, so one LayerNorm may stretch a small difference
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(("n_rows", "n_in"), [(8, 8), (16, 24), (40, 136)])
def test_linear_is_the_matrix_product(n_tokens: int, n_rows: int, n_in: int) -> None:
    """From any row, column and token, and nothing beside the asked block is touched."""
    rng = np.random.default_rng(n_tokens * n_in)
    w = rng.standard_normal((n_rows + 8, n_in)).astype(np.float32)
    scale, bias = rng.standard_normal((2, n_rows + 8)).astype(np.float32)
    x = rng.standard_normal((n_tokens + 2, n_in + 5)).astype(np.float32)
    y = np.full((n_tokens + 2, n_rows + 3), np.nan, np.float32)

    np.testing.assert_array_equal(by_row(paired(w)[None])[0], w)
    linear(paired(w), scale, bias, 8, n_rows, x, 1, n_tokens, 5, y, 2)

    expected = x[1:-1, 5:].astype(np.float64) @ (scale[8:, None] * w[8:]).T.astype(np.float64) + bias[8:]
    # 1e-5: a float32 sum of up to 136 products of about 1
    np.testing.assert_allclose(y[1:-1, 2:-1], expected, atol=1e-5, rtol=1e-5)
    assert np.isnan(y).sum() == y.size - n_tokens * n_rows


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(("n", "n_columns"), [(1, 16), (5, 32), (24, 48)])
def test_across_is_the_product_with_the_rows(n_tokens: int, n: int, n_columns: int) -> None:
    """From any column and token, with fewer rows than there are, and nothing beside the asked block is touched."""
    rng = np.random.default_rng(n_tokens * n)
    w = rng.standard_normal((n + 3, n_columns + 16)).astype(np.float32)
    x = rng.standard_normal((n_tokens + 2, n + 5)).astype(np.float32)
    y = np.full((n_tokens + 2, n_columns + 3), np.nan, np.float32)

    across(w, n, 16, n_columns, x, 1, n_tokens, 5, y, 2)

    expected = x[1:-1, 5 : 5 + n].astype(np.float64) @ w[:n, 16:].astype(np.float64)
    np.testing.assert_allclose(y[1:-1, 2:-1], expected, atol=1e-5, rtol=1e-5)
    assert np.isnan(y).sum() == y.size - n_tokens * n_columns


def test_gelu_is_the_exact_one() -> None:
    x = np.concatenate([np.linspace(-12.0, 12.0, 4001), [0.0, -0.0, 1e-30, 1e30, -1e30]]).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    got = x.copy()
    kernel._gelu(got, numba_pack._erf_coefficients())
    # 2e-7 of x: float32's own rounding of a value near 1, twice
    assert np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected))) < 4e-7


def test_softmax_over_what_is_shown() -> None:
    """Scores of any size; a hidden slot weighs exactly 0, whatever it holds."""
    rng = np.random.default_rng(0)
    for spread in (0.1, 3.0, 60.0):
        score = (rng.standard_normal(64) * spread).astype(np.float32)
        shown = (rng.random(64) < 0.5).astype(np.float32)
        bits = np.zeros(64, np.int32)
        expected = np.where(shown > 0, np.exp(score.astype(np.float64) - score[shown > 0].max()), 0.0)
        far = np.where(shown > 0, 0.0, numba_pack.FAR).astype(np.float32)
        kernel._softmax(score[None], 0, shown, far, bits, bits.view(np.float32))
        np.testing.assert_allclose(score, expected / expected.sum(), atol=1e-6)
        assert not score[shown == 0].any()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_token_shows(poison: float) -> None:
    """It is not turned into a plausible number, and a cold start removes every trace of it."""
    blocks = random_blocks(2, 2, 8, 5, 2, seed=0)
    layers = kernel_layers(blocks, torch.randn(2, 16))
    stack = numba_pack.pack(layers, (np.ones(16, np.float32), np.zeros(16, np.float32)), 2)
    cache, fresh = (numba_pack.make_cache(layers, 2, 5, 1) for _ in range(2))
    x = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)

    def run(cache: numba_pack.Cache, token: np.ndarray, position: int) -> np.ndarray:
        work = numba_pack.make_work(stack, cache, 2)
        work.x[:] = token
        kernel.step(stack, cache, work, 1, 2, position)
        return work.x[1].copy()

    bad = x.copy()
    bad[0, 3] = poison
    assert not np.isfinite(run(cache, bad, 0)).all()
    kernel.forget(cache)
    assert np.array_equal(run(cache, x, 1), run(fresh, x, 1))


def test_a_spike_token_is_the_sum_of_its_units() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, 50).astype(np.uint16)
    rows, constant = rng.standard_normal((50, 12)).astype(np.float32), rng.standard_normal(12).astype(np.float32)
    token = np.full(16, 7.0, np.float32)
    kernel.ingest(counts, rows, constant, token)
    np.testing.assert_allclose(token[:12], constant + np.sqrt(counts) @ rows, atol=1e-5)
    assert (token[12:] == 7.0).all()


def test_heads_read_their_own_query() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((4, 8)).astype(np.float32)
    bias, query = rng.standard_normal(4).astype(np.float32), np.array([0, 1, 1, 1])
    out = np.zeros(4, np.float32)
    kernel.read(x, 1, weight, bias, query, np.array([[1, 4]]), out)
    logits = np.array([weight[v] @ x[1 + query[v]] + bias[v] for v in range(4)])
    shares = np.exp(logits[1:]) / np.exp(logits[1:]).sum()
    np.testing.assert_allclose(out, [logits[0], *shares], atol=1e-6)


def test_a_step_allocates_nothing() -> None:
    """10,000 steps leave no Python object behind and compile nothing."""
    blocks = random_blocks(2, 2, 8, 5, 2, seed=0)
    layers = kernel_layers(blocks, torch.zeros(2, 16))
    stack = numba_pack.pack(layers, (np.ones(16, np.float32), np.zeros(16, np.float32)), 2)
    cache = numba_pack.make_cache(layers, 2, 5, 1)
    work = numba_pack.make_work(stack, cache, 3)

    def run(n_steps: int) -> None:
        for position in range(n_steps):
            kernel.step(stack, cache, work, position % 2, 3, position)

    run(1000)
    compiled, grown = len(kernel.step.signatures), []
    gc.collect()
    gc.disable()
    for _ in range(5):
        before = sys.getallocatedblocks()
        run(10_000)
        grown.append(sys.getallocatedblocks() - before)
    gc.enable()
    # the interpreter keeps a little here and there; what a step kept would be there in every round
    assert min(grown) < 10
    assert len(kernel.step.signatures) == compiled
    assert math.isfinite(float(work.x.sum()))


def by_row(w: np.ndarray) -> np.ndarray:
    """The inverse of `paired`."""
    pairs = w.reshape(len(w), w.shape[1] // 2, -1, 2, 8)
    return pairs.swapaxes(2, 3).reshape(w.shape)


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 2.0**-8), ("int8", 1.0 / 254.0)])
def test_compact_weights_are_the_rounded_ones(precision: numba_pack.Precision, bound: float) -> None:
    """In fewer bits a weight is off by half a unit at most, and the step computes with exactly what is stored."""
    layers = kernel_layers(random_blocks(2, 2, 8, 5, 2, seed=0), torch.zeros(2, 16))
    norm = np.ones(16, np.float32), np.zeros(16, np.float32)
    exact, compact = numba_pack.pack(layers, norm, 2), numba_pack.pack(layers, norm, 2, precision)
    parts = {}
    for name in ("qkv", "out", "up", "down"):
        rows, whole = getattr(compact, name), by_row(getattr(exact, name).weight)
        kept = by_row(rows.weight)
        stored = (kept.astype(np.uint32) << 16).view(np.float32) if precision == "bfloat16" else kept
        stored = (stored * rows.scale[..., None]).astype(np.float32)
        largest = np.abs(whole) if precision == "bfloat16" else np.abs(whole).max(2, keepdims=True)
        assert np.all(np.abs(stored - whole) <= bound * largest * 1.0001)
        parts[name] = numba_pack.Rows(paired(stored), np.ones_like(rows.scale), rows.bias)
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    found = []
    for stack in (compact, exact._replace(**parts)):
        cache = numba_pack.make_cache(layers, 2, 5, 1)
        work = numba_pack.make_work(stack, cache, 3)
        for position in range(8):
            work.x[:] = x + position
            kernel.step(stack, cache, work, 1, 3, position)
        found.append(work.x.copy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)  # float32 products in another order
