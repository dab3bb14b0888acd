"""An engine that observes behaviour decodes what the model decodes at once; an engine of the live loop ignores it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from neds_core.model.model import Batch
from runtime.core.values import Token
from runtime.engines.stream import StreamEngine

U, CLOCK_BINS = 12, 4
BOTH = ("wheel_speed", "choice")
# float32 sums in another order, through two layers, of values of about 1
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}


def in_z(engine: StreamEngine, values: np.ndarray) -> np.ndarray:
    """Values (T, V) in z-scores; probabilities stay as they are."""
    return (values - engine.layout.offset) / engine.layout.scale


def some(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Wheel and choice (n, 2), a share of each observed."""
    values = np.stack([rng.normal(2.0, 3.0, n), rng.integers(0, 2, n)], axis=1).astype(np.float32)
    return np.where(rng.random((n, 2)) < share, values, np.nan).astype(np.float32)


def play(
    engine: StreamEngine, counts: np.ndarray, observed: np.ndarray, valid: np.ndarray, clock: np.ndarray,
    reset: np.ndarray, start: int = 0,
) -> np.ndarray:  # fmt: skip
    """Step by step; values (T, V)."""
    engine.reset(start)
    out = []
    for t in range(len(counts)):
        if reset[t]:
            engine.reset(start + 3 * t)
        token = Token(t, 0, counts[t], valid=bool(valid[t]), clock=int(clock[t]), observed=observed[t])
        out.append(engine.step(token).copy())
    return np.stack(out)


@pytest.mark.parametrize("names", [BOTH, BOTH[:1], BOTH[1:]])
@pytest.mark.parametrize("kind", ["phase-free", "clocked"])
@settings(max_examples=8)  # of each of six engines
@given(data=st.data())
def test_stream_is_offline(
    tiny_ones: dict[str, Checkpoint], draw_run: Callable[..., Any], kind: str, names: tuple[str, ...],
    data: st.DataObject,
) -> None:  # fmt: skip
    """Any pattern of what is observed, dropouts, cold starts and positions, far beyond where the ring wraps."""
    run = draw_run(data)
    engine, rng = StreamEngine(tiny_ones[kind], observed=names), np.random.default_rng(run.seed)
    log = (
        rng.poisson(0.6, (run.n, U)).astype(np.uint16), some(rng, run.n, run.share), rng.random(run.n) >= run.dropped,
        rng.integers(-1, 3 * CLOCK_BINS, run.n), rng.random(run.n) < run.cold,
    )  # fmt: skip

    streamed = play(engine, *log, run.start)

    counts, observed, valid, clock, reset = log
    at_once = engine.offline(counts, valid, clock, reset, observed)
    np.testing.assert_allclose(in_z(engine, streamed), in_z(engine, at_once), **TOLERANCE)


def a_log(seed: int = 0, share: float = 0.6) -> tuple[np.ndarray, ...]:
    """30 dense bins, the fifth part without data, without a cold start."""
    rng, n = np.random.default_rng(seed), 30
    counts = rng.poisson(1.0, (n, U)).astype(np.uint16)
    return counts, some(rng, n, share), rng.random(n) < 0.8, np.full(n, -1), np.zeros(n, bool)


