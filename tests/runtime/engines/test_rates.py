"""The streamed encoding direction is the offline one, bin by bin, and sees behaviour alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from neds_core.model import directions, offline
from neds_core.train.windows import Windows
from runtime.core.values import Token
from runtime.engines.rates import RateEngine
from runtime.engines.stream import StreamEngine

U = 12
BOTH = ("wheel_speed", "choice")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # log-rates of about 1: float32 sums in another order, through two layers


def drawn(session: Session, seed: int, n: int, share: float, dropped: float) -> Session:
    """One segment of n bins with a share of the behaviour known."""
    rng = np.random.default_rng(seed)
    wheel = np.where(rng.random(n) < share, rng.normal(2.0, 3.0, n), np.nan).astype(np.float32)
    choice = np.where(rng.random(n) < share, rng.integers(0, 2, n), -1)
    return replace(
        session, counts=rng.poisson(0.6, (n, U)).astype(np.uint8), valid=rng.random(n) >= dropped,
        values={"wheel_speed": wheel, "choice": choice}, segments=np.array([[0, n]]), segment_ids=np.zeros(1, np.int64),
    )  # fmt: skip


def streamed(engine: RateEngine, session: Session, reset: np.ndarray, start: int = 0) -> np.ndarray:
    """Log-rates (T, U) bin by bin; each cold start at another position."""
    wheel, choice = (session.values[name].astype(np.float32) for name in BOTH)
    seen = np.stack([wheel, np.where(choice < 0, np.nan, choice)], axis=1).astype(np.float32)
    engine.reset(start)
    out = []
    for t, counts in enumerate(session.counts):
        if reset[t]:
            engine.reset(start + 3 * t)
        token = Token(t, 0, counts.astype(np.uint16), bool(session.valid[t]), clock=t, observed=seen[t])
        out.append(engine.step(token).copy())
    return np.log(np.stack(out))


def at_once(checkpoint: Checkpoint, session: Session, reset: np.ndarray, observed: tuple[str, ...]) -> np.ndarray:
    """Log-rates (T, U) of the offline direction."""
    windows = Windows(session, checkpoint.specs, checkpoint.scalers)
    return np.log(directions.encode(checkpoint.model, windows, offline.spans(reset), observed))


@pytest.mark.parametrize("observed", [BOTH, BOTH[:1], BOTH[1:]])
@pytest.mark.parametrize("kind", ["phase-free", "clocked", "filtered"])
@settings(max_examples=8)  # of each of nine engines
@given(data=st.data())
def test_stream_is_offline(
    tiny_ones: dict[str, Checkpoint], session: Session, draw_run: Callable[..., Any], kind: str,
    observed: tuple[str, ...], data: st.DataObject,
) -> None:  # fmt: skip
    """Over what is known, dropouts, cold starts and positions, far beyond where the ring wraps and evicts."""
    run = draw_run(data)
    checkpoint, bins = tiny_ones[kind], drawn(session, run.seed, run.n, run.share, run.dropped)
    reset = np.random.default_rng(run.seed + 1).random(run.n) < run.cold

    got = streamed(RateEngine(StreamEngine(checkpoint), observed), bins, reset, run.start)

    np.testing.assert_allclose(got, at_once(checkpoint, bins, reset, observed), **CLOSE)


def test_it_sees_behaviour_and_no_spike(tiny_ones: dict[str, Checkpoint], session: Session) -> None:
    """Other spikes change no bit; other behaviour changes the rates from its bin on, and none before."""
    checkpoint, bins, never = tiny_ones["phase-free"], drawn(session, 0, 30, 1.0, 0.0), np.zeros(30, bool)
    engine = RateEngine(StreamEngine(checkpoint))
    loud = replace(bins, counts=bins.counts + 3)
    wheel = bins.values["wheel_speed"].copy()
    wheel[12] -= 12.0 * np.sign(wheel[12] - 2.0)  # four standard deviations, to the other side of the mean
    turned = replace(bins, values={**bins.values, "wheel_speed": wheel})

    rates = streamed(engine, bins, never)

    np.testing.assert_array_equal(rates, streamed(engine, loud, never))
    other = streamed(engine, turned, never)
    np.testing.assert_array_equal(rates[:12], other[:12])
    assert np.abs(rates[12] - other[12]).max() > 0.05
    assert rates.std(0).min() > 0.02


def test_both_directions_run_over_one_set_of_weights(tiny_ones: dict[str, Checkpoint], session: Session) -> None:
    """Interleaved, bin by bin: neither changes the other."""
    checkpoint, bins, never = tiny_ones["phase-free"], drawn(session, 0, 20, 0.8, 0.2), np.zeros(20, bool)
    decoder, alone = StreamEngine(checkpoint), StreamEngine(checkpoint)
    rates = RateEngine(decoder)
    assert rates.weights is decoder.weights
    expected = streamed(rates, bins, never)
    rates.reset()

    for t in range(20):
        wheel, choice = bins.values["wheel_speed"][t], bins.values["choice"][t]
        seen = np.array([wheel, np.nan if choice < 0 else choice], np.float32)
        token = Token(t, 0, bins.counts[t].astype(np.uint16), bool(bins.valid[t]), observed=seen)
        np.testing.assert_array_equal(decoder.step(token), alone.step(token))
        np.testing.assert_array_equal(np.log(rates.step(token)), expected[t])


def test_a_skipped_bin_is_an_invalid_one(tiny_ones: dict[str, Checkpoint], session: Session) -> None:
    """To the last bit."""
    bins, never = drawn(session, 0, 30, 1.0, 0.0), np.zeros(30, bool)
    stepped, skipped = (RateEngine(StreamEngine(tiny_ones["phase-free"])) for _ in "ab")
    for engine in (stepped, skipped):
        streamed(engine, bins, never)
    for t in range(7):
        stepped.step(Token(t, 0, np.zeros(U, np.uint16), valid=False))

    skipped.skip(7)

    token = Token(0, 0, np.zeros(U, np.uint16), valid=True, observed=np.array([1.0, 0.0], np.float32))
    np.testing.assert_array_equal(stepped.step(token), skipped.step(token))
