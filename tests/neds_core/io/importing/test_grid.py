"""Spikes, behaviours and trials on the grid of bins, held to the rule spelled out sample by sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.data.session import UnitTable
from neds_core.errors import ConfigError, DataError
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.grid import Made, hold, make, slope
from neds_core.io.importing.options import Options

UNITS = UnitTable(np.array([7, 3]), np.array(["ca1", "?"]), np.full(2, np.nan))
TIMES = np.arange(2.005, 12.0, 0.01)
BIN_S = 0.02


def found(**changed: Any) -> Found:
    """Two units for 14 s; an angle, a position and 4 trials with a side between 2 and 12 s."""
    rng = np.random.default_rng(0)
    t_s = np.sort(rng.uniform(0, 14, 2000))
    traces = (
        Trace("heading", TIMES, TIMES % (2 * np.pi), "rad"),
        Trace("place_x", TIMES, np.sin(TIMES), "cm"),
        Trace("place_y", TIMES, np.cos(TIMES), "cm"),
    )
    trials = Trials(
        np.array([1.0, 3.0, 5.0, 7.0]), np.array([2.0, 4.0, 6.0, 8.0]), {"side": np.array(["l", "l", "r", ""])}
    )
    base = Found("mouse", "test", t_s, rng.integers(0, 2, 2000).astype(np.int32), UNITS, traces, trials)
    return replace(base, **changed)


def taken(source: Found, *outputs: str, **options: Any) -> Made:
    return make(source, Options(outputs=outputs, **options))


def test_counts_are_those_of_every_spike_by_its_stamp() -> None:
    """Edges are multiples of the bin on the source's clock, and begin where behaviour is known."""
    source = found()
    made = taken(source)
    assert made.start_s == pytest.approx(2.0)  # the first edge at or after 2.005 s is that of the bin from 2.00 s
    assert made.session.n_bins == 500  # the last sample is at 11.995 s
    want = np.zeros((500, 2), int)
    for t, u in zip(np.rint(source.t_s * 1e9).astype(int), source.unit, strict=True):
        if 0 <= (k := (t - 2_000_000_000) // 20_000_000) < 500:
            want[k, u] += 1
    np.testing.assert_array_equal(made.session.counts, want)
    outside = len(source.t_s) - want.sum()
    assert f"{outside} of 2000 spikes" in " ".join(made.notes)


def test_angles_become_a_group_and_coordinates_a_point() -> None:
    specs = {spec.name: spec for spec in taken(found()).session.specs}
    assert [(specs[f"heading_{s}"].group, specs[f"heading_{s}"].angle) for s in ("cos", "sin")] == [
        ("heading", "cos"),
        ("heading", "sin"),
    ]
    assert {specs[name].group for name in ("place_x", "place_y")} == {"place"}
    assert (specs["place_x"].unit, specs["side"].classes) == ("cm", ("l", "r"))


@settings(max_examples=30)
@given(
    values=st.lists(st.sampled_from([0.25, 0.25 + 1e-9, 1234561.0, 1234562.0, -3.0, np.nan]), min_size=4, max_size=4)
)
def test_numbers_that_differ_are_different_classes(values: list[float]) -> None:
    """Ids of seven digits too, which are alike in six."""
    known = {value for value in values if np.isfinite(value)}
    source = found(trials=Trials(np.arange(3.0, 7.0), np.arange(3.5, 7.5), {"c": np.array(values)}))
    if len(known) < 2:
        with pytest.raises(ConfigError, match="different values, not 2 to 256"):
            taken(source, "c:class")
        return

    session = taken(source, "c:class").session

    names, labels = session.spec("c").classes, session.values["c"][session.segments[:, 0]]
    assert len(set(names)) == len(known)
    for value, label in zip(values, labels, strict=True):
        assert label == -1 if np.isnan(value) else float(names[label]) == pytest.approx(value, rel=1e-5)
    assert len({(value, int(label)) for value, label in zip(values, labels, strict=True) if label >= 0}) == len(known)


def test_degrees_and_radians_make_one_angle() -> None:
    trace = Trace("dir", TIMES, np.degrees(TIMES) % 360, "")
    said = taken(found(traces=(trace,)), "dir:angle_deg=heading").session
    np.testing.assert_allclose(said.values["heading_cos"], taken(found()).session.values["heading_cos"], atol=1e-6)
    for other in (trace, replace(trace, unit="rad")):
        with pytest.raises(ConfigError, match="dir:angle_deg"):
            taken(found(traces=(other,)), "dir:angle")


@given(
    apart=st.lists(st.integers(1, 400), min_size=1, max_size=40),
    unknown=st.sets(st.integers(0, 39)),
    hold_ms=st.integers(1, 500),
)
@settings(max_examples=40, deadline=None)
def test_a_bin_has_the_last_sample_at_or_before_its_right_edge(
    apart: list[int], unknown: set[int], hold_ms: int
) -> None:
    stamps_ms = np.cumsum(apart)
    values = np.where(np.isin(np.arange(len(apart)), list(unknown)), np.nan, np.arange(len(apart), dtype=float))
    edges_ms = np.arange(20, stamps_ms[-1] + 600, 20)
    got = hold(Trace("x", stamps_ms / 1e3, values), edges_ms * 1_000_000, hold_ms / 1e3)
    for edge, value in zip(edges_ms, got, strict=True):
        before = [k for k, stamp in enumerate(stamps_ms) if stamp <= edge]
        want = values[before[-1]] if before and edge - stamps_ms[before[-1]] <= hold_ms else np.nan
        np.testing.assert_equal(value, want)


def test_a_derivative_is_causal_and_says_so() -> None:
    """Of a parabola it is the slope half a stretch ago; what comes after an edge does not change it."""
    ramp = Trace("x", TIMES, TIMES**2, "cm")
    made = taken(found(traces=(ramp,)), "x:rate=speed_x", trials="none", derivative_ms=60).session
    spec = made.spec("speed_x")
    assert (spec.unit, spec.filter_delay_ms, spec.future_ms) == ("cm/s", 30.0, 0.0)
    assert "causal" in spec.filter
    assert np.isnan(made.values["speed_x"][:3]).all()  # nothing was measured 60 ms before
    newest_s = 2.0 + np.arange(4, 501) * BIN_S - 0.005
    np.testing.assert_allclose(made.values["speed_x"][3:], 2 * newest_s - 0.06, rtol=1e-5)

    edges_ns = np.array([5_000_000_000])
    later = replace(ramp, values=np.where(TIMES > 5.0, 99.0, ramp.values))
    options = Options()
    np.testing.assert_array_equal(slope(ramp, edges_ns, options), slope(later, edges_ns, options))


@pytest.mark.parametrize(("unit", "turn"), [("rad", 2 * np.pi), ("deg", 360.0)])
def test_an_angle_that_goes_round_has_a_velocity_without_jumps(unit: str, turn: float) -> None:
    values = (TIMES**2 * turn / 50) % turn
    values[::50] = np.nan
    trace = Trace("dir", TIMES, values, unit)
    got = slope(trace, np.arange(3, 11, 0.02) * 1_000_000_000, Options())
    assert np.isfinite(got).mean() > 0.9
    assert 0 < np.nanmin(got) < np.nanmax(got) < turn


def test_what_a_source_says_of_its_filter_stays() -> None:
    trace = Trace("x", TIMES, np.sin(TIMES), filter="box of 40 ms", filter_delay_ms=20.0, future_ms=5.0)
    made = taken(found(traces=(trace,)), "x", "x:rate=v", trials="none").session
    x, v = made.spec("x"), made.spec("v")
    assert (x.filter, x.filter_delay_ms, x.future_ms) == ("box of 40 ms", 20.0, 5.0)
    assert v.filter.startswith("box of 40 ms; then causal")
    assert (v.filter_delay_ms, v.future_ms) == (70.0, 5.0)


def test_a_wheel_that_is_sampled_when_it_turns_stands_still_in_between() -> None:
    wheel = Trace("wheel_position", np.array([0.0, 5.0, 5.01]), np.array([0.0, 0.0, 1.0]), "rad")
    options = Options(hold_s=10.0)
    got = slope(wheel, np.array([4_000_000_000, 5_020_000_000, 5_500_000_000]), options)
    np.testing.assert_allclose(got, [0.0, 10.0, 0.0])


def test_trials_are_whole_bins_inside_them_and_carry_their_class() -> None:
    made = taken(found())
    session = made.session
    np.testing.assert_array_equal(session.segments, [[50, 100], [150, 200], [250, 300]])  # from 2 s on; one is before
    np.testing.assert_array_equal(session.segment_ids, [1, 2, 3])
    assert [session.values["side"][stop - 1] for stop in session.segments[:, 1]] == [0, 1, -1]
    assert session.values["side"][120] == -1
    assert any(note.startswith("1 of 4 trials lie outside") for note in made.notes)
    assert taken(found(), "heading:angle", trials="none").session.segments.tolist() == [[0, 500]]


def test_a_stretch_of_a_minute_is_cut_to_the_behaviour() -> None:
    """It is a run and no trial: nothing counts from its start."""
    made = taken(found(trials=Trials(np.array([-60.0, 5.0]), np.array([4.0, 90.0]))))
    assert made.session.segments.tolist() == [[0, 100], [150, 500]]
    assert "2 of 2 stretches reach beyond the behaviour, and are cut to it" in made.notes


def test_a_trial_that_ends_in_the_next_is_left_out_and_said() -> None:
    trials = Trials(np.array([3.0, 5.0, 7.0]), np.array([5.5, 6.0, 8.0]))
    made = taken(found(trials=trials))
    assert made.session.segment_ids.tolist() == [1, 2]
    assert "1 of 3 trials end after the next one has begun, and are left out" in made.notes


def test_bins_in_which_a_unit_was_not_recorded_are_not_valid() -> None:
    made = taken(found(observed_s=np.array([[0.0, 3.01], [5.0, np.inf]])))
    np.testing.assert_array_equal(np.flatnonzero(~made.session.valid), np.arange(50, 150))  # 3.00 s to 5.00 s


def test_spikes_alone_are_taken_on_request() -> None:
    source = found(traces=(), trials=None)
    with pytest.raises(DataError, match="no behaviour and no trials"):
        taken(source)
    assert taken(source, "none").session.counts.sum() == 2000


def test_gaps_and_doubles_are_said() -> None:
    t_s = np.r_[np.linspace(2.1, 6, 500), [6.0], np.linspace(9, 11.9, 500)]
    source = found(t_s=t_s, unit=np.zeros(1001, np.int32))
    notes = " ".join(taken(source).notes)
    assert "1 spikes are there twice" in notes
    assert "no unit fires in 1 stretches of a second or more (longest 3.0 s)" in notes


@pytest.mark.parametrize(
    ("changed", "outputs", "says"),
    [
        ({"traces": (Trace("x", TIMES + 1000, TIMES),)}, ("x",), "apart; give the time between the two clocks"),
        ({"traces": (Trace("x", TIMES[::-1], TIMES),)}, ("x",), "x goes back in time at sample 1"),
        ({"traces": (Trace("x", TIMES, TIMES * np.nan),)}, ("x",), "x is NaN everywhere"),
        ({"traces": (Trace("x", TIMES[:0], TIMES[:0]),)}, ("x",), "no behaviour and no trials to take|no samples"),
        ({"units": UnitTable([3, 3], ["?", "?"], [np.nan, np.nan])}, (), "unit_ids repeat"),
        ({"t_s": np.zeros(0), "unit": np.zeros(0, np.int32)}, (), "no spikes"),
        ({"trials": Trials(np.array([90.0]), np.array([91.0]))}, ("place_x",), "none of its 1 trials lies inside"),
        ({}, ("speed",), "has no trace 'speed'; it has heading, place_x, place_y"),
        ({}, ("colour:class",), "has no column of its trials 'colour'; it has side"),
        ({}, ("place_x:velocity",), "is not NAME, NAME:HOW or NAME:HOW=AS"),
        ({}, ("place_x=a.b",), "has a dot or slash"),
        ({}, ("heading:angle=a", "place_x=a_cos"), "'a_cos' would be there twice; name one of them apart"),
    ],
)
def test_what_is_wrong_is_one_sentence(changed: dict[str, Any], outputs: tuple[str, ...], says: str) -> None:
    if "trials" not in changed and changed.get("traces"):
        changed = changed | {"trials": None}
    with pytest.raises((DataError, ConfigError), match=says):
        taken(found(**changed), *outputs)


def test_columns_of_times_become_moments() -> None:
    """From the left edge of each segment's first bin. Durations are times of no trial, and what is far is left out."""
    start = np.array([2.005, 4.0, 6.0, 8.0])
    columns = {
        "cue_time": start + np.array([0.1, -0.2, np.nan, -0.3]),
        "feedback_times": np.r_[start[:3] + 0.5, 600.0],
        "response_time": np.array([0.3, 0.4, 0.5, 0.6]),
        "never_time": np.full(4, np.nan),
        "side": np.array(["l", "l", "r", "r"]),
    }
    made = taken(found(trials=Trials(start, start + 1.0, columns)))
    begin = np.array([2.02, 4.0, 6.0, 8.0])
    np.testing.assert_allclose(2.0 + made.session.segments[:, 0] * BIN_S, begin)
    assert set(made.session.moments) == {"cue", "feedback"}
    np.testing.assert_allclose(made.session.moments["cue"], (columns["cue_time"] - begin) * 1e3, atol=1e-6)
    feedback = np.r_[(start[:3] + 0.5 - begin[:3]) * 1e3, np.nan]
    np.testing.assert_allclose(made.session.moments["feedback"], feedback, atol=1e-6)
    notes = " ".join(made.notes)
    assert "response_time: 0 of 4 lie near their trial, so it is no time and no moment" in notes
    assert "feedback_times: 1 of 4 lie a minute from their trial, and are left out" in notes


def test_counts_that_no_machine_holds_are_refused_before_they_are_made() -> None:
    many = 200_000
    units = UnitTable(np.arange(many), np.full(many, "?"), np.full(many, np.nan))
    long = Trace("x", np.array([0.0, 80_000.0]), np.array([0.0, 1.0]))
    with pytest.raises(ConfigError, match="take wider bins"):
        taken(found(units=units, traces=(long,), trials=None), "x", bin_ms=1, hold_s=1e6)
