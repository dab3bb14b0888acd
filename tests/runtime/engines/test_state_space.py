"""A decoder that was brought, streamed: its twin says the same, and the recorded one gives what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.errors import ConfigError
from neds_core.linear.state_space import StateSpace
from runtime.core.engine import RECOMMENDED
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.state_space import StateSpaceEngine
from runtime.live import offline
from runtime.scoring import score as scoring, truth

MONKEY = Path(__file__).parents[3] / "examples" / "bci-monkey-20131218"
NEAR = 5e-5  # in the source's unit: its float32 values of up to 425 are 3e-5 apart


@pytest.fixture(scope="module")
def brought() -> Checkpoint:
    """The online decoder of block 1."""
    return checkpoints.load(MONKEY / "online-decoder-block1.safetensors")


def small(seed: int, brought: Checkpoint) -> StateSpaceEngine:
    """A stable decoder of 87 units."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(2, 2))
    a *= 0.95 / np.abs(np.linalg.eigvals(a)).max()
    return StateSpaceEngine(brought, StateSpace(a, rng.normal(size=(2, 87)), rng.normal(size=2), rng.normal(size=2)))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_stream_gives_what_the_twin_gives(seed: int, brought: Checkpoint) -> None:
    """Over random resets, markers that say where some outputs stand, and bins without live data."""
    rng, engine, n = np.random.default_rng(seed), small(seed, brought), 60
    counts, valid = rng.poisson(1.0, (n, 87)).astype(np.uint16), rng.random(n) < 0.8
    reset, stands = rng.random(n) < 0.15, np.where(rng.random((n, 2)) < 0.5, rng.normal(0, 50, (n, 2)), np.nan)
    reset[0] = True
    streamed = np.zeros((n, 2), np.float32)
    for t in range(n):
        if reset[t]:
            engine.reset()
        said = stands[t] if not np.isnan(stands[t]).all() else None
        streamed[t] = engine.step(Token(t, 0, counts[t], bool(valid[t]), reset=bool(reset[t]), stands=said))

    twin = engine.offline(counts, valid, np.full(n, -1), reset, stands)

    np.testing.assert_allclose(streamed, twin, rtol=1e-6, atol=1e-5)  # float64 sums in another order, then float32


def test_a_step_and_a_skip_allocate_nothing_new_and_keep_the_values(brought: Checkpoint) -> None:
    engine = small(0, brought)
    first = engine.step(Token(0, 0, np.ones(87, np.uint16), True, reset=True))
    before = first.copy()
    engine.skip(4)
    assert engine.step(Token(5, 0, np.ones(87, np.uint16), valid=False)) is first
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("part", ["test", pytest.param("whole", marks=pytest.mark.slow)])
def test_the_recorded_decoder_gives_the_recorded_velocities(block: int, part: str) -> None:
    """Streamed through the pipeline in 45 ms bins, on every step, those included where the cursor is held."""
    made = checkpoints.load(MONKEY / f"online-decoder-block{block}.safetensors")
    session = session_file.load(MONKEY / f"online-block{block}.npz")
    session = sessions.split(session).test if part == "test" else session

    log = offline.stream(made, session, RECOMMENDED)

    rows = log.decoded_rows()
    measured = truth.recorded(session, log, rows)
    assert len(rows) == len(session.bins())
    for v, name in enumerate(("cursor_vel_x", "cursor_vel_y")):
        assert np.abs(log.values[rows, v] - measured.traces[name]).max() <= NEAR
    scored = scoring.score_log(made, log, rows, measured)
    assert scored.exact == 0.0
    assert scored.outputs["cursor_vel_x"]["max_abs_error"] <= NEAR
    assert "neds_r2" not in scored.outputs["cursor_vel_x"]


def test_without_what_the_rig_says_it_begins_at_its_start_and_forgets_that(brought: Checkpoint) -> None:
    """Markers without `stands`: wrong by a lot in a segment's first bins, none to speak of after 33 bins."""
    session = sessions.split(session_file.load(MONKEY / "online-block2.npz")).test
    made = checkpoints.load(MONKEY / "online-decoder-block2.safetensors")
    log = offline.stream(made, replace(session, starts={}), RECOMMENDED)
    rows = log.decoded_rows()
    error = np.abs(log.values[rows, 0] - truth.recorded(session, log, rows).traces["cursor_vel_x"])
    clock = log.clock[rows]
    assert error[clock == 0].max() > 20.0
    assert error[clock >= prepare.receptive_bins(made)].max() <= NEAR
    assert prepare.receptive_bins(brought) == 33  # 17 / -ln 0.584, and its own


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("neds",), "decoder 'neds' is not in 'online-decoder-block1', which is a decoder that was brought"),
        (("ridge",), "leave engine.decoder at 'recommended'"),
        ((RECOMMENDED, "int8"), "engine.weights is 'int8'"),
        ((RECOMMENDED, "float32", "cuda"), "engine.device is 'cuda'"),
    ],
)
def test_what_it_does_not_hold_is_refused(brought: Checkpoint, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        engines.create(brought, *arguments)  # pyright: ignore[reportArgumentType]


def test_nothing_has_judged_it(brought: Checkpoint) -> None:
    """So its messages are UNGATED, and a swap has to be forced."""
    decoder = engines.decoder(brought, RECOMMENDED)
    assert (decoder.name, decoder.gated, decoder.silence_ns) == ("brought", False, 0)
    assert engines.ungated(brought, RECOMMENDED) == "no gate has judged it"
