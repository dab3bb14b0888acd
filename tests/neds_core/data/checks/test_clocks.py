"""A behaviour on another clock is found, and none that is right is called wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.data import session_file
from neds_core.data.checks import clocks
from neds_core.data.session import BehaviourSpec, Session, UnitTable

EXAMPLES = Path(__file__).parents[4] / "examples"


def moved(session: Session, s: float) -> Session:
    """Every behaviour so much later, the end at the begin."""
    k = round(s * 1e9 / session.bin_ns)
    return replace(session, values={name: np.roll(values, k) for name, values in session.values.items()})


def apart(session: Session) -> list[clocks.Look]:
    """Those that are called wrong."""
    return [each for each in clocks.looks(session) if each.apart]


@pytest.fixture(scope="module")
def heading() -> Session:
    return session_file.load(EXAMPLES / "mouse-head-direction" / "session.npz")


@settings(max_examples=8)
@given(s=st.floats(-50.0, 50.0).filter(lambda s: abs(s) > 4.0))
def test_a_clock_that_is_off_is_found(heading: Session, s: float) -> None:
    """To half a second."""
    found = {each.name: each for each in apart(moved(heading, s))}
    assert "head_direction_cos" in found
    for each in found.values():
        assert each.lag_s == pytest.approx(s, abs=0.5)
        assert each.there > each.here


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/session.npz")))
def test_no_shipped_recording_is_called_wrong(name: str) -> None:
    assert apart(session_file.load(EXAMPLES / name / "session.npz")) == []


def test_what_cannot_be_told_is_not(session: Session) -> None:
    """Too short; without behaviour; behaviour that is not known or does not vary."""
    short = replace(session, segments=session.segments[:26], segment_ids=session.segment_ids[:26])
    assert list(clocks.looks(short)) == []
    assert list(clocks.looks(replace(session, specs=(), values={}))) == []
    for value in (np.nan, 1.0):
        flat = {**session.values, "wheel_speed": np.full(session.n_bins, value, np.float32)}
        assert apart(replace(session, values=flat)) == []


def test_what_is_not_seen_is_said(heading: Session) -> None:
    """An error below 3 s looks as none does; of what the spikes hardly say nothing is known."""
    noise = np.random.default_rng(0).normal(size=heading.n_bins).astype(np.float32)
    late = replace(heading, values=moved(heading, 1.5).values | {heading.specs[1].name: noise})
    found = list(clocks.looks(late))
    heads, other = (f"{each.name} (R2 {each.here:.2f}): " for each in found)

    assert apart(late) == []
    assert list(clocks.in_place(found)) == [
        f"{heads}not clearly better said by the spikes 3 to 60 s away; an error below 3 s is not seen",
        f"{other}hardly said by the spikes, so whether its clock is theirs is not known",
    ]


def drifting(n: int, tau: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) of variance 1 that forgets itself within tau steps."""
    keep = np.exp(-1 / tau)
    found = rng.normal(size=n)
    for k in range(1, n):
        found[k] = keep * found[k - 1] + np.sqrt(1 - keep**2) * found[k]
    return found


def recording(rate: np.ndarray, pupil: np.ndarray, bin_ns: int) -> Session:
    """Poisson counts of rates (n, U) a bin beside a pupil (n,), in one stretch of training, validation and test."""
    n, n_units = rate.shape
    units = UnitTable(np.arange(n_units), np.full(n_units, "?"), np.full(n_units, np.nan, np.float32))
    return Session(
        name="drifts", bin_ns=bin_ns, units=units, counts=np.random.default_rng(1).poisson(rate).astype(np.uint16),
        valid=np.ones(n, bool), specs=(BehaviourSpec("pupil", "continuous"),),
        values={"pupil": pupil.astype(np.float32)}, segments=np.array([[0, n]]), segment_ids=np.zeros(1, np.int64),
    )  # fmt: skip


@settings(max_examples=20)
@given(
    tau_s=st.sampled_from([3, 10, 30, 60, 120, 300]),
    n=st.sampled_from([100, 200, 400, 600]),
    seed=st.integers(0, 2**31),
)
def test_what_drifts_by_itself_is_on_no_other_clock(tau_s: int, n: int, seed: int) -> None:
    """A probe and a pupil, each of its own for n seconds: at some lag they are alike."""
    rng, n_units = np.random.default_rng(seed), 40
    drift = np.stack([drifting(n, tau_s, rng) for _ in range(5)], 1)
    rate = np.repeat(0.1 * np.exp(drift @ rng.normal(scale=0.4, size=(5, n_units))), 50, axis=0)
    pupil = np.repeat(drifting(n, tau_s, rng), 50).astype(np.float32)
    one = recording(rate, pupil, 20_000_000)
    assert apart(one) == []


def test_units_that_drift_do_not_hide_those_that_say_something() -> None:
    """More of them than are looked at."""
    rng, n = np.random.default_rng(0), 600
    y = drifting(5 * n, 10, rng)
    slow = np.stack([np.repeat(drifting(n, 300, rng), 5) for _ in range(clocks.MOST_UNITS + 20)], 1)
    tuned = 0.5 * np.exp(np.outer(y, rng.normal(scale=0.5, size=30)))
    one = recording(np.concatenate([3 * np.exp(0.8 * slow), tuned], 1), y, 200_000_000)
    assert [each.lag_s for each in apart(moved(one, 25.0))] == [pytest.approx(25.0, abs=0.5)]
