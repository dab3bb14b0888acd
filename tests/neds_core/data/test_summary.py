"""A recording in words, and as a table of a notebook."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from hypothesis import given, settings, strategies as st

from neds_core.data import session as sessions, summary
from neds_core.data.session import BehaviourSpec, Session

BIN_S = 0.02


def test_a_summary_says_what_is_there(session: Session) -> None:
    """Units, bins, rates with quartiles, regions, each behaviour with its unit and what is undefined, moments, faults,
    where from."""
    hz = session.counts.sum(0) / (session.n_bins * BIN_S)
    low, middle, high = np.percentile(hz, [25, 50, 75])
    wheel = session.values["wheel_speed"]

    moved = replace(session, moments={"first_movement": np.r_[np.full(40, 120.0), np.full(20, np.nan)]})

    first, *rows = moved.summary().splitlines()

    assert first == "planted: 12 units, 1500 bins of 20 ms (30.0 s), 60 segments, counts without spike times"
    assert rows[0] == (
        f"rates     median {middle:.2f} Hz (quartiles {low:.3g} to {high:.3g}), {hz.min():.3g} to {hz.max():.3g} Hz; "
        "1 units below 0.05 Hz"
    )
    assert rows[1] == "regions   ca1 (6), vis (6)"
    assert rows[2] == f"behaviour wheel_speed: {np.nanmin(wheel):.4g} to {np.nanmax(wheel):.4g} rad/s, 0.7% NaN"
    last = session.values["choice"][session.segments[:, 1] - 1]
    left, right = int((last == 0).sum()), int((last == 1).sum())
    assert rows[3] == f"behaviour choice: classes left ({left}), right ({right}), 10.0% undefined"
    assert rows[4:] == [
        "moments   first_movement (in 40 of 60 segments)", "faults    4 bins", "licence   CC0-1.0", "source    made up",
    ]  # fmt: skip


def test_without_segments_there_is_nothing_to_say_of_behaviour(session: Session) -> None:
    """As text and in a notebook."""
    none = sessions.select(session, slice(0, 0))

    first, *rows = none.summary().splitlines()

    assert first.endswith("1500 bins of 20 ms (30.0 s), no segments, counts without spike times")
    assert rows[:3] == ["regions   ca1 (6), vis (6)", *(f"behaviour {s.name}: no segments" for s in none.specs)]
    assert "wheel_speed: no segments" in none._repr_html_()


def test_spike_times_are_nothing_to_say(session: Session) -> None:
    """A recording has them, unless it says so."""
    timed = replace(session, events=(np.zeros(0, np.int64), np.zeros(0, np.int32)))

    assert timed.size() == "12 units, 1500 bins of 20 ms (30.0 s), 60 segments"


def test_rates_are_of_the_segments_alone(session: Session) -> None:
    """What fires between trials is not decoded."""
    few = replace(session, segments=session.segments[10:20], segment_ids=session.segment_ids[10:20])

    np.testing.assert_allclose(few.rates_hz(), session.counts[250:500].sum(0) / 5.0)


def test_what_is_not_known_is_left_out(session: Session) -> None:
    """No region, no licence, no source; a behaviour that is never known, and labels that were inferred, are said."""
    units = replace(session.units, region=np.full(12, "?"))
    wheel, choice = session.specs
    inferred = msgspec.structs.replace(choice, labels="inferred", labels_note="from the spikes")
    never = np.full(session.n_bins, np.nan, np.float32)
    bare = replace(
        session, units=units, licence="", citation="", specs=(wheel, inferred), valid=np.ones(session.n_bins, bool),
        values=session.values | {"wheel_speed": never},
    )  # fmt: skip

    rows = bare.summary().splitlines()[1:]

    assert [row.split()[0] for row in rows] == ["rates", "behaviour", "behaviour"]
    assert rows[1].endswith("wheel_speed: NaN throughout")
    assert rows[2].endswith("undefined; labels are inferred: from the spikes")


@settings(max_examples=30)
@given(name=st.text(min_size=1), text=st.text())
def test_nothing_in_a_recording_is_taken_as_html(name: str, text: str) -> None:
    """Names and licences come from files: the table has the tags that it was made with, and no others."""
    made = summary.table(name, [("licence", text)])

    assert made.count("<") == summary.table("", [("licence", "")]).count("<")
    assert made.count('"') == summary.table("", [("licence", "")]).count('"')


def test_a_notebook_shows_the_same_as_a_table(session: Session) -> None:
    """A row for each line."""
    odd = replace(session, name="<script>", licence="CC & more")

    shown = odd._repr_html_()

    assert shown.startswith("<table>")
    assert "&lt;script&gt;: 12 units" in shown
    assert "CC &amp; more" in shown
    assert shown.count("<tr>") == len(odd.summary().splitlines()) - 1


def test_many_names_are_cut() -> None:
    """Twelve, and how many more."""
    spec = BehaviourSpec("odour", "class", classes=tuple(f"o{k}" for k in range(15)))

    assert summary.classes(spec, np.arange(15)).endswith("o11 (1) and 3 more, 0.0% undefined")
