"""The verdict of a check: what is heard is judged by the run's own rules, each with its remedy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from runtime import config as rigs
from runtime.config import BinConfig, InputConfig, OutputConfig, RigConfig
from runtime.core.binning import COUNTERS
from runtime.scoring import inspection as judge

CONFIG = RigConfig("test", "c", InputConfig("s"), BinConfig(lateness_ms=5.0), OutputConfig(budget_ms=20.0))
CLOCKS = judge.Clocks(lsl_s=5_000.0, unix_s=1.8e9)
ON_TIME = judge.Stamps(np.full(1000, 1.5, np.float32))


def heard(
    stamps: judge.Stamps = ON_TIME,
    fired: tuple[int, ...] = (5, 5, 5),
    foreign: dict[int, int] | None = None,
    ids: tuple[int, ...] = (),
    **counters: int,
) -> judge.Spikes:
    """1000 spikes, counted so."""
    counted = dict.fromkeys(COUNTERS, 0) | {"received": 1000} | counters
    return judge.Spikes("rig", counted["received"], 0, counted, stamps, np.array(fired), foreign or {}, ids)


def at(stamp_s: float) -> judge.Stamps:
    """Samples with this stamp that came now."""
    if abs(stamp_s) >= 1e9 or not math.isfinite(stamp_s):
        return judge.Stamps(np.zeros(0), stamp_s)
    return judge.Stamps(np.full(9, 1e3 * (CLOCKS.lsl_s - stamp_s)))


def test_a_stream_as_it_should_be_is_go() -> None:
    assert judge.spikes(heard(), CONFIG, CLOCKS).go
    assert judge.spikes(heard(), CONFIG, CLOCKS).notes == ()


def test_bins_that_no_keep_alive_closes_are_said() -> None:
    """A sender that says too seldom what is complete costs latency, not correctness."""
    often = judge.spikes(replace(heard(), unsaid=0.04), CONFIG, CLOCKS)
    seldom = judge.spikes(replace(heard(), unsaid=0.6), CONFIG, CLOCKS)

    assert seldom.go
    assert not any("keep-alive" in note for note in often.notes)
    assert any("60.00 % of the bins closed by the clock, 5 ms after their edge" in note for note in seldom.notes)


@pytest.mark.parametrize(
    ("stamp_s", "says"),
    [
        (1.8e9, "about 1.8e+09 s ahead (time of day?)"),
        (1.8e12, "(time of day in milliseconds?)"),
        (5e6, "about 5e+06 s ahead (milliseconds?)"),
        (5e9, "(microseconds?)"),
        (5e12, "(nanoseconds?)"),
        (1.5e8, "(sample numbers?)"),
        (3.0, "about 5e+03 s behind (time since the recording began?)"),
        (60_000.0, "(another machine's clock?)"),
        (math.nan, "they are NaN or infinite"),
    ],
)
def test_stamps_of_another_clock_are_named(stamp_s: float, says: str) -> None:
    found = judge.spikes(heard(at(stamp_s), quarantined=1000), CONFIG, CLOCKS)
    assert not found.go
    assert says in found.reasons[0]
    assert found.reasons[0].startswith("stamps are not of the LSL clock: ")
    assert found.reasons[0].endswith("; stamp with local_clock()")


@pytest.mark.parametrize(
    ("foreign", "fired", "ids", "says"),
    [
        (
            {3: 40}, (0, 5, 5), (),
            "unit 3 is outside the map (0 to 2), 4.00 % of the spikes, and unit 0 never fired: numbered from 1?",
        ),
        ({7: 1, 40: 2}, (0, 0, 9), (2, 7, 40), "units 7, 40 are outside the map (0 to 2), 0.30 % of the spikes: the"),
        ({-1: 2}, (5, 5, 5), (), "unit -1 is outside the map (0 to 2), 0.20 % of the spikes: noise? Leave it out"),
        ({3: 40}, (5, 5, 5), (), "outside the map (0 to 2), 4.00 % of the spikes; send the row of the unit table"),
    ],
)  # fmt: skip
def test_units_outside_the_map_are_named(
    foreign: dict[int, int], fired: tuple[int, ...], ids: tuple[int, ...], says: str
) -> None:
    found = judge.spikes(heard(fired=fired, foreign=foreign, ids=ids, out_of_range=40), CONFIG, CLOCKS)
    assert len(found.reasons) == 1
    assert says in found.reasons[0]


@pytest.mark.parametrize(
    ("received", "n", "go"), [(100_000, 1, True), (500, 1, True), (2000, 2, True), (1999, 2, False)]
)
def test_a_spike_outside_the_map_is_a_note_where_a_run_decodes(received: int, n: int, go: bool) -> None:
    """The run's own limits: health.out_of_range_share, and never a single spike."""
    found = judge.spikes(heard(fired=(0, 5, 5), foreign={-1: n}, received=received, out_of_range=n), CONFIG, CLOCKS)
    assert found.go is go
    assert any("unit -1 is outside the map (0 to 2)" in said for said in (found.notes if go else found.reasons))
    assert ("1 of 3 units never fired: 0" in found.notes) is go


