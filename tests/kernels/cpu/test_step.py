"""The Numba step is the offline forward of the same blocks, one bin at a time, and each of its parts is its formula."""

from __future__ import annotations

import gc
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kernels.cpu import jit as numba_jit, pack as numba_pack, rows as numba_rows, step as kernel
from kernels.cpu.jit import FLAGS
from kernels.cpu.tiles import in_parts, product
from kernels.cpu.vectors import LANES, LARGE_PAGE, LINE, aligned, at
from neds_core.config import ModelConfig
from neds_core.model.attention import attention
from neds_core.model.model import Block

# as the step is compiled: these flags are given to the vector instructions too
compiled = numba.njit(fastmath=FLAGS, error_model="numpy")


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
        "layers": (1, 3), "heads": (1, 3), "half": (1, 20), "band": (1, 40), "mlp_ratio": (1, 3), "n_sinks": (1, 4),
        "slots": (1, 6), "queries": (1, 6), "n_bins": (1, 16), "start": (0, 10**7), "seed": (0, 2**31),
    }  # fmt: skip
    return {name: draw(st.integers(*span)) for name, span in names.items()}


@settings(max_examples=30)
@given(case=cases(), live=st.lists(st.integers(0, 6), min_size=16, max_size=16), large=st.booleans())
@torch.inference_mode()
def test_step_is_the_offline_forward(case: dict[str, int], live: list[int], large: bool) -> None:
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_pack, "LARGE", 0 if large else math.inf)
        stack = numba_pack.pack(layers, arrays(norm), heads)
    assert stack.up.weight.dtype == (np.uint8 if large else np.float32)
    cache = numba_pack.make_cache(layers, heads, case["band"], case["slots"])
    work = numba_pack.make_work(stack, cache, case["slots"] + queries)
    parts = numba_pack.Parts(stack, cache, work)
    got = []
    for t, (n, shown) in enumerate(zip(n_keys, tokens, strict=True)):
        work.x[: len(shown), :width] = shown.numpy()
        kernel.step(parts, n, len(shown), case["start"] + t)
        got.append(work.x[n : len(shown), :width].copy())

    # 1e-4 of values of about 1: float32 through up to three layers, norms folded into weights, a polynomial erf;
    # the widths are small, so one LayerNorm may stretch a small difference
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-4, rtol=1e-4)


