"""The GPU engines without a GPU: their steps on CPU tensors, and their kernels interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.values import Token
from runtime.engines import create as engines
from runtime.engines.cuda_stream import CudaRateEngine, CudaStreamEngine
from runtime.engines.rates import RateEngine
from runtime.engines.stream import StreamEngine

HERE = Path(__file__).parent
CPU = torch.device("cpu")
U, BAND, CLOCK_BINS = 12, 5, 4
BOTH = ("wheel_speed", "choice")


@pytest.fixture(scope="module")
def clocked(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Random weights."""
    return make_checkpoint(band=BAND, clock_bins=CLOCK_BINS)


@pytest.mark.timeout(600)  # of its subprocess
@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_and_engines_together(marked: str) -> None:
    """The checks beside this file, interpreted where there is no GPU."""
    pytest.importorskip("triton", reason="triton is not installed; there is none for this platform")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    if not torch.cuda.is_available():
        env["TRITON_INTERPRET"] = "1"

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked, str(HERE / "check_cuda.py")],
        capture_output=True, text=True, env=env, cwd=HERE.parents[2], timeout=600,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-8000:]


Stream = CudaStreamEngine | CudaRateEngine | StreamEngine | RateEngine


def decoders(checkpoint: Checkpoint) -> tuple[CudaStreamEngine, StreamEngine]:
    """Of the GPU and of the CPU."""
    return CudaStreamEngine(checkpoint, BOTH, CPU), StreamEngine(checkpoint, observed=BOTH)


def encoders(checkpoint: Checkpoint) -> tuple[CudaRateEngine, RateEngine]:
    """The same of the other direction."""
    return CudaRateEngine(checkpoint, BOTH, CPU), RateEngine(StreamEngine(checkpoint), BOTH)


def plain(engine: Stream, values: np.ndarray) -> np.ndarray:
    """z-scores and probabilities, or log-rates: numbers of about 1."""
    if isinstance(engine, CudaRateEngine | RateEngine):
        return np.log(values)
    return (values - engine.layout.offset) / engine.layout.scale


def fused_decoders(checkpoint: Checkpoint) -> tuple[CudaStreamEngine, StreamEngine]:
    """The GPU's packed for the fused step, which on the CPU is the specification."""
    return CudaStreamEngine(checkpoint, BOTH, CPU, fused=True), StreamEngine(checkpoint, observed=BOTH)


def fused_encoders(checkpoint: Checkpoint) -> tuple[CudaRateEngine, RateEngine]:
    """The same of the other direction."""
    return CudaRateEngine(checkpoint, BOTH, CPU, fused=True), RateEngine(StreamEngine(checkpoint), BOTH)


@pytest.mark.parametrize("pair", [decoders, encoders, fused_decoders, fused_encoders])
@settings(max_examples=10)
@given(
    n=st.integers(1, 25),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    start=st.sampled_from([0, BAND - 1, 10**7]),
)
def test_it_is_the_cpu_engine(
    clocked: Checkpoint, pair: Callable[[Checkpoint], tuple[Stream, Stream]], n: int, seed: int, share: float,
    start: int,
) -> None:  # fmt: skip
    """The same values bin by bin, whatever is observed, dropped, skipped or forgotten."""
    rng = np.random.default_rng(seed)
    ours, theirs = pair(clocked)
    for engine in (ours, theirs):
        engine.reset(start)
    for t in range(n):
        seen = np.array([rng.normal(2.0, 3.0), rng.integers(0, 2)], np.float32)
        seen[rng.random(2) >= share] = np.nan
        event = rng.random()
        token = Token(t, 0, rng.poisson(0.6, U).astype(np.uint16), event < 0.8, clock=t - 1, observed=seen)
        for engine in (ours, theirs):
            if event > 0.95:
                engine.reset(start + 7 * t)
            elif event > 0.9:
                engine.skip(3)

        mine, other = (plain(engine, engine.step(token)) for engine in (ours, theirs))

        # 2e-5: as every stream engine against the offline forward
        np.testing.assert_allclose(mine, other, rtol=0.0, atol=2e-5, err_msg=f"bin {t}")


@pytest.mark.parametrize("bad", [(np.inf, np.nan), (np.nan, 2.0), (np.nan, -1.0)])
@pytest.mark.parametrize("kind", [CudaStreamEngine, CudaRateEngine])
def test_an_impossible_value_poisons_the_bin(
    clocked: Checkpoint, kind: type[CudaStreamEngine], bad: tuple[float, float]
) -> None:
    """As on the CPU, and a cold start heals."""
    engine, fresh = (kind(clocked, BOTH, CPU) for _ in "ab")
    counts = np.ones(U, np.uint16)

    said = engine.step(Token(0, 0, counts, valid=True, observed=np.array(bad, np.float32)))

    assert not np.isfinite(said).all()
    engine.reset()
    unseen = engine.step(Token(1, 0, counts, valid=False, observed=np.array(bad, np.float32))).copy()
    np.testing.assert_array_equal(unseen, fresh.step(Token(1, 0, counts, valid=False)))
    token = Token(2, 0, counts, valid=True)
    np.testing.assert_array_equal(engine.step(token), fresh.step(token))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused(clocked: Checkpoint) -> None:
    """And compact weights are the CPU's."""
    for decoder in ("neds", "blend"):
        with pytest.raises(ConfigError, match="torch finds no GPU here; set it to 'cpu'"):
            engines.create(clocked, decoder, device="cuda")
    with pytest.raises(ConfigError, match=r"runs on the GPU; leave engine\.weights at 'float32'"):
        engines.create(clocked, "neds", "int8", "cuda")
