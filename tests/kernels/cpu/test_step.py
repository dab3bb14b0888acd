"""The Numba step is its specification, and the offline forward of the same blocks, one bin at a time."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from kernels.cpu import pack, step as kernel
from kernels.cpu.pack import Layer
from kernels.cpu.vectors import LANES
from kernels.reference import make_cache, stream_block
from neds_core.model.attention import attention
from neds_core.model.model import Block
from runtime.engines.cuda_fused import pack_layer

HERE = Path(__file__).parent


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
def test_step_is_the_offline_forward(
    random_blocks: Callable[..., list[Block]],
    kernel_layers: Callable[..., list[Layer]],
    case: dict[str, int],
    live: list[int],
    large: bool,
) -> None:
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
        patch.setattr(pack, "LARGE", 0 if large else math.inf)
        stack = pack.pack(layers, (norm.weight.detach().numpy(), norm.bias.detach().numpy()), heads)
    assert stack.up.weight.dtype == (np.uint8 if large else np.float32)
    cache = pack.make_cache(layers, heads, case["band"], case["slots"])
    work = pack.make_work(stack, cache, case["slots"] + queries)
    parts = pack.Parts(stack, cache, work)
    got = []
    for t, (n, own) in enumerate(zip(n_keys, tokens, strict=True)):
        work.x[: len(own), :width] = own.numpy()
        kernel.step(parts, n, len(own), case["start"] + t)
        got.append(work.x[n : len(own), :width].copy())

    # 1e-4 of values of about 1: float32 through up to three layers, norms folded into weights, a polynomial erf;
    # the widths are small, so one LayerNorm may stretch a small difference
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_step_is_its_specification(
    random_blocks: Callable[..., list[Block]], kernel_layers: Callable[..., list[Layer]]
) -> None:
    """Layer after layer of `reference.stream_block`, over three bands, with other numbers of keys and queries a bin."""
    heads, width, band, n_tokens = 2, 16, 3, 4
    blocks = random_blocks(2, heads, width // heads, band, 2, seed=0)
    layers, weights = kernel_layers(blocks, torch.randn(2, width)), [pack_layer(block) for block in blocks]
    stack = pack.pack(layers, (np.ones(width, np.float32), np.zeros(width, np.float32)), heads)
    cache = pack.make_cache(layers, heads, band, n_tokens - 1)
    work = pack.make_work(stack, cache, n_tokens)
    parts = pack.Parts(stack, cache, work)
    sinks = [(torch.from_numpy(layer.sink_k), torch.from_numpy(layer.sink_v)) for layer in layers]
    caches = [make_cache(k, v, band, n_tokens) for k, v in sinks]
    for position in range(10**7, 10**7 + 3 * band):
        n_keys, x = position % n_tokens, torch.randn(1, n_tokens, width)
        work.x[:n_tokens, :width] = x[0].numpy()

        kernel.step(parts, n_keys, n_tokens, position)

        hidden = torch.arange(n_tokens) >= n_keys
        for weight, one in zip(weights, caches, strict=True):
            x = stream_block(x, weight, one, position=torch.tensor([position]), hidden=hidden)
        expected = nn.functional.layer_norm(x[0, n_keys:], (width,)).numpy()
        # 2e-5 of values of about 1: float32 sums in another order, through two layers
        np.testing.assert_allclose(work.x[n_keys:n_tokens, :width], expected, atol=2e-5)


def test_a_spike_token_is_the_sum_of_its_units() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, 50).astype(np.uint16)
    rows, constant = rng.standard_normal((50, 12)).astype(np.float32), rng.standard_normal(12).astype(np.float32)
    token = np.full(16, 7.0, np.float32)
    kernel.ingest(counts, rows, constant, token)
    np.testing.assert_allclose(token[:12], constant + np.sqrt(counts) @ rows, atol=1e-5)
    assert (token[12:] == 7.0).all()


@pytest.mark.parametrize("n_features", [1, 3, 4, 9])
def test_a_filtered_spike_token_is_the_sum_of_its_features(n_features: int) -> None:
    """Four rows at a time, and what is left."""
    rng = np.random.default_rng(n_features)
    features, rows = rng.random(n_features, np.float32), rng.standard_normal((n_features, 12)).astype(np.float32)
    constant, token = rng.standard_normal(12).astype(np.float32), np.full(16, 7.0, np.float32)
    kernel.ingest_filtered(features, rows, constant, token)
    np.testing.assert_allclose(token[:12], constant + features @ rows, atol=1e-5)
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
def test_a_bin_in_one_call_is_its_parts(
    random_blocks: Callable[..., list[Block]], kernel_layers: Callable[..., list[Layer]], spikes: bool, n_seen: int
) -> None:
    rng = np.random.default_rng(0)
    n_units, width, n_asked, row, position = 7, 16, 2, 1, 10**7

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    layers = kernel_layers(random_blocks(2, 2, 8, 5, 2, seed=0), torch.ones(2, width))
    stack = pack.pack(layers, (numbers(width), numbers(width)), 2)
    rows, constants, codes, asked = numbers(n_units, width), numbers(3, width), numbers(3, width), numbers(2, width)
    weight, bias, query, groups = numbers(3, width), numbers(3), np.array([1, 0, 0]), np.array([[1, 3]])
    scale, offset, counts, seen = numbers(3), numbers(3), rng.poisson(1.0, n_units).astype(np.uint16), numbers(width)
    found = np.zeros((2, 2, 3), np.float32)
    for values, whole in zip(found, (True, False), strict=True):
        cache = pack.make_cache(layers, 2, 5, 2)
        work = pack.make_work(stack, cache, 2 + n_asked)
        parts, n_keys, out = pack.Parts(stack, cache, work), n_seen + spikes, np.zeros(3, np.float32)
        none = np.zeros(0, np.float32)
        ends = pack.Ends(
            none,
            np.zeros((0, n_units), np.float32),
            none,
            rows,
            constants,
            codes,
            asked,
            weight,
            bias,
            query,
            groups,
            scale,
            offset,
            out,
        )
        for i in range(2):  # the second reads what the first has kept
            work.x[int(spikes) : n_keys] = seen
            if whole:
                kernel.decode(parts, ends, counts, spikes, n_seen, row, position + i)
                values[i] = out
                continue
            if spikes:
                kernel.ingest(counts, rows, constants[row], work.x[0])
            work.x[n_keys : n_keys + n_asked] = asked + codes[row]
            kernel.step(parts, n_keys, n_keys + n_asked, position + i)
            kernel.read(work.x, n_keys, weight, bias, query, groups, out)
            values[i] = out * scale + offset
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-6)  # one rounding fewer, where it is fused


def test_a_step_allocates_nothing(
    random_blocks: Callable[..., list[Block]], kernel_layers: Callable[..., list[Layer]]
) -> None:
    """10,000 steps leave no Python object behind and compile nothing."""
    blocks = random_blocks(2, 2, 8, 5, 2, seed=0)
    layers = kernel_layers(blocks, torch.zeros(2, 16))
    stack = pack.pack(layers, (np.ones(16, np.float32), np.zeros(16, np.float32)), 2)
    cache = pack.make_cache(layers, 2, 5, 1)
    work = pack.make_work(stack, cache, 3)
    parts = pack.Parts(stack, cache, work)

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


@pytest.mark.slow
@pytest.mark.skipif(LANES == 8, reason="this processor has no vectors of 512 bits: all tests ran with half the lanes")
def test_all_of_it_with_half_the_lanes() -> None:
    """As on a processor without vectors of 512 bits."""
    half = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    lanes = [sys.executable, "-c", "from kernels.cpu.vectors import LANES; print(LANES)"]
    assert subprocess.run(lanes, env=half, capture_output=True, text=True, check=True).stdout.strip() == "8"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", str(HERE)]
    done = subprocess.run(command, env=half, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
