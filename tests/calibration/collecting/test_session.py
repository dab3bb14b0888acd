"""What is collected is what was sent: counts to the last spike, behaviour exactly, labels; the rest is said."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from calibration.collecting import session as sessions
from neds_core.data import session as recorded, session_file
from neds_core.data.checks.session import varies
from neds_core.data.session import BehaviourSpec, Session, bin_events
from neds_core.errors import DataError
from neds_core.io import nwb, recording
from runtime.core.run_log import Outcome, RunLog
from runtime.core.timeline import GAP_BINS, timeline
from runtime.core.values import Mark
from runtime.wire import Flag
from tests.calibration.rigs import collected, first, same

WHEEL, CHOICE = "wheel_speed", "choice"


@pytest.fixture(scope="module")
def six(session: Session) -> Session:
    """Six trials of the planted session; one has no label."""
    return first(session, 6)


@pytest.fixture
def log(six: Session) -> RunLog:
    """What a run over them has logged."""
    return collected(six)


def make(*logs: RunLog, six: Session, marked: bool = True) -> sessions.Made:
    return sessions.make(logs, six.units, "x", marked=marked)


@settings(max_examples=25)
@given(
    counts=hnp.arrays(np.uint8, st.tuples(st.integers(4, 30), st.integers(1, 4)), elements=st.integers(0, 5)),
    cuts=st.lists(st.integers(1, 29), max_size=4, unique=True), data=st.data(),
)  # fmt: skip
def test_any_recording_comes_back(
    session: Session, counts: np.ndarray, cuts: list[int], data: st.DataObject
) -> None:  # fmt: skip
    """Counts, a trace with holes, and labels, over segments of any lengths."""
    n, units = counts.shape
    edges = np.unique([0, *(c for c in cuts if c < n), n])
    trace = data.draw(hnp.arrays(np.float32, n, elements=st.floats(-9, 9, width=32) | st.just(np.nan)))
    label = np.repeat(data.draw(hnp.arrays(np.int64, len(edges) - 1, elements=st.integers(-1, 1))), np.diff(edges))
    sent = replace(
        session, counts=counts, units=replace(session.units, ids=session.units.ids[:units],
            region=session.units.region[:units], depth_um=session.units.depth_um[:units]),
        segments=np.stack([edges[:-1], edges[1:]], 1), segment_ids=np.arange(len(edges) - 1) * 3 + 5,
        valid=np.ones(n, bool), values={WHEEL: trace, CHOICE: label},
    )  # fmt: skip

    made = sessions.make([collected(sent)], sent.units, "x", marked=True).session

    if not varies(trace[np.isfinite(trace)]):  # a session cannot hold it
        sent = replace(sent, specs=sent.specs[1:], values={CHOICE: label})
    same(made, sent)
    assert made.valid.all()
    if made.events is None:  # no spike, so none was kept
        assert not counts.any()
        return
    binned = bin_events(*made.events, made.bin_ns, made.n_bins, units)
    np.testing.assert_array_equal(binned, made.counts)


@settings(max_examples=10)
@given(late_bins=st.integers(0, 60))
def test_markers_that_come_late_move_nothing(six: Session, late_bins: int) -> None:
    """They are applied by their stamp, where the run could apply them only later."""
    same(make(collected(six, late_ns=late_bins * six.bin_ns), six=six).session, six)


@pytest.mark.parametrize("label", [True, 1, 2.5, "left probe"])
def test_trials_with_stimulation_are_no_part_of_it_and_that_is_said(six: Session, log: RunLog, label: object) -> None:
    log.marks = [
        replace(m, labels=m.labels | {"stimulated": label if m.segment == six.segment_ids[2] else "no"})
        if m.event == "segment_end" else m for m in log.marks
    ]  # fmt: skip
    made = make(log, six=six)
    keep = [0, 1, 3, 4, 5]
    same(made.session, replace(six, segments=six.segments[keep], segment_ids=six.segment_ids[keep]))
    assert made.notes == ["1 trials are labelled stimulated, and are left out of the session"]
    log.marks = [replace(m, labels={"stimulated": 1}) for m in log.marks]
    with pytest.raises(DataError, match="all 6 trials are labelled stimulated; collect some without"):
        make(log, six=six)


def test_where_outputs_stood_goes_into_both_files_and_is_played_again(six: Session, tmp_path: Path) -> None:
    """From the markers, where they say so; over two runs."""
    stood = np.array([1.5, np.nan, -2.0, 0.0, 1e-3, np.nan])
    sent = replace(six, starts={WHEEL: stood})
    runs = [recorded.select(sent, slice(*at)) for at in ((0, 4), (4, 6))]

    made = make(*map(collected, runs), six=six)

    assert made.notes == []
    session_file.save(made.session, tmp_path / "session.npz")
    nwb.save(made.session, tmp_path / "session.nwb", nwb.Origin(1_790_000_000_000_000_000))
    for path in (tmp_path / "session.npz", tmp_path / "session.nwb"):
        read = recording.load(path)
        np.testing.assert_array_equal(read.starts[WHEEL], stood)
        same(read, six)
        said = [{} if np.isnan(v) else {WHEEL: v} for v in stood]
        assert [segment.stands for segment in timeline(read)] == said


def test_what_stands_for_no_trace_is_left_out_and_said(six: Session, log: RunLog) -> None:
    """Another name, a value that no file takes, and what holds before a bin that the trial does not begin with."""
    stands = [{WHEEL: 1.0, "cursor": 2.0}, {WHEEL: np.inf}, {WHEEL: 3.0}]
    begins = [m for m in log.marks if m.event == "segment_start"]
    said = dict(zip(begins, stands, strict=False))
    log.marks = [replace(m, stands=said.get(m, {})) for m in log.marks]
    ends = log.marks.index(next(m for m in log.marks if m.event == "segment_end" and m.segment == begins[1].segment))
    log.marks[ends] = replace(log.marks[ends], t_ns=begins[2].t_ns)  # its last bin is the next trial's first

    made = make(log, six=six)

    assert made.notes == [
        "stands of 'cursor' is left out of the session: it has no such trace",
        "stands of wheel_speed is beyond 1e+12 in 1 trials, and left out there",
    ]
    np.testing.assert_array_equal(made.session.starts[WHEEL], [1.0] + [np.nan] * 5)


def test_several_runs_are_joined_with_gaps(six: Session, session: Session) -> None:
    parts = [first(six, 2), replace(session, segments=session.segments[2:6], segment_ids=session.segment_ids[2:6])]
    logs = [collected(part) for part in parts]

    made = make(*logs, six=six).session

    same(made, six)
    gap = made.valid[logs[0].n : logs[0].n + GAP_BINS]
    assert not gap.any()
    assert made.valid.sum() == made.n_bins - GAP_BINS == sum(log.n for log in logs)
    assert made.events is not None
    np.testing.assert_array_equal(bin_events(*made.events, made.bin_ns, made.n_bins, len(six.units)), made.counts)


def test_numbers_that_the_task_used_twice_are_numbered_through(six: Session, log: RunLog) -> None:
    made = make(log, collected(six), six=six)
    assert made.session.segment_ids.tolist() == list(range(12))
    assert any("numbered several trials alike" in note for note in made.notes)


def test_without_markers_each_unbroken_stretch_is_a_segment(six: Session) -> None:
    log = collected(six, markers=False)
    log.valid[80:130] = False
    log.valid[200] = False  # a hole, not a break

    made = make(log, six=six, marked=False).session

    assert made.segments.tolist() == [[0, 80], [130, log.n]]
    assert (~made.valid).sum() == 51
    assert [spec.name for spec in made.specs] == [WHEEL]


def test_values_that_were_withheld_are_of_invalid_bins(six: Session, log: RunLog) -> None:
    """The sender was being checked, or the input judged unusable."""
    log.flags[3:5] |= int(Flag.HOLD)
    assert np.flatnonzero(~make(log, six=six).session.valid).tolist() == [3, 4]


def test_what_another_sender_sent_is_left_out(six: Session, log: RunLog) -> None:
    """The run ended because other units came back under the stream's name; the bins before are the session's."""
    log.happened(int(log.t_end_ns[160]), "spikes_gap", "was silent for 1 s")
    log.outcome = Outcome(stopped_by="stream_changed", refusal="another unit map")
    made = make(log, six=six)
    assert made.session.n_bins == 160 - 75
    assert made.session.segment_ids.tolist() == six.segment_ids[:2].tolist()
    assert made.cut == 4


# --- markers and labels that are not as they should be ---


def test_a_segment_without_its_end_is_left_out(six: Session, log: RunLog) -> None:
    log.marks = [m for m in log.marks if (m.event, m.segment) != ("segment_end", 102)]
    made = make(log, six=six)
    assert made.session.segment_ids.tolist() == [100, 101, 103, 104, 105]
    assert made.cut == 1


def test_a_segment_that_the_run_ended_itself_is_left_out(six: Session, log: RunLog) -> None:
    """The sender of markers was gone."""
    end = next(m for m in log.marks if (m.event, m.segment) == ("segment_end", 103))
    log.happened(end.t_ns, "markers_lost", "has not answered")
    assert make(log, six=six).session.segment_ids.tolist() == [100, 101, 102, 104, 105]


def test_markers_of_another_clock_make_no_trials(six: Session) -> None:
    """Their stamps lie inside the log all the same; the run did not take them."""
    log = collected(six)
    log.idle[:], log.segment[:] = True, -1
    with pytest.raises(DataError, match=r"no complete trial was collected, 6 are cut; send segment_start"):
        make(log, six=six)


def test_no_marker_at_all_is_said_with_the_remedy(six: Session, log: RunLog) -> None:
    log.marks = []
    with pytest.raises(DataError, match=r"no marker has come.* take input\.markers out of the rig"):
        make(log, six=six)


def relabel(log: RunLog, name: str, labels: list[object]) -> None:
    ends = [m for m in sorted(log.marks) if m.event == "segment_end"]
    for mark, label in zip(ends, labels, strict=True):
        mark.labels[name] = label  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([1, 2, 1, 2, 1, 2], "it is no text; send the names of its classes"),
        (["a"] * 6, "it was 'a' in every trial"),
        ([f"image {k}" for k in range(6)], "it has 6 values, more than 4 classes"),
    ],
)
def test_a_label_that_is_no_class_is_left_out_and_said(
    six: Session, log: RunLog, labels: list[object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_CLASSES", 4)
    relabel(log, "image", labels)
    made = make(log, six=six)
    assert [spec.name for spec in made.session.specs] == [WHEEL, CHOICE]
    assert made.notes == [f"label 'image' is left out of the session: {why}"]


def test_a_label_with_a_name_that_no_file_takes_is_left_out(six: Session, log: RunLog) -> None:
    relabel(log, "a/b", ["x", "y"] * 3)
    assert any("has a dot or slash" in note for note in make(log, six=six).notes)


def test_labels_without_a_base_become_classes(six: Session) -> None:
    made = make(collected(six, specs=six.specs[:1]), six=six).session
    same(made, six)


def test_a_label_that_the_base_does_not_know_is_unknown(six: Session, log: RunLog) -> None:
    relabel(log, CHOICE, ["left", "LEFT", 3, None, "right", "right"])
    made = make(log, six=six)
    assert [int(made.session.values[CHOICE][stop - 1]) for _, stop in made.session.segments] == [0, -1, -1, -1, 1, 1]
    assert any("is none of its classes ['left', 'right']" in note for note in made.notes)


# --- behaviours that are not as they should be ---


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "was not measured"), (2.5, "stood still at 2.5 rad/s"), (np.inf, "was not measured"), (1e30, "reaches")],
)
def test_a_behaviour_that_a_session_cannot_hold_is_left_out(
    six: Session, log: RunLog, value: float, why: str
) -> None:  # fmt: skip
    values = log.behaviours[WHEEL].values
    values[:] = array("d", [value] * len(values))
    made = make(log, six=six)
    assert [spec.name for spec in made.session.specs] == [CHOICE]
    assert made.notes[0].startswith(f"{WHEEL} is left out of the session: it {why}")


def test_a_behaviour_that_never_came_is_left_out(six: Session, log: RunLog) -> None:
    del log.behaviours[WHEEL]
    assert [spec.name for spec in make(log, six=six).session.specs] == [CHOICE]


def test_the_last_sample_counts_and_an_old_one_does_not(six: Session, log: RunLog) -> None:
    """One rule: at or before the right edge, not older than a bin."""
    trace, edges = log.behaviours[WHEEL], log.t_end_ns
    for t_ns, value in ((edges[30], 7.0), (edges[30] - 1, 6.0), (edges[32] + 1, 8.0)):  # bins 25 to 49 have no other
        trace.add(int(t_ns), value)
    found = make(log, six=six).session.values[WHEEL]
    np.testing.assert_array_equal(found[30:34], np.float32([7.0, 7.0, np.nan, 8.0]))


def test_a_mark_of_two_trials_at_once_is_no_trial() -> None:
    """An end of another number closes what was begun, and belongs to neither."""
    from calibration.collecting.trials import Rows, find

    rows = Rows(0, 10, np.zeros(20, bool), np.full(20, 1, np.int64))
    marks = [Mark(5, "segment_start", 1), Mark(55, "segment_end", 2), Mark(85, "segment_end", 1)]
    found = find(marks, rows)
    assert (found.trials, found.cut) == ([], 1)


def test_a_spec_with_classes_is_kept_as_the_base_has_it(six: Session) -> None:
    """Also where only one of its classes came."""
    base = (six.specs[0], BehaviourSpec(CHOICE, "class", classes=("left", "right", "none"), labels_note="by the task"))
    made = make(collected(six, specs=base), six=six).session
    assert made.specs == base