@compiled
def times_panels(w, row, n_rows, x, token, n_tokens, column, y, out):
    """y[token + t, out + r] = w[row + r] . x[token + t, column:]; beside int8 what `shortened` made of x."""
    parts, n_panels, columns, width = w.shape
    panel = columns * width
    product(
        at(w, row // LANES * panel), panel, n_panels * panel, parts * columns, n_rows // LANES,
        at(x, token * x.shape[1] + column), x.shape[1], n_tokens,
        at(y, token * y.shape[1] + out), y.shape[1],
    )  # fmt: skip


@compiled
def shortened(x, top, out):
    for t in range(0, len(x), 4):
        numba_rows.shortened(at(x, t * x.shape[1]), x.shape[1], top, at(out, t * out.shape[1]))


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(("n_rows", "n_in"), [(16, 16), (48, 32), (144, 144), (272, 32), (32, LANES), (32, 3 * LANES)])
@pytest.mark.parametrize("stored", [np.float32, np.uint16, np.int32])
def test_product_with_panels(n_tokens: int, n_rows: int, n_in: int, stored: type) -> None:
    """Of any row, column and token, and nothing beside the asked block is touched."""
    rng = np.random.default_rng(n_tokens * n_in)
    w = rng.standard_normal((n_rows + 16, n_in)).astype(np.float32)
    if stored is np.uint16:
        w = (w.view(np.uint32) >> 16).astype(np.uint16)
    if stored is np.int32:
        w = (w * 2.0**20).astype(np.int32)
        w[16, :4] = -(2**23), 2**23 - 1, -1, 0
    x = rng.standard_normal((n_tokens + 2, n_in + 5)).astype(np.float32)
    y = np.full((n_tokens + 2, n_rows + 3), np.nan, np.float32)

    np.testing.assert_array_equal(by_row(in_parts(w)), w)
    times_panels(in_parts(w), 16, n_rows, x, 1, n_tokens, 5, y, 2)

    if stored is np.uint16:
        w = (w.astype(np.uint32) << 16).view(np.float32)
    if stored is np.int32:
        y[1:-1, 2:-1] *= 2.0**-28  # of 256 w
        w = w * 2.0**-20
    expected = x[1:-1, 5:].astype(np.float64) @ w[16:].T.astype(np.float64)
    # 3e-5: each of up to 144 additions, one after the other, rounds a sum of about 12
    np.testing.assert_allclose(y[1:-1, 2:-1], expected, atol=3e-5)
    assert np.isnan(y).sum() == y.size - n_tokens * n_rows


@pytest.mark.parametrize("n_tokens", range(1, 10))
@pytest.mark.parametrize(
    ("n_rows", "n_in", "top"),
    [(16, 16, 32767), (48, 32, 9), (272, 512, 32767), (32, 1024, 16512), (32, LANES, 32767), (32, 3 * LANES, 32767)],
)
def test_product_of_whole_numbers(n_tokens: int, n_rows: int, n_in: int, top: int) -> None:
    """It is exact, up to the largest numbers that there are."""
    rng = np.random.default_rng(n_tokens * n_in)
    w = rng.integers(-127, 128, (n_rows + 16, n_in)).astype(np.int8)
    w[16] = rng.choice([-127, 127], n_in)
    x = np.zeros((n_tokens + 2, n_in + 2), np.int16)
    x[:, :n_in] = rng.integers(-top, top + 1, (n_tokens + 2, n_in))
    x[1, :n_in] = np.where(w[16] > 0, top, -top)
    x[:, n_in:] = np.ones((n_tokens + 2, 1), np.float32).view(np.int16)
    y = np.full((n_tokens + 2, n_rows + 3), np.nan, np.float32)

    np.testing.assert_array_equal(by_row(in_parts(w)), w)
    times_panels(in_parts(w), 16, n_rows, x, 1, n_tokens, 0, y, 2)

    expected = x[1:-1, :n_in].astype(np.int64) @ w[16:].T.astype(np.int64)
    np.testing.assert_array_equal(y[1:-1, 2:-1], expected.astype(np.float32))
    assert np.isnan(y).sum() == y.size - n_tokens * n_rows


@pytest.mark.parametrize("top", [32767, 16512, 100])
def test_shortened_rows(top: int) -> None:
    """Off by half a step at most; what is not finite leaves no finite step, and no mark on its neighbours."""
    x = (np.random.default_rng(top).standard_normal((8, 48)) * 10.0 ** np.arange(-4, 4)[:, None]).astype(np.float32)
    x[1], x[2, 40], x[3, 5], x[5, :2] = 0.0, np.nan, -np.inf, (np.inf, np.nan)
    out = np.full((9, 50), 77, np.int16)
    shortened(x, top, out)
    steps, good = out[:8, 48:].copy().view(np.float32), [0, 1, 4, 6, 7]
    assert np.isnan(steps[[2, 3, 5]]).all()
    np.testing.assert_allclose(steps[good, 0], np.abs(x[good]).max(1) / top, rtol=1e-6, atol=1e-30)
    off = np.abs(out[good, :48] * steps[good].astype(np.float64) - x[good]) / steps[good]
    assert off.max() <= 0.51  # 1e-2: float32's own rounding of a number of up to 32767
    assert (np.abs(out[good, :48]) <= top).all()
    assert (out[8] == 77).all()


@compiled
def normed(x, width, out):
    numba_rows.normed(at(x, 0), at(out, 0), x.shape[1], width)


@compiled
def gelu(x, erf):
    numba_rows.gelu(at(x, 0), x.shape[1], at(erf, 0))


@compiled
def softmax(scores, shown, far):
    numba_rows.softmax(at(scores, 0), scores.shape[1], at(shown, 0), at(far, 0))


@compiled
def rotate(plain, turned, heads, head, half, cosine, sine):
    numba_rows.rotate(at(plain, 0), at(turned, 0), heads, head, half, at(cosine, 0), at(sine, 0))


@pytest.mark.parametrize("width", [1, 15, 16, 33, 48])
def test_layer_norm_reads_no_padding(width: int) -> None:
    x = np.random.default_rng(width).standard_normal((4, 48)).astype(np.float32) * 3.0 + 1.0
    x[:, width:] = np.nan
    out = np.full_like(x, np.nan)
    normed(x, width, out)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x[:, :width]).double(), (width,)).numpy()
    np.testing.assert_allclose(out[:, :width], expected, atol=2e-6)  # float32's own rounding of values up to 4
    assert not out[:, width:].any()