def test_spikes_that_come_twice_are_said() -> None:
    found = judge.spikes(heard(resent=40), CONFIG, CLOCKS)
    assert (found.go, found.notes) == (True, ("40 spikes were sent again and dropped; look at its sender",))


def test_no_spikes_and_silent_units_are_said() -> None:
    none = judge.spikes(heard(fired=(0, 0, 0), received=0), CONFIG, CLOCKS)
    assert none.reasons == ("no spikes arrived: start the sender, or listen longer with --seconds",)
    some = judge.spikes(heard(fired=(0, 5, 0)), CONFIG, CLOCKS)
    assert (some.go, some.notes) == (True, ("2 of 3 units never fired: 0, 2",))


@pytest.mark.parametrize(
    ("fired", "reasons", "notes"),
    [
        ((0, 5, 0, 5), (), ()),
        ((0, 0, 9, 5), (), ("1 of 2 units that the decoder uses never fired: 1",)),
        (
            (9, 0, 9, 0), ("no unit that the decoder uses fired; send the row of the unit table, counted from 0",),
            ("2 of 2 units that the decoder uses never fired: 1, 3",),
        ),
        (
            (0, 0, 0, 0), ("no unit of the map fired; send the row of the unit table, counted from 0",),
            ("2 of 2 units that the decoder uses never fired: 1, 3",),
        ),
    ],
)  # fmt: skip
def test_units_that_the_filter_leaves_out_may_be_silent(
    fired: tuple[int, ...], reasons: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    """How many they are is said on its own."""
    found = judge.spikes(replace(heard(fired=fired), used=np.array([False, True, False, True])), CONFIG, CLOCKS)
    assert found.reasons == reasons
    assert found.notes == (*notes, "2 of 4 units are left out by the checkpoint's filter")


@pytest.mark.parametrize(
    ("delay_ms", "says"),
    [
        (11.2, "40.00 % of the spikes are late; set bins.lateness_ms = 12"),
        (24.5, "set bins.lateness_ms = 25, output.budget_ms = 40 and output.valid_ms = 80"),
        (2000.0, "no allowance of rig.toml keeps them; let the sender send sooner"),
    ],
)
def test_late_spikes_are_no_go_with_the_values_to_set(delay_ms: float, says: str) -> None:
    stamps = judge.Stamps(np.full(1000, delay_ms))
    assert says in judge.spikes(heard(stamps, late=400), CONFIG, CLOCKS).reasons[0]
    few = judge.spikes(heard(stamps, late=4), CONFIG, CLOCKS)
    assert few.go
    assert few.notes[0].startswith("to keep 99.9 %, ")


@given(
    delay_ms=st.floats(-50.0, 1e6), lateness=st.floats(0.0, 19.0), budget=st.floats(20.0, 1000.0),
    valid=st.floats(1.0, 6e4),
)  # fmt: skip
def test_what_is_recommended_is_what_a_rig_accepts(
    tmp_path_factory: pytest.TempPathFactory, delay_ms: float, lateness: float, budget: float, valid: float
) -> None:
    """Whatever the delays and the rig that is there: the three values load together, and keep the spikes."""
    config = RigConfig("r", "c", InputConfig("s"), BinConfig(lateness), OutputConfig(budget_ms=budget, valid_ms=valid))
    found = judge.allowance(np.full(50, delay_ms), config)
    if found is None:
        assert delay_ms > 0.0
        return
    path = tmp_path_factory.mktemp("rig", numbered=True) / "rig.toml"
    path.write_text(
        f'rig = "r"\ncheckpoint = "c"\n[input]\nspikes = "s"\n[bins]\nlateness_ms = {found["lateness_ms"]}\n'
        f"[output]\nbudget_ms = {found['budget_ms']}\nvalid_ms = {found['valid_ms']}\n"
    )
    assert rigs.load(path).bins.lateness_ms >= delay_ms


# --- markers, behaviours ---


def marked(**fields: Any) -> judge.Markers:
    return judge.Markers(**{"stream": "task", "received": 4, "bad": 0, "last_bad": "", "stamps": ON_TIME} | fields)


def test_markers_that_cannot_be_read_are_shown() -> None:
    found = judge.markers(marked(bad=4, last_bad="trial_start\x1b[2J 3"), {}, CLOCKS)
    assert found.reasons == (
        "4 of 4 markers cannot be read, such as 'trial_start[2J 3'; send JSON like "
        '{"event": "segment_start", "segment": 17}',
    )
    assert "time of day" in judge.markers(marked(bad=4, stamps=at(1.8e9)), {}, CLOCKS).reasons[0]
    assert "milliseconds" in judge.markers(marked(stamps=at(5e6)), {}, CLOCKS).reasons[0]


def test_a_marker_that_cannot_be_read_is_a_note_beside_others_that_can() -> None:
    """A run counts it and goes on."""
    found = judge.markers(marked(bad=1, last_bad="go", starts=1), {}, CLOCKS)
    assert found.go
    assert found.notes[0].startswith("1 of 4 markers cannot be read, such as 'go'; send JSON like")


def test_markers_of_another_clock_are_no_go_and_ends_that_are_sent_with_their_starts_are_not() -> None:
    ahead = judge.Stamps(np.r_[np.zeros(4), np.full(5, -200e3)])
    assert judge.markers(marked(starts=4, stamps=ahead), {}, CLOCKS).go
    assert "LSL clock" in judge.markers(marked(starts=4, stamps=ahead, astray=9), {}, CLOCKS).reasons[0]
    assert "LSL clock" in judge.markers(marked(stamps=ahead), {}, CLOCKS).reasons[0]
    few = judge.markers(marked(starts=4, astray=1), {}, CLOCKS)
    assert few.notes == ("1 starts or ends were stamped more than 60 s from their arrival: left out",)


def test_labels_that_are_no_class_are_named() -> None:
    told = marked(starts=2, labels={"choice": {"left", "Left"}, "reward": {"1"}})
    found = judge.markers(told, {"choice": ("left", "right")}, CLOCKS)
    assert found.reasons == ("label choice = 'Left' is no class of the checkpoint; send 'left', 'right'",)
    assert judge.markers(marked(starts=2, labels={"choice": {"left"}}), {"choice": ("left", "right")}, CLOCKS).go


def test_a_task_that_has_not_begun_is_go_and_said() -> None:
    found = judge.markers(marked(received=0), {}, CLOCKS)
    assert (found.go, found.notes) == (True, ("none arrived: a run decodes from the first segment_start on",))


def traced(values: np.ndarray, stamps: judge.Stamps = ON_TIME, *, regular: bool = True) -> judge.Trace:
    return judge.Trace("wheel", values, stamps, mean=1.0, sd=2.0, unit="rad/s", regular=regular)


def test_a_behaviour_in_another_unit_is_no_go() -> None:
    quiet, moving = np.zeros(100), np.r_[np.zeros(80), np.full(20, 9.0)]
    assert judge.trace("speed", traced(quiet), CLOCKS).go
    assert judge.trace("speed", traced(moving), CLOCKS).go
    found = judge.trace("speed", traced(np.degrees(moving)), CLOCKS)
    assert found.reasons == (
        "values of 0 to 515.7 do not fit the training data (mean 1, sd 2); send them in rad/s",
    )  # fmt: skip


def test_a_behaviour_that_does_not_come_or_has_no_time() -> None:
    none, nothing = np.zeros(0), judge.Stamps(np.zeros(0))
    assert judge.trace("speed", traced(none, nothing), CLOCKS).reasons == ("none arrived: start its sender",)
    assert judge.trace("reward", traced(none, nothing, regular=False), CLOCKS).go
    assert "time of day" in judge.trace("speed", traced(none, at(1.8e9)), CLOCKS).reasons[0]
    assert (
        "60 of 100 values are NaN"
        in judge.trace("speed", traced(np.r_[np.full(60, np.nan), np.ones(40)]), CLOCKS).reasons[0]
    )
    assert (
        "is no trace that this checkpoint decodes; name one of 'wheel_speed'"
        in judge.no_output("wheel", "rig", ["wheel_speed"]).reasons[0]
    )
