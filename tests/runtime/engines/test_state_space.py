"""A decoder that was brought, streamed: its twin says the same, and the recorded one gives what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.errors import ConfigError
from neds_core.linear.state_space import StateSpace
from runtime.core.binning import Binner
from runtime.core.engine import RECOMMENDED, Decoder
from runtime.core.pipeline import Pipeline
from runtime.core.rules import Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.values import SPIKES, Mark, Token
from runtime.engines import create as engines, prepare
from runtime.engines.state_space import StateSpaceEngine
from runtime.live import offline
from runtime.scoring import score as scoring, truth
from runtime.wire import Flag

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


# --- segments whose start is not known ---

BIN, FAST, SLOW = 20_000_000, 0.5, 0.9999
STANDS = {"cursor_vel_x": 300.0, "cursor_vel_y": -200.0}


def of_radius(brought: Checkpoint, radius: float) -> Decoder:
    """The decoder with a state that falls to `radius` of itself in a bin of 20 ms."""
    space = brought.state_space
    assert space is not None
    header = msgspec.structs.replace(brought.header, bin_ns=BIN)
    made = replace(brought, header=header, state_space=replace(space, a=radius * np.eye(2)))
    return engines.decoder(made, RECOMMENDED)


class Run:
    """A pipeline with markers, a bin at a time: one spike of unit 0 in each bin."""

    def __init__(self, brought: Checkpoint, radius: float = FAST) -> None:
        self.decoder = of_radius(brought, radius)
        self.pipeline = Pipeline(Binner(87, BIN, max_age_ns=10**10, future_ns=10**6), self.decoder, Rules(markers=True))
        self.pipeline.binner.start(0)
        self.log = RunLog(describe(self.decoder, rig="r", source="synthetic", budget_ms=20.0), 200, 87, 2)
        self.said: list[str] = []

    def over(self, n: int, mark: Mark, arrives: int, stall: int = 0) -> Run:
        """Up to bin n; the mark arrives before bin `arrives`, and `stall` bins from then on close at once."""
        for k in range(self.pipeline.binner.open_bin, n):
            if k == arrives:
                self.pipeline.mark(mark)
            self.pipeline.feed(np.array([(k * BIN + 5, 0)], SPIKES), (k + 1) * BIN)
            if stall and arrives <= k < arrives + stall:
                continue
            self.pipeline.alive((k + 1) * BIN, (k + 1) * BIN)
            for decoded in self.pipeline.advance((k + 1) * BIN):
                self.log.add(decoded)
            self.said += [said] if (said := self.pipeline.start.news()) else []
        return self

    def x(self) -> np.ndarray:
        """(n,) the first output of every bin, NaN = withheld or not decoded."""
        return self.log.values[: self.log.n, 0]

    def off(self) -> float | None:
        """Streamed against offline, as the summary says it."""
        log, engine = self.log, self.decoder.engine
        assert isinstance(engine, StateSpaceEngine)
        at = log.decoded_rows()
        found = engine.offline(log.counts[at], log.valid[at], log.clock[at], log.reset[at], log.stands[at])
        return scoring.exactness(engine.layout, log.values[at], found, log.valid[at])


def begins(stands: dict[str, float] | None = None, odd: str = "") -> Mark:
    """The start of a segment in bin 10."""
    return Mark(10 * BIN + 1, "segment_start", 1, stands=STANDS if stands is None else stands, odd=odd)


def test_a_start_on_time_is_published_from_its_first_bin_on(brought: Checkpoint) -> None:
    run = Run(brought).over(60, begins(), 4)
    assert np.isfinite(run.x()[10:]).all()
    assert run.x()[10] > 100.0
    assert (run.said, run.pipeline.start.held, run.off()) == ([], 0, 0.0)


@pytest.mark.parametrize(
    ("mark", "arrives", "stall", "said"),
    [
        (begins(), 14, 0, "a segment_start came after its bin, so that its stands is of the past; send it ahead; "),
        (begins(), 8, 40, "the first bin of a segment was skipped after a stall"),
        (begins({**STANDS, "cursor_vel_z": 1.0}), 8, 0, "names 'cursor_vel_z', which is no output, so that none of it"),
        (begins({}, odd="cursor_vel_x"), 8, 0, "holds 'cursor_vel_x', which is no number, so that none of it is used"),
    ],
)
def test_what_starts_from_a_wrong_state_is_withheld_until_it_is_forgotten(
    mark: Mark, arrives: int, stall: int, said: str, brought: Checkpoint
) -> None:
    """Late, skipped, misspelt or no number: then it is what a start on time gives, and offline says the same."""
    right, run = Run(brought).over(120, begins(), 4), Run(brought).over(120, mark, arrives, stall)
    n, decoded = run.decoder.forgets_bins, np.flatnonzero(run.log.valid[:120])
    held, after = decoded[:n], decoded[n:]
    assert n == 26  # 17 / ln 2, and its own
    assert np.isnan(run.x()[held]).all()
    assert (run.log.flags[held] & Flag.HOLD == Flag.HOLD).all()
    assert len(after) > 20
    np.testing.assert_allclose(run.x()[after], right.x()[after], atol=2e-4)
    assert not (run.log.flags[after] & Flag.HOLD).any()
    (sentence,) = run.said
    assert said in sentence
    assert sentence.endswith("values are withheld for the 26 bins in which the decoder forgets it")
    assert (run.pipeline.start.held, run.off()) == (1, 0.0)


def test_a_late_start_that_says_nothing_begins_at_the_files_start(brought: Checkpoint) -> None:
    """As a start on time that says nothing does."""
    run = Run(brought).over(60, begins({}), 14)
    assert np.isfinite(run.x()[14:]).all()
    assert (run.said, run.pipeline.start.held, run.off()) == ([], 0, 0.0)


def test_the_next_segment_on_time_ends_the_hold(brought: Checkpoint) -> None:
    run = Run(brought).over(16, begins(), 14)
    run.pipeline.mark(replace(begins(), t_ns=20 * BIN + 1, segment=2))
    for k in range(16, 30):
        for decoded in run.pipeline.take(np.array([(k * BIN + 5, 0)], SPIKES), (k + 1) * BIN, (), (k + 1) * BIN):
            run.log.add(decoded)
    assert np.isnan(run.x()[14:20]).all()
    assert np.isfinite(run.x()[20:]).all()


def test_a_run_says_once_why_values_are_withheld_and_counts_the_segments(brought: Checkpoint) -> None:
    session = sessions.select(session_file.load(MONKEY / "online-block1.npz"), slice(0, 3))
    log = offline.stream(brought, replace(session, starts={**session.starts, "z": np.zeros(3)}), RECOMMENDED)
    held = [event.detail for event in log.events if event.name == "start_held"]
    assert len(held) == 1
    assert "names 'z', which is no output" in held[0]
    assert log.outcome.counters["segments_held"] == 3


@pytest.mark.parametrize(("other", "first"), [(None, 46), (26, 46), (0, 20)])
def test_a_start_that_is_not_known_is_not_known_after_a_cold_start(
    other: int | None, first: int, brought: Checkpoint
) -> None:
    """After a reset within the segment, or of another decoder with a state, the bins count anew from bin 20."""
    run = Run(brought).over(20, begins(), 14)
    if other is None:
        run.pipeline._reset_next = True
    else:
        run.pipeline.exchange(replace(run.decoder, forgets_bins=other))
    run.over(80, begins(), -1)
    assert np.flatnonzero(np.isfinite(run.x())).tolist() == list(range(first, 80))
    assert run.off() == 0.0


def test_what_outlasts_the_bins_that_prime_it_needs_markers(brought: Checkpoint) -> None:
    """Of 60 s half of its start would be left."""
    prepare.refuse_endless(of_radius(brought, 0.99))
    with pytest.raises(ConfigError, match=r"forgets how it began in 3400 s, longer than the 60 s .* needs markers"):
        prepare.refuse_endless(of_radius(brought, SLOW))
