"""The GPU engines through the Triton kernels; run by `test_cuda.py` in a process of its own.

Without a GPU the kernels are interpreted on CPU tensors and no graph is captured; with one the same checks
run compiled, through the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from kernels.gpu.block import launch_block
from kernels.gpu.ends import launch_read, launch_tokens
from kernels.gpu.gradient import WindowAttention
from kernels.gpu.stream import step_call
from kernels.reference import Pattern, StreamCache
from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig, TrainConfig
from neds_core.model.model import NEDS
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.cuda_fused import Kernels
from runtime.engines.cuda_stream import CudaRateEngine, CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
U, BAND, WINDOW = 12, 4, 4
FAR = 10**7
BOTH = ("wheel_speed", "choice")
CLOSE = {"atol": 2e-5, "rtol": 2e-5}  # float32 sums in another order, through two layers, of values of about 1


def launch(q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, **rest: Tensor) -> Tensor:
    """`kernels.attention.stream_attention`, in Triton on any device."""
    step_call(q, k, v, cache, **rest).launch()
    return rest["out"]


# in Triton on any device
LAUNCHED = Kernels(launch_tokens, launch_block, launch_read, launch)


def window(q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: None, n_sinks: int) -> Tensor:
    """`kernels.attention.attention`, in Triton on any device."""
    return WindowAttention.apply(q, k, v, Pattern(position, hidden, band, n_sinks))


def in_z(engine: Any, values: np.ndarray) -> np.ndarray:
    """Values (T, V) in z-scores; probabilities stay as they are."""
    return (values - engine.layout.offset) / engine.layout.scale


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (n, U), valid (n,) with dropouts, and behaviour (n, 2) of which half is observed."""
    rng = np.random.default_rng(seed)
    seen = np.stack([rng.normal(2.0, 3.0, n), rng.integers(0, 2, n)], axis=1)
    seen[rng.random((n, 2)) < 0.5] = np.nan
    return rng.poisson(0.6, (n, U)).astype(np.uint16), rng.random(n) < 0.8, seen.astype(np.float32)


@pytest.mark.parametrize("fused", [False, True])
def test_stream_is_offline(make_checkpoint: Callable[..., Checkpoint], fused: bool) -> None:
    """Two bands and more of bins with dropouts, observed behaviour, skipped bins and a cold start far away."""
    checkpoint, n = make_checkpoint(band=BAND, clock_bins=4), 2 * BAND + 2
    engine = CudaStreamEngine(checkpoint, observed=BOTH, device=DEVICE, fused=fused, kernels=LAUNCHED)
    counts, valid, seen = drawn(n)
    clock, reset = np.arange(n), np.arange(n) == n - 2
    skipped = np.isin(np.arange(n), (4, 5))
    valid[skipped] = False

    streamed = np.zeros((n, 3), np.float32)
    for t in range(n):
        if reset[t]:
            engine.reset(FAR)
        if skipped[t]:
            engine.skip(1)
        else:
            streamed[t] = engine.step(Token(t, 0, counts[t], bool(valid[t]), clock=t, observed=seen[t]))

    expected = engine.offline(counts, valid, clock, reset, seen)
    np.testing.assert_allclose(in_z(engine, streamed[~skipped]), in_z(engine, expected[~skipped]), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CudaStreamEngine, CudaRateEngine])
def test_fused_is_plain(make_checkpoint: Callable[..., Checkpoint], kind: type[CudaStreamEngine]) -> None:
    """Both directions: the fused layers say what torch's own operations say, from a far start."""
    checkpoint, n = make_checkpoint(band=BAND, clock_bins=4), BAND + 2
    fused, plain = (kind(checkpoint, BOTH, DEVICE, fused=fused, kernels=LAUNCHED) for fused in (True, False))
    counts, valid, seen = drawn(n, seed=1)
    for engine in (fused, plain):
        engine.reset(FAR)
    for t in range(n):
        token = Token(t, 0, counts[t], bool(valid[t]), clock=t, observed=seen[t])

        mine, theirs = fused.step(token), plain.step(token)

        np.testing.assert_allclose(mine, theirs, **CLOSE)
    assert (fused.name, plain.name) == (kind.name, f"{kind.name}-plain")


def test_window_is_offline(make_checkpoint: Callable[..., Checkpoint], make_neds: Callable[..., NEDS]) -> None:
    """A window that fills, with a dropout and a late start, and nothing past its end."""
    causal = make_checkpoint(clock_bins=WINDOW)
    size = ModelConfig(attention="full", tokenizer="stitcher", width=32, heads=2, window_bins=WINDOW)
    config = TrainConfig("none", BOTH, model=size)
    header = msgspec.structs.replace(causal.header, config=config)
    engine = CudaWindowEngine(replace(causal, header=header, first=make_neds(size, (U,))), device=DEVICE, attend=window)
    counts, valid, _ = drawn(7)
    clock, reset = np.array([0, 1, 2, 3, 4, 2, 3]), np.arange(7) == 5
    valid[:4] = [False, True, False, True]

    streamed = []
    for t in range(7):
        if reset[t]:
            engine.reset()
        streamed.append(engine.step(Token(t, 0, counts[t], bool(valid[t]), clock=int(clock[t]))).copy())

    expected = engine.offline(counts, valid, clock, reset)
    np.testing.assert_allclose(in_z(engine, np.stack(streamed)), in_z(engine, expected), **CLOSE)
    assert np.isnan(streamed[4]).all()


@pytest.mark.skipif(DEVICE.type == "cpu", reason="CUDA graphs need a GPU")
def test_the_graph_takes_no_memory(make_checkpoint: Callable[..., Checkpoint]) -> None:
    """Hundreds of steps of an engine as `create` makes it, and nothing is allocated on the device."""
    engine = engines.create(make_checkpoint(band=BAND), "neds", device="cuda")
    counts, valid, _ = drawn(300)
    prepare.warm_up(engine, U)
    before = torch.cuda.memory_allocated()

    streamed = [engine.step(Token(t, 0, counts[t], bool(valid[t]))).copy() for t in range(300)]

    assert torch.cuda.memory_allocated() == before
    expected = engine.offline(counts, valid, np.full(300, -1), np.zeros(300, bool))
    np.testing.assert_allclose(in_z(engine, np.stack(streamed)), in_z(engine, expected), **CLOSE)