def test_gelu_is_the_exact_one() -> None:
    x = np.concatenate([np.linspace(-12.0, 12.0, 4091), [0.0, -0.0, 1e-30, 1e30, -1e30]]).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    got = x.copy().reshape(4, -1)
    gelu(got, numba_pack._erf_coefficients())
    # 2e-7 of x: float32's own rounding of a value near 1, twice
    assert np.max(np.abs(got.ravel() - expected) / np.maximum(1.0, np.abs(expected))) < 4e-7


def test_softmax_over_what_is_shown() -> None:
    """Scores of any size; a hidden slot weighs exactly 0, whatever finite number it holds."""
    rng = np.random.default_rng(0)
    for spread in (0.1, 3.0, 60.0):
        scores = (rng.standard_normal((4, 64)) * spread).astype(np.float32)
        shown = (rng.random(64) < 0.5).astype(np.float32)
        highest = scores[:, shown > 0].max(1, keepdims=True)
        expected = np.where(shown > 0, np.exp(scores.astype(np.float64) - highest), 0.0)
        far = np.where(shown > 0, 0.0, numba_pack.FAR).astype(np.float32)
        softmax(scores, shown, far)
        np.testing.assert_allclose(scores, expected / expected.sum(1, keepdims=True), atol=1e-6)
        assert not scores[:, shown == 0].any()


@pytest.mark.parametrize("half", [1, 4, 8, 9, 16, 17, 40])
def test_rotation_of_every_head(half: int) -> None:
    """Of any width; what is written behind a head's numbers, before the next head, is 0."""
    rng = np.random.default_rng(half)
    heads, head = 3, numba_pack.padded(2 * half)
    plain, turned = rng.standard_normal(heads * head + LANES).astype(np.float32), np.full(heads * head + LANES, np.nan)
    turned = turned.astype(np.float32)
    angle = rng.uniform(0.0, 7.0, half).astype(np.float32)
    cosine, sine = (np.append(part(angle), np.zeros(LANES, np.float32)) for part in (np.cos, np.sin))
    rotate(plain, turned, heads, head, half, cosine, sine)
    pair = plain[: heads * head].reshape(heads, head).astype(np.float64)
    pair = (pair[:, :half] + 1j * pair[:, half : 2 * half]) * np.exp(1j * angle.astype(np.float64))
    got = turned[: heads * head].reshape(heads, head)
    np.testing.assert_allclose(got[:, :half], pair.real, atol=1e-6)
    np.testing.assert_allclose(got[:, half : 2 * half], pair.imag, atol=1e-6)
    behind = got[:, 2 * half :]
    assert not behind[~np.isnan(behind)].any()


def small(half: int, precision: numba_pack.Precision = "float32") -> tuple[list[numba_pack.Layer], numba_pack.Stack]:
    """Two layers of three heads and their packed form; the widths are no multiples of a vector."""
    heads, width = 3, 6 * half
    layers = kernel_layers(random_blocks(2, heads, 2 * half, 5, 2, seed=0), torch.randn(2, width))
    return layers, numba_pack.pack(layers, (np.ones(width, np.float32), np.zeros(width, np.float32)), heads, precision)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("half", [4, 8])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_poisoned_token_shows(poison: float, half: int, precision: numba_pack.Precision) -> None:
    """It is not turned into a plausible number, and a cold start removes every trace of it, whatever comes then."""
    layers, stack = small(half, precision)
    rng, slots, queries = np.random.default_rng(0), 3, 4
    cache, fresh = (numba_pack.make_cache(layers, 3, 5, slots) for _ in range(2))
    work, clean = (numba_pack.make_work(stack, one, slots + queries) for one in (cache, fresh))

    def run(
        cache: numba_pack.Cache, work: numba_pack.Work, token: np.ndarray, n_keys: int, position: int
    ) -> np.ndarray:
        work.x[: len(token), : token.shape[1]] = token
        kernel.step(numba_pack.Parts(stack, cache, work), n_keys, len(token), position)
        return work.x[n_keys : len(token), : token.shape[1]].copy()

    bad = rng.standard_normal((slots + queries, stack.width)).astype(np.float32)
    bad[0, 3] = poison
    assert not np.isfinite(run(cache, work, bad, slots, 0)).any()
    kernel.forget(cache)
    for position, (n_keys, asked) in enumerate([(0, 1), (1, 3), (3, 4), (2, 2), (0, 4), (3, 1), (1, 4)], 1):
        x = rng.standard_normal((n_keys + asked, stack.width)).astype(np.float32)
        got = run(cache, work, x, n_keys, position)
        assert np.isfinite(got).all()
        assert np.array_equal(got, run(fresh, clean, x, n_keys, position))


