"""What the input is worth: each sign alone, its recovery, and what must not raise an alarm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from runtime.core.health import BAD_VALUES, SHARES, Health, Limits
from runtime.core.state import State

BIN = 20_000_000
U = 40
RATES = np.random.default_rng(0).gamma(0.6, 0.5, U)  # spikes a bin, as uneven as a real population's


class Stream:
    """A stream of bins; what is counted so far is by name."""

    def __init__(self, limits: Limits | None = None, seed: int = 1) -> None:
        used = np.ones(U, bool)
        given = limits or Limits(profile=RATES.astype(np.float32), used=used, silence_ns=200_000_000)
        self.health, self.rng = Health(given, U, BIN), np.random.default_rng(seed)
        self.totals = {"received": 0, "quarantined": 0, "late": 0, "out_of_range": 0, "duplicates": 0}

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
    stream = Stream(Limits(quarantined=0.05, late=0.05, out_of_range=0.05, duplicates=0.05))
    stream.bins(100)
    states = stream.bins(50, **{name: 40})
    assert State.FAULT in states
    first = states.index(State.FAULT)
    assert set(states[first:]) == {State.FAULT}
    assert State.DEGRADED in states[:first]
    assert name.replace("_", " ") in stream.health.reason


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


def test_units_in_another_order_are_a_fault_within_a_second() -> None:
    stream = Stream()
    stream.bins(200)
    states = stream.bins(50, RATES[np.random.default_rng(3).permutation(U)])
    assert State.FAULT in states
    assert "number them in the order of the map" in stream.health.reason


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
    stream = Stream(Limits(quarantined=1.0, late=1.0, out_of_range=1.0, duplicates=1.0))
    assert {state for n, name, bad in plan for state in stream.bins(n, **{name: bad})} <= {State.RUNNING}
