"""A target that looks ahead is what is measured later in the same segment of the same part, or is not known."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.config import TrainConfig
from neds_core.data import lead, session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import ConfigError, DataError

BIN_MS = 20.0


@st.composite
def recordings(draw: st.DrawFn) -> Session:
    """10 to 14 segments with gaps between them, or a single one; some bins are faulty, some values not known."""
    lengths = draw(st.one_of(st.lists(st.integers(4, 9), min_size=10, max_size=14), st.just([90])))
    gaps = [draw(st.integers(0, 3)) for _ in lengths]
    stops = np.cumsum([gap + n for gap, n in zip(gaps, lengths, strict=True)])
    segments = np.stack([stops - lengths, stops], axis=1).astype(np.int64)
    n_bins, rng = int(stops[-1]) + 2, np.random.default_rng(draw(st.integers(0, 99)))
    speed = np.where(rng.random(n_bins) < 0.1, np.nan, np.arange(n_bins)).astype(np.float32)
    return Session(
        name="made up", bin_ns=int(BIN_MS * 1e6),
        units=sessions.UnitTable(np.arange(2), np.array(["a", "b"]), np.zeros(2)),
        counts=np.ones((n_bins, 2), np.uint8), valid=rng.random(n_bins) < 0.9,
        specs=(BehaviourSpec("speed", "continuous"), BehaviourSpec("turn", "class", classes=("l", "r"))),
        values={"speed": speed, "turn": np.zeros(n_bins, np.int64)},
        segments=segments, segment_ids=np.arange(len(segments)),
    )  # fmt: skip


def spelt_out(session: Session, part: Session, n: int) -> np.ndarray:
    """What the targets of a part have to be, a bin at a time."""
    found = np.full(session.n_bins, np.nan, np.float32)
    for start, stop in part.segments:
        for t in range(start, stop):
            if t + n < stop and session.valid[t + n]:
                found[t] = session.values["speed"][t + n]
    return found


@given(recordings(), st.integers(1, 3))
def test_no_target_is_of_another_segment_or_part(session: Session, n: int) -> None:
    """A continuous recording is cut inside its one segment: of no bin beyond the cut, either."""
    before = session.values["speed"].copy()
    parts = lead.split(session, {"speed": n * BIN_MS})

    for name in ("train", "validation", "test"):
        ours, plain = getattr(parts, name), getattr(sessions.split(session), name)
        np.testing.assert_array_equal(ours.segments, plain.segments)
        rows = plain.bins()
        np.testing.assert_array_equal(ours.values["speed"][rows], spelt_out(session, plain, n)[rows])
        assert ours.spec("speed").lead_ms == n * BIN_MS
        assert ours.values["turn"] is session.values["turn"]
    both = parts.development
    for part in (parts.train, parts.validation):  # what is trained on again
        np.testing.assert_array_equal(both.values["speed"][part.bins()], part.values["speed"][part.bins()])
    np.testing.assert_array_equal(session.values["speed"], before)


@given(recordings(), st.integers(1, 3))
def test_what_is_measured_outside_a_part_changes_none_of_its_targets(session: Session, n: int) -> None:
    """Whatever is written there."""
    plain = sessions.split(session)
    for name in ("train", "validation", "development", "test"):
        outside = np.ones(session.n_bins, bool)
        outside[getattr(plain, name).bins()] = False
        other = replace(session, values=session.values | {"speed": np.where(outside, -7.0, session.values["speed"])})
        ours, theirs = (getattr(lead.split(each, {"speed": n * BIN_MS}), name) for each in (session, other))
        np.testing.assert_array_equal(ours.values["speed"][ours.bins()], theirs.values["speed"][ours.bins()])


def test_without_a_lead_nothing_changes(session: Session) -> None:
    """Not even a copy is made."""
    for ours in (lead.split(session, {}).train, lead.ahead(session, {"none of it": 40.0})):
        assert all(ours.values[name] is session.values[name] for name in session.values)
        assert ours.specs == session.specs


def test_the_coordinates_of_a_point_have_one_lead(session: Session) -> None:
    """Else it would be of two times at once."""
    one = session.spec("wheel_speed")
    specs = tuple(msgspec.structs.replace(one, name=name, group="place") for name in "xy")
    values = dict.fromkeys("xy", session.values["wheel_speed"])
    point = replace(session, specs=specs, values=values)
    with pytest.raises(ConfigError, match=r"lead_ms.x is 40 and lead_ms.y 0, but both are of 'place'; give them one"):
        lead.split(point, {"x": 40.0})
    assert lead.of(lead.split(point, {"x": 40.0, "y": 40.0}).train.specs) == {"x": 40.0, "y": 40.0}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"wheel_speed": 50.0}, "lead_ms.wheel_speed is 50, not a whole number of bins of 20 ms; set it to 40"),
        ({"wheel_speed": 5.0}, "lead_ms.wheel_speed is 5, not a whole number of bins of 20 ms; set it to 20"),
        ({"choice": 40.0}, "lead_ms.choice is 40, and choice is a class; a lead is for traces, remove it"),
        ({"wheel_speed": 500.0}, "lead_ms.wheel_speed is 500, and no segment of one part of the recording is longer"),
    ],
)
def test_a_lead_that_cannot_be_is_refused(session: Session, given: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        lead.split(session, given)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"lead_ms": {"wheel_speed": 0.0}}, "Expected `float` > 0.0"),
        ({"lead_ms": {"wheel_speed": 1020.0}}, "Expected `float` <= 1000.0"),
        ({"lead_ms": {"whisker": 40.0}}, "lead_ms: 'whisker' is none of wheel_speed"),
        ({"lead_ms": {"wheel_speed": 40.0}, "model": {"attention": "full"}}, "lead_ms is for attention 'causal'"),
    ],
)
def test_a_configuration_with_an_impossible_lead_is_refused(more: dict[str, object], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert({"recording": "x.npz", "outputs": ["wheel_speed"], **more}, TrainConfig)


def test_a_recording_has_no_lead_and_says_what_its_filter_holds(session: Session) -> None:
    """A lead belongs to a training; and a file without the new fields has the bytes that it always had."""
    with pytest.raises(DataError, match=r"lead_ms of wheel_speed is 40; .* set it to 0"):
        session_file.check(lead.ahead(session, {"wheel_speed": 40.0}), "it")
    assert b"lead_ms" not in msgspec.json.encode(session.specs)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"future_ms": 50.0}, "its own filter holds up to 50 ms of the future"),
        ({"filter": "zero-phase"}, "filter of its target: zero-phase"),
        ({}, "filter of its target: none stated"),
    ],
)
def test_a_lead_is_never_named_without_the_filter(fields: dict[str, object], says: str) -> None:
    """A target that was smoothed in both directions is ahead of itself already."""
    spec = BehaviourSpec("speed", "continuous", lead_ms=60.0, **fields)  # pyright: ignore[reportArgumentType]
    assert list(lead.lines([spec, BehaviourSpec("other", "continuous")])) == [f"speed: 60 ms ahead; {says}"]