@pytest.mark.parametrize("half", [1, 4, 8, 9, 16, 17])
@pytest.mark.parametrize("fill", [1.0, np.nan])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_step_stays_in_its_buffers(half: int, fill: float, precision: numba_pack.Precision) -> None:
    """Made for exactly its tokens, they lie between numbers that it leaves alone, and NaNs that it does not use."""
    layers, stack = small(half, precision)
    rng = np.random.default_rng(half)
    for slots, asked in ((1, 1), (1, 3), (2, 4), (3, 4), (4, 5), (5, 1)):
        beside: list[np.ndarray] = []

        def moved(array: np.ndarray, beside: list[np.ndarray] = beside) -> np.ndarray:
            room = rng.standard_normal(array.size + 2048) * (fill if array.dtype == np.float32 else 100.0)
            room = room.astype(array.dtype)
            inside = room[1024:-1024].reshape(array.shape)
            inside[...] = array
            beside.extend([room[:1024], room[-1024:]])
            return inside

        cache = numba_pack.make_cache(layers, 3, 4, slots)
        cache = cache._replace(**{name: moved(getattr(cache, name)) for name in ("k", "v", "shown", "far")})
        work = numba_pack.Work(*(moved(one) for one in numba_pack.make_work(stack, cache, slots + asked)))
        parts = numba_pack.Parts(stack, cache, work)
        before = [one.copy() for one in beside]
        for position in range(6):
            n_keys = slots - position % 2
            work.x[: n_keys + asked, : stack.width] = rng.standard_normal((n_keys + asked, stack.width))
            kernel.step(parts, n_keys, n_keys + asked, position)
            assert np.isfinite(work.x[n_keys : n_keys + asked]).all()
        for one, then in zip(beside, before, strict=True):
            np.testing.assert_array_equal(one, then)


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


@pytest.mark.parametrize("spikes", [True, False])
@pytest.mark.parametrize("n_seen", [0, 1])
def test_a_bin_in_one_call_is_its_parts(spikes: bool, n_seen: int) -> None:
    rng = np.random.default_rng(0)
    n_units, width, n_asked, row, position = 7, 16, 2, 1, 10**7

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    layers = kernel_layers(random_blocks(2, 2, 8, 5, 2, seed=0), torch.ones(2, width))
    stack = numba_pack.pack(layers, (numbers(width), numbers(width)), 2)
    rows, constants, codes, asked = numbers(n_units, width), numbers(3, width), numbers(3, width), numbers(2, width)
    weight, bias, query, groups = numbers(3, width), numbers(3), np.array([1, 0, 0]), np.array([[1, 3]])
    scale, offset, counts, seen = numbers(3), numbers(3), rng.poisson(1.0, n_units).astype(np.uint16), numbers(width)
    found = np.zeros((2, 2, 3), np.float32)
    for values, whole in zip(found, (True, False), strict=True):
        cache = numba_pack.make_cache(layers, 2, 5, 2)
        work = numba_pack.make_work(stack, cache, 2 + n_asked)
        parts, n_keys, told = numba_pack.Parts(stack, cache, work), n_seen + spikes, np.zeros(3, np.float32)
        ends = numba_pack.Ends(rows, constants, codes, asked, weight, bias, query, groups, scale, offset, told)
        for i in range(2):  # the second reads what the first has kept
            work.x[int(spikes) : n_keys] = seen
            if whole:
                kernel.decode(parts, ends, counts, spikes, n_seen, row, position + i)
                values[i] = told
                continue
            if spikes:
                kernel.ingest(counts, rows, constants[row], work.x[0])
            work.x[n_keys : n_keys + n_asked] = asked + codes[row]
            kernel.step(parts, n_keys, n_keys + n_asked, position + i)
            kernel.read(work.x, n_keys, weight, bias, query, groups, told)
            values[i] = told * scale + offset
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-6)  # one rounding fewer, where it is fused


