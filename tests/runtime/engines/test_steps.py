"""After warm-up nothing is compiled and nothing is kept, however long a run lasts."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numba.core import event

from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import random_checkpoint, random_window
from neds_core.checkpoint import Checkpoint
from runtime.core.engine import Engine
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.rates import RateEngine
from runtime.engines.stream import StreamEngine

STEPS = 10_000
FEW = 10  # objects: the interpreter keeps a little here and there
BOTH = ("wheel_speed", "choice")


def a_cycle(n_units: int, n_outputs: int) -> list[Token]:
    """Bins dense and empty, with and without live data and behaviour, of different clocks."""
    rng = np.random.default_rng(0)
    tokens = []
    for t in range(60):
        seen = rng.integers(0, 2, n_outputs).astype(np.float32)
        seen[rng.random(n_outputs) < 0.4] = np.nan
        counts = rng.poisson((0.0, 0.1, 3.0)[t % 3], n_units).astype(np.uint16)
        tokens.append(Token(t, 0, counts, valid=t % 7 != 0, clock=t - 1, observed=None if t % 5 == 0 else seen))
    return tokens


def kept(engine: Engine | RateEngine, cycle: list[Token], steps: int = STEPS) -> int:
    """Python objects that the steps leave behind: in the first of five rounds to leave less than FEW, else in the last.

    What a step kept would be there in every round; the interpreter keeps hundreds in the first and tens in some others.
    """

    def run(n_steps: int) -> None:
        for i in range(n_steps):
            if i % 100 == 99:
                engine.reset(i)
            if i % 150 == 149:
                engine.skip(3)
            engine.step(cycle[i % len(cycle)])

    run(200)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            before = sys.getallocatedblocks()
            run(steps)
            left = sys.getallocatedblocks() - before
            if left < FEW:
                break
    finally:
        gc.enable()
    return left


@pytest.mark.parametrize("name", ["decode", "observed", "rates", "filtered"])
def test_ten_thousand_steps_compile_nothing_and_keep_nothing(
    make_checkpoint: Callable[..., Checkpoint], name: str
) -> None:
    """`warm_up` has run every path that a run can take."""
    checkpoint = make_checkpoint(clock_bins=4, filter_taus_ms=(30.0, 600.0) if name == "filtered" else ())
    decoder = StreamEngine(checkpoint, observed=BOTH if name == "observed" else ())
    prepare.warm_up(decoder, 12)
    engine = RateEngine(decoder) if name == "rates" else decoder

    with event.install_recorder("numba:compile") as compiled:
        left = kept(engine, a_cycle(12, 2))

    assert left < FEW
    assert len(compiled.buffer) == 0


@pytest.mark.parametrize("name", ["ridge", "blend"])
def test_the_linear_decoders_keep_nothing(tiny_checkpoint: Checkpoint, name: Literal["ridge", "blend"]) -> None:
    """Nor do they compile anything."""
    engine = engines.create(tiny_checkpoint, name)
    prepare.warm_up(engine, len(tiny_checkpoint.units))

    with event.install_recorder("numba:compile") as compiled:
        left = kept(engine, a_cycle(len(tiny_checkpoint.units), len(tiny_checkpoint.specs)))

    assert left < FEW
    assert len(compiled.buffer) == 0


def test_an_ensemble_and_its_sd_keep_nothing(judged_checkpoint: Checkpoint) -> None:
    """The sum, the variance between the networks, and the sd of it."""
    decoder = engines.decoder(judged_checkpoint, "recommended")
    engine, spread, out = decoder.engine, decoder.spread, np.zeros(3, np.float32)
    prepare.warm_up(engine, 12)
    step = engine.step
    assert spread is not None

    def with_sd(token: Token) -> np.ndarray:
        spread.sd(spread.variance, out)
        return step(token)

    engine.step = with_sd

    assert kept(engine, a_cycle(12, 2), steps=2000) < FEW
    assert out[0] > 0.0


def test_the_window_keeps_nothing() -> None:
    """Each computed whole, past the end of the last place too."""
    engine = engines.create(random_window(1, 12), "neds")
    prepare.warm_up(engine, 12)

    assert kept(engine, a_cycle(12, 4), steps=100) < FEW


@pytest.mark.parametrize("name", ["decode", "observed", "rates"])
def test_a_step_makes_no_array_even_for_a_moment(name: str) -> None:
    """A copy of the counts, of weights or of the cache would show at the peak; views are a few hundred bytes each."""
    size = Size(units=3000, layers=1, width=64, band=100)
    decoder = StreamEngine(random_checkpoint(size), observed=("wheel_speed", "choice") if name == "observed" else ())
    engine = RateEngine(decoder) if name == "rates" else decoder
    cycle = a_cycle(3000, 3)
    for token in cycle:
        engine.step(token)
    tracemalloc.start()
    try:
        engine.step(cycle[1])
        peaks = []
        for _ in range(5):  # what the steps make, they make in every round; what other threads make, in some
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            for token in cycle:
                engine.step(token)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()

    assert min(peaks) < 4000  # the smallest of them, a bin's counts, has 6000
