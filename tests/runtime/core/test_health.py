"""What the input is worth: each sign alone, its recovery, and what must not raise an alarm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import rankdata

from neds_core import checkpoint as checkpoints
from neds_core.data import scalers, session as sessions, session_file
from runtime.core import health
from runtime.core.binning import ASIDE, COUNTERS
from runtime.core.health import BAD_VALUES, PROFILE_UNITS, SHARES, Health, Limits
from runtime.core.state import State
from runtime.engines import create as engines

BIN = 20_000_000
U = 240
RATES = np.random.default_rng(0).gamma(0.6, 0.5, U)  # spikes a bin, as uneven as a real population's


class Stream:
    """A stream of bins of the first n_units; what is counted so far is by name."""

    def __init__(self, limits: Limits | None = None, seed: int = 1, n_units: int = U) -> None:
        profile, used = RATES[:n_units].astype(np.float32), np.ones(n_units, bool)
        given = limits or Limits(profile=profile, used=used, silence_ns=200_000_000)
        self.health, self.rng = Health(given, n_units, BIN), np.random.default_rng(seed)
        self.totals = dict.fromkeys(COUNTERS + ASIDE, 0)

    def bins(
        self, n: int, rates: np.ndarray = RATES, valid: bool = True, idle: bool = False, **bad: int
    ) -> list[State]:
        """n bins of these rates; bad: spikes of each kind in every bin, beside those binned."""
        states = []
        for _ in range(n):
            counts = self.rng.poisson(rates).astype(np.uint16)
            self.totals["received"] += int(counts.sum()) + sum(bad.values())
            for name, more in bad.items():
                self.totals[name] += more
            self.health.binned(counts, dict(self.totals), valid=valid, idle=idle)
            states.append(self.health.state)
        return states


def test_a_healthy_stream_is_running() -> None:
    stream = Stream()
    assert set(stream.bins(500)) == {State.RUNNING}
    assert stream.health.reason == ""


@pytest.mark.parametrize("name", SHARES)
def test_a_bad_share_degrades_and_then_faults_within_a_second(name: str) -> None:
    stream = Stream(Limits(quarantined=0.05, late=0.05, out_of_range=0.05))
    stream.bins(100)
    states = stream.bins(50, **{name: 240})
    assert State.FAULT in states
    first = states.index(State.FAULT)
    assert set(states[first:]) == {State.FAULT}
    assert State.DEGRADED in states[:first]
    assert name.replace("_", " ") in stream.health.reason


def test_keep_alives_that_do_not_count_have_their_own_remedy() -> None:
    """Units below 0 are not numbered from 1."""
    stream = Stream()
    stream.bins(60, out_of_range=20, negative=20)
    assert "most are below 0: a keep-alive has to be -1 - (spikes sent)" in stream.health.reason
    stream = Stream()
    stream.bins(60, out_of_range=20, negative=5)
    assert "numbered from 1?" in stream.health.reason


@pytest.mark.parametrize("name", SHARES)
def test_it_is_over_a_second_after_the_last_bad_spike(name: str) -> None:
    stream = Stream()
    stream.bins(100, np.zeros(U), **{name: 20})
    assert stream.bins(60)[-1] is State.RUNNING


def test_one_bad_spike_is_no_alarm() -> None:
    stream = Stream()
    stream.bins(100)
    assert set(stream.bins(1, out_of_range=1) + stream.bins(60)) == {State.RUNNING}


def test_a_sender_that_has_gone_is_no_fault_of_its_units() -> None:
    """The run is stalled and then lost, whatever its last spikes were; they count again when it is back."""
    stream = Stream()
    assert stream.bins(100, RATES[::-1])[-1] is State.FAULT
    assert set(stream.bins(200, np.zeros(U), valid=False)[51:]) == {State.RUNNING}
    assert stream.bins(2, RATES[::-1])[-1] is State.FAULT


@pytest.mark.parametrize(("n_units", "seconds"), [(U, 1.0), (60, 4.0), (30, 12.0)])
def test_units_in_another_order_are_a_fault_for_as_long(n_units: int, seconds: float) -> None:
    """Sooner the more there are; and gaps without a spike, as between trials, change nothing."""
    stream, rates = Stream(n_units=n_units), RATES[:n_units]
    stream.bins(600, rates)
    other = rates[np.random.default_rng(3).permutation(n_units)]
    states = stream.bins(round(seconds / (BIN * 1e-9)), other)
    assert State.FAULT in states
    for _ in range(5):
        assert stream.bins(30, np.zeros(n_units), idle=True)[-1] is State.FAULT or stream.totals["received"] == 0
        assert set(stream.bins(50, other)) == {State.FAULT}
    assert "number them in the order of the map" in stream.health.reason


@pytest.mark.parametrize("n_units", [U, 60, 30])
def test_a_noisy_unit_is_no_change_of_order(n_units: int) -> None:
    """A loose contact at 200 Hz."""
    stream, rates = Stream(n_units=n_units), RATES[:n_units].copy()
    stream.bins(600, rates)
    rates[n_units // 2] += 4.0
    assert set(stream.bins(600, rates)) == {State.RUNNING}


EXAMPLES = (Path(__file__).parents[3] / "examples").glob("*/*.safetensors")
SHIPPED = sorted({p.parent: p for p in sorted(EXAMPLES) if p.stem in ("ensemble", "neds")}.values())  # one a folder


@pytest.mark.parametrize("path", SHIPPED, ids=[path.parent.name for path in SHIPPED])
def test_no_shipped_recording_is_a_fault_and_each_in_another_order_is(path: Path) -> None:
    """Over the part that was not trained on, with its pauses; real populations are less even than made-up ones. Of
    fewer units than `PROFILE_UNITS` the order cannot be told."""
    made, session = checkpoints.load(path), session_file.load(path.parent / "session.npz")
    decoder, inside = engines.decoder(made, "ridge"), scalers.inside(session)
    limits = Limits(profile=decoder.profile, used=decoder.used, silence_ns=decoder.silence_ns)
    first = int(sessions.split(session).validation.segments[0, 0])
    counts = session.counts[first : first + 6_000].astype(np.uint16)

    def states(order: np.ndarray) -> list[State]:
        health, found, received = Health(limits, len(order), session.bin_ns), [], 0
        for t, row in enumerate(counts[:, order]):
            received += int(row.sum())
            totals = dict.fromkeys(COUNTERS + ASIDE, 0) | {"received": received}
            health.binned(row, totals, valid=True, idle=not inside[first + t])
            found.append(health.state)
        return found

    assert State.FAULT not in states(np.arange(len(made.units)))
    wrong = states(np.random.default_rng(1).permutation(len(made.units)))
    if len(made.units) < PROFILE_UNITS:
        assert State.FAULT not in wrong
        return
    least = 0.9 if len(made.units) >= 50 else 0.6  # a few units may correlate by chance for a while
    assert wrong.count(State.FAULT) > least * (len(wrong) - 12e9 / session.bin_ns)


def test_a_population_that_fires_evenly_is_not_judged_by_its_order() -> None:
    """Every unit at one rate: another order would look the same, and so it cannot be told."""
    stream = Stream()
    assert set(stream.bins(300, np.full(U, 0.4))) == {State.RUNNING}
    assert stream.health.profile_fit() is None


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_change_of_rate_is_no_change_of_order(factor: float) -> None:
    stream = Stream()
    stream.bins(200)
    assert set(stream.bins(200, RATES * factor)) == {State.RUNNING}


def test_silence_longer_than_in_training_is_a_fault_and_a_spike_ends_it() -> None:
    stream = Stream()
    stream.bins(100)
    states = stream.bins(20, np.zeros(U))
    assert states == [State.RUNNING] * 10 + [State.FAULT] * 10
    assert "no unit has fired for 0.40 s" in stream.health.reason
    assert stream.bins(1, RATES * 5) == [State.RUNNING]


def test_only_units_that_the_decoder_uses_break_a_silence() -> None:
    used = np.arange(U) < 20
    stream = Stream(Limits(used=used, silence_ns=200_000_000))
    assert stream.bins(20, np.where(used, 0.0, 2.0))[-1] is State.FAULT


def test_between_segments_and_without_data_silence_is_not_judged() -> None:
    """A pause between trials is one, and a dead cable has its own state."""
    stream = Stream()
    stream.bins(100)
    assert stream.bins(50, np.zeros(U), idle=True)[-1] is State.RUNNING
    assert stream.bins(50, np.zeros(U), valid=False)[-1] is State.RUNNING


def test_a_stall_does_not_end_a_silence() -> None:
    """What comes after it is no fresher: still no unit has fired."""
    stream = Stream()
    stream.bins(100)
    assert stream.bins(20, np.zeros(U))[-1] is State.FAULT
    assert stream.bins(5, np.zeros(U), valid=False)[-1] is State.RUNNING
    assert stream.bins(1, np.zeros(U)) == [State.FAULT]


def test_values_that_stay_not_finite_are_a_fault() -> None:
    stream = Stream()
    for k in range(BAD_VALUES):
        stream.health.decoded(finite=False)
        assert stream.bins(1) == [State.FAULT if k == BAD_VALUES - 1 else State.RUNNING]
    stream.health.decoded(finite=True)
    assert stream.bins(1) == [State.RUNNING]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(SHARES), st.integers(0, 50)), max_size=10))
def test_a_limit_of_one_never_alarms(plan: list[tuple[int, str, int]]) -> None:
    stream = Stream(Limits(quarantined=1.0, late=1.0, out_of_range=1.0))
    assert {state for n, name, bad in plan for state in stream.bins(n, **{name: bad})} <= {State.RUNNING}


@given(st.lists(st.integers(0, 6) | st.floats(-3.0, 3.0), max_size=40))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    """Equal ones alike; about their mean."""
    found = health.ranks(np.array(values))
    np.testing.assert_array_equal(found, rankdata(values) - (len(values) + 1) / 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_units_that_the_decoder_leaves_out_break_no_silence(units: list[tuple[int, bool]]) -> None:
    counts, used = np.array([n for n, _ in units], np.uint16), np.array([u for _, u in units])
    made = Health(Limits(silence_ns=1, used=used), len(units), BIN)
    totals = dict.fromkeys(COUNTERS + ASIDE, 0)
    made.binned(np.zeros_like(counts), totals, valid=True, idle=False)
    assert made.wakes(counts) == bool(counts[used].any())