def test_a_step_allocates_nothing() -> None:
    """10,000 steps leave no Python object behind and compile nothing."""
    blocks = random_blocks(2, 2, 8, 5, 2, seed=0)
    layers = kernel_layers(blocks, torch.zeros(2, 16))
    stack = numba_pack.pack(layers, (np.ones(16, np.float32), np.zeros(16, np.float32)), 2)
    cache = numba_pack.make_cache(layers, 2, 5, 1)
    work = numba_pack.make_work(stack, cache, 3)
    parts = numba_pack.Parts(stack, cache, work)

    def run(n_steps: int) -> None:
        for position in range(n_steps):
            kernel.step(parts, position % 2, 3, position)

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
    """The inverse of `in_parts`."""
    *outer, parts, _, columns, _ = w.shape
    together = 2 if w.dtype == np.int8 else 1
    if w.dtype == np.uint8:
        low, middle, high = np.moveaxis(w.reshape(*w.shape[:-1], LANES, 3).astype(np.int32), -1, 0)
        w = low | middle << 8 | high.astype(np.int8).astype(np.int32) << 16
    pieces = w.reshape(*outer, parts, -1, columns // together, LANES, together).swapaxes(-3, -2)
    return np.moveaxis(pieces, -5, -3).reshape(*outer, -1, parts * columns)


@pytest.mark.parametrize("n_in", [64, 512])
def test_float32_weights_in_three_bytes(n_in: int) -> None:
    """Each within one unit in the last place of its row's largest, and a product about as far from the exact one."""
    rng = np.random.default_rng(n_in)
    w = rng.standard_normal((2, 64, n_in)).astype(np.float32)
    w[0, 1], w[0, 2], w[0, 3] = 0.0, w[0, 2] * np.float32(1e-20), w[0, 3] * np.float32(1e20)
    w[1, :8] *= 10.0 ** rng.uniform(-3, 0, (8, n_in)).astype(np.float32)  # rows whose largest stands alone
    rows = numba_pack._rows(list(w), list(np.zeros((2, 64), np.float32)), "float32", large=True)
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


def test_float32_rows_that_are_not_finite_stay_so() -> None:
    """No plausible number is made of a poisoned weight, and its neighbours keep theirs."""
    w = np.ones((64, 16), np.float32)
    w[3, 5], w[4, 0], w[5, 1] = np.nan, np.inf, -np.inf
    rows = numba_pack._rows([w], [np.zeros(64, np.float32)], "float32", large=True)
    y = np.zeros((1, 64), np.float32)
    times_panels(rows.weight[0], 0, 64, np.ones((1, 16), np.float32), 0, 1, 0, y, 0)
    with np.errstate(invalid="ignore"):
        y *= rows.scale[0]
    assert not np.isfinite(y[0, 3:6]).any()
    np.testing.assert_allclose(np.delete(y[0], [3, 4, 5]), 16.0, rtol=1e-6)


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 2.0**-8), ("int8", 1.0 / 254.0)])
def test_compact_weights_are_the_rounded_ones(precision: numba_pack.Precision, bound: float) -> None:
    """In fewer bits a weight is off by half a unit at most, and the step computes with exactly what is stored."""
    layers = kernel_layers(random_blocks(2, 2, 8, 5, 2, seed=0), torch.zeros(2, 16))
    norm = np.ones(16, np.float32), np.zeros(16, np.float32)
    exact, compact = numba_pack.pack(layers, norm, 2), numba_pack.pack(layers, norm, 2, precision)
    rounded = {}
    for name in ("qkv", "out", "up", "down"):
        rows, whole = getattr(compact, name), by_row(getattr(exact, name).weight)
        kept = by_row(rows.weight)
        stored = (kept.astype(np.uint32) << 16).view(np.float32) if precision == "bfloat16" else kept
        stored = (stored * rows.scale[..., None]).astype(np.float32)
        largest = np.abs(whole) if precision == "bfloat16" else np.abs(whole).max(2, keepdims=True)
        assert np.all(np.abs(stored - whole) <= bound * largest * 1.0001)
        rounded[name] = numba_pack.Rows(in_parts(stored), np.ones_like(rows.scale), rows.bias)
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    found = []
    for stack in (compact, exact._replace(**rounded)):
        cache = numba_pack.make_cache(layers, 2, 5, 1)
        work = numba_pack.make_work(stack, cache, 3)
        parts = numba_pack.Parts(stack, cache, work)
        for position in range(8):
            work.x[:3] = x + position
            kernel.step(parts, 1, 3, position)
        found.append(work.x[1:3].copy())
    # float32 products in another order; beside int8, tokens rounded to 1 / 65534 of their largest number, four times a
    # layer
    np.testing.assert_allclose(found[0], found[1], atol=1e-4 if precision == "int8" else 1e-5)


