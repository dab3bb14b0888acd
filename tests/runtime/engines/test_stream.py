"""What the stream engine refuses before compiled code reads it, and what it copies."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cpu import step as kernel
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.values import Token
from runtime.engines.cuda_stream import CudaRateEngine, CudaStreamEngine
from runtime.engines.rates import RateEngine
from runtime.engines.stream import StreamEngine
from runtime.engines.torch_stream import TorchStreamEngine

U = 12


@pytest.mark.parametrize("counts", [np.zeros(U + 1, np.uint16), np.zeros(U, np.int64), np.zeros((1, U), np.uint16)])
@pytest.mark.parametrize("valid", [True, False])
def test_counts_of_another_recording_are_refused(
    tiny_ones: dict[str, Checkpoint], counts: np.ndarray, valid: bool
) -> None:
    """Compiled code would read beyond its rows, and say something plausible."""
    with pytest.raises(ValueError, match=rf"counts are {counts.dtype} .*this decoder takes uint16 \({U},\)"):
        StreamEngine(tiny_ones["phase-free"]).step(Token(0, 0, counts, valid=valid))


@pytest.mark.parametrize("valid", [True, False])
def test_a_clock_that_cannot_be_is_refused(tiny_ones: dict[str, Checkpoint], valid: bool) -> None:
    engine = StreamEngine(tiny_ones["phase-free"])
    for one in (engine, RateEngine(engine)):
        with pytest.raises(IndexError):
            one.step(Token(0, 0, np.zeros(U, np.uint16), valid=valid, clock=-99))


def test_the_plain_engine_computes_filters_too(tiny_ones: dict[str, Checkpoint]) -> None:
    """The kernels' step is compared with it; over dropouts, a cold start and bins that go unseen."""
    rng = np.random.default_rng(0)
    counts, valid, found = rng.poisson(0.5, (60, U)).astype(np.uint16), rng.random(60) < 0.8, []
    for engine in (StreamEngine(tiny_ones["filtered"]), TorchStreamEngine(tiny_ones["filtered"])):
        said = []
        for t in range(60):
            if t == 40:
                engine.reset(7)
            if t == 20:
                engine.skip(3)
            said.append(engine.step(Token(t, 0, counts[t], valid=bool(valid[t]), clock=t % 3)).copy())
        found.append(np.stack(said))

    # 1e-5 of values of about 1: float32 sums in another order
    np.testing.assert_allclose(*found, atol=1e-5 * engine.layout.scale.max(), rtol=1e-5)


def test_a_gpu_refuses_filters(tiny_ones: dict[str, Checkpoint]) -> None:
    for engine in (CudaStreamEngine, CudaRateEngine):
        with pytest.raises(ConfigError, match=r"'tiny' has model.filter_taus_ms; set engine.device to 'cpu'"):
            engine(tiny_ones["filtered"])


def test_counts_that_lie_otherwise_compile_nothing(tiny_ones: dict[str, Checkpoint]) -> None:
    engine = StreamEngine(tiny_ones["phase-free"])
    counts = np.random.default_rng(0).poisson(1.0, (U, 2)).astype(np.uint16)
    strided, plain = counts[:, 0], counts[:, 0].copy()
    frozen = plain.copy()
    frozen.flags.writeable = False
    said, compiled = [], None
    for one_count in (plain, strided, frozen):
        engine.reset()
        said.append(engine.step(Token(0, 0, one_count, valid=True)).tolist())
        compiled = compiled or len(kernel.decode.signatures)
    assert len(kernel.decode.signatures) == compiled
    assert said[0] == said[1] == said[2]
