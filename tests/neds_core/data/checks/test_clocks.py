"""A behaviour on another clock is found, and none that is right is called wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.data import session_file
from neds_core.data.checks import clocks
from neds_core.data.session import Session

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
    """Too short to move the behaviour by 3 s; without behaviour; behaviour that is not known or does not vary."""
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
        f"{heads}no better said by the spikes 3 to 60 s away; an error below 3 s is not seen",
        f"{other}hardly said by the spikes, so whether its clock is theirs is not known",
    ]