@pytest.mark.slow
@pytest.mark.skipif(LANES == 8, reason="this processor has no vectors of 512 bits: all tests ran with half the lanes")
def test_all_of_it_with_half_the_lanes() -> None:
    """As on a processor without vectors of 512 bits."""
    told = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    lanes = [sys.executable, "-c", "from kernels.cpu.vectors import LANES; print(LANES)"]
    assert subprocess.run(lanes, env=told, capture_output=True, text=True, check=True).stdout.strip() == "8"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", __file__]
    done = subprocess.run(command, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("n_bytes", [4, LINE, LARGE_PAGE // 2 - 4, LARGE_PAGE // 2, 2 * LARGE_PAGE + 4])
def test_aligned_zeros_with_a_line_on_either_side(n_bytes: int, dtype: type) -> None:
    made = aligned((n_bytes // np.dtype(dtype).itemsize,), dtype)
    room = made
    while isinstance(room.base, np.ndarray):
        room = room.base
    begin = made.ctypes.data - room.ctypes.data
    assert (made.ctypes.data % LINE, made.nbytes, made.flags.writeable) == (0, n_bytes, True)
    assert not made.any()
    assert LINE <= begin <= room.nbytes - n_bytes - LINE


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no large pages to give"
)
def test_large_numbers_ask_for_large_pages() -> None:
    made = aligned((LARGE_PAGE // 4,))
    assert made.ctypes.data % LARGE_PAGE == LINE  # so that what follows fills them whole
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if first := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(first[1], 16) <= made.ctypes.data < int(first[2], 16)
        elif inside and line.startswith("VmFlags:"):
            assert "hg" in line.split()
            return
    pytest.fail("the numbers lie in no mapping of this process")


@pytest.mark.parametrize(
    ("heads", "precision", "says"),
    [(1, "int4", "cannot be stored as 'int4'; give one of float32, bfloat16, int8"), (4, "int8", "12 is not 4 heads")],
)
def test_what_cannot_be_packed_is_refused(heads: int, precision: numba_pack.Precision, says: str) -> None:
    layers = kernel_layers(random_blocks(1, 2, 6, 3, 1, seed=0), torch.randn(1, 12))
    with pytest.raises(ValueError, match=says):
        numba_pack.pack(layers, arrays(nn.LayerNorm(12)), heads, precision)


def test_compiled_code_lies_where_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a folder of this state of the sources, never where Numba would look by itself; or nowhere."""
    (tmp_path / "file").touch()
    kept = numba_jit._cache_folder([tmp_path / "file", tmp_path / "second"])
    assert kept is not None
    assert Path(kept).parent == tmp_path / "second"
    assert not caplog.records

    monkeypatch.setattr(numba_jit, "CACHE", numba_jit._cache_folder([tmp_path / "file"]))
    assert numba_jit.CACHE is None
    assert "set NUMBA_CACHE_DIR" in caplog.text
    assert numba_jit.jit(lambda x: x + 1)(1) == 2