def test_it_is_the_models_forward(tiny_ones: dict[str, Checkpoint]) -> None:
    """Where a behaviour is hidden: the forward over the batch that training would make of these bins."""
    checkpoint = tiny_ones["phase-free"]
    engine = StreamEngine(checkpoint, observed=BOTH)
    counts, observed, valid, clock, reset = a_log()
    z = (observed[:, 0] - checkpoint.header.mean["wheel_speed"]) / checkpoint.header.sd["wheel_speed"]
    hidden = np.isnan(np.concatenate([np.zeros((30, 1)), observed], axis=1)) | ~valid[:, None]

    out = checkpoint.model(
        Batch(
            torch.from_numpy(counts.astype(np.float32))[None],
            torch.from_numpy(valid)[None],
            {"wheel_speed": torch.from_numpy(z)[None]},
            {"choice": torch.from_numpy(np.nan_to_num(observed[:, 1], nan=-1.0)).long()[None]},
            torch.from_numpy(clock)[None],
        ),
        torch.from_numpy(hidden)[None],
    )

    got = in_z(engine, play(engine, counts, observed, valid, clock, reset))
    wheel, choice = hidden[:, 1], hidden[:, 2]
    assert 5 < wheel.sum() < 25
    np.testing.assert_allclose(got[wheel, 0], out["wheel_speed"][0].numpy()[wheel], **TOLERANCE)
    np.testing.assert_allclose(got[choice, 1:], out["choice"][0].softmax(-1).numpy()[choice], **TOLERANCE)


def test_what_is_observed_is_said_and_speaks_to_the_rest(tiny_ones: dict[str, Checkpoint]) -> None:
    """The wheel is what was measured, and the choice is another than without it."""
    engine, blind = StreamEngine(tiny_ones["phase-free"], observed=BOTH[:1]), StreamEngine(tiny_ones["phase-free"])
    log = a_log(share=1.0)

    seen, unseen = play(engine, *log), play(blind, *log)

    valid = log[2]
    np.testing.assert_array_equal(seen[valid, 0], log[1][valid, 0])
    assert np.abs(seen[valid, 1] - unseen[valid, 1]).max() > 0.05


def test_only_what_is_named_is_looked_at(tiny_ones: dict[str, Checkpoint]) -> None:
    """An engine that is made without names, as every engine of a run is, takes behaviour for nothing."""
    log = a_log(share=1.0)
    nothing = np.full_like(log[1], np.nan)

    plain = play(StreamEngine(tiny_ones["phase-free"]), *log)

    np.testing.assert_array_equal(plain, play(StreamEngine(tiny_ones["phase-free"]), log[0], nothing, *log[2:]))
    wheel = StreamEngine(tiny_ones["phase-free"], observed=BOTH[:1])
    np.testing.assert_array_equal(
        play(wheel, *log), play(wheel, log[0], np.where([True, False], log[1], np.nan), *log[2:])
    )


@pytest.mark.parametrize("bad", [(np.inf, np.nan), (np.nan, 2.0), (np.nan, -1.0), (np.nan, 0.5)])
def test_an_impossible_value_poisons_the_bin(tiny_ones: dict[str, Checkpoint], bad: tuple[float, float]) -> None:
    """Nothing plausible is said of it, and a cold start removes every trace."""
    engine, fresh = (StreamEngine(tiny_ones["phase-free"], observed=BOTH) for _ in "ab")
    counts = np.ones(U, np.uint16)

    said = engine.step(Token(0, 0, counts, valid=True, observed=np.array(bad, np.float32)))

    assert not np.isfinite(said).all()
    engine.reset()
    token = Token(1, 0, counts, valid=True, observed=np.array([1.0, np.nan], np.float32))
    np.testing.assert_array_equal(engine.step(token), fresh.step(token))


def test_an_unknown_name_is_refused(tiny_ones: dict[str, Checkpoint]) -> None:
    """With the names there are."""
    with pytest.raises(ConfigError, match="'paw' is no output of this checkpoint; choose among wheel_speed, choice"):
        StreamEngine(tiny_ones["phase-free"], observed=("paw",))


def test_a_behaviour_that_is_decoded_ahead_is_never_observed(ahead_checkpoint: Checkpoint) -> None:
    """Its token would hold the future."""
    with pytest.raises(ConfigError, match="observed 'wheel_speed' is decoded 60 ms ahead, so its token would hold"):
        StreamEngine(ahead_checkpoint, observed=BOTH)
    assert StreamEngine(ahead_checkpoint, observed=("choice",)).layout.specs[0].lead_ms == 60.0
