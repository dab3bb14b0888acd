"""The summary of a run is made of its log alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.scores import judging
from runtime.core.binning import Binner
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import LOG_FULL, RunLog, describe
from runtime.core.timeline import timeline
from runtime.core.values import Label
from runtime.engines import create as engines
from runtime.io import log_file
from runtime.live import offline
from runtime.live.loop import Plan, run
from runtime.scoring import report, summary, truth

BIN = 20_000_000


def of(log: RunLog, recording: Path | str) -> RunLog:
    """The log of a run whose rig names this recording."""
    log.header = msgspec.structs.replace(log.header, recording=str(recording))
    return log


def test_the_counts_of_a_run_are_compared_with_the_recording(
    session: Session, tiny_checkpoint: Checkpoint, rig_home: Path
) -> None:
    """Also for the last segment off the grid, which fills one bin more than the recording has."""
    part = replace(session, segments=session.segments[-2:], segment_ids=session.segment_ids[-2:])
    logs = [offline.stream(tiny_checkpoint, part, "ridge", shift_ns=shift_ns) for shift_ns in (0, BIN // 2)]
    found = [truth.counts_difference(of(log, rig_home / "session.npz"), log.decoded_rows()) for log in logs]
    assert found[0] == (0, "")
    assert found[1] is not None
    assert found[1].spikes > 0
    assert found[1].why == "segments were played off the recording's grid"


def test_a_run_that_names_no_recording_is_not_compared(short: Session, tiny_checkpoint: Checkpoint) -> None:
    log = offline.stream(tiny_checkpoint, short, "ridge")
    assert truth.counts_difference(log, log.decoded_rows()) is None


def test_a_run_whose_marks_name_no_bin_is_not_compared(
    short: Session, tiny_checkpoint: Checkpoint, rig_home: Path
) -> None:
    log = of(offline.stream(tiny_checkpoint, short, "ridge"), rig_home / "session.npz")
    log.marks = [replace(mark, first_bin=None) for mark in log.marks]
    assert truth.counts_difference(log, log.decoded_rows()) is None


def test_another_recording_than_the_one_played_is_not_compared(
    short: Session, unbroken: Session, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    session_file.save(unbroken, tmp_path / "other.npz")
    log = of(offline.stream(tiny_checkpoint, short, "ridge"), tmp_path / "other.npz")
    assert truth.counts_difference(log, log.decoded_rows()) is None


@pytest.fixture
def measured(short: Session, tiny_checkpoint: Checkpoint, rig_home: Path) -> RunLog:
    """A run that received its behaviour and labels, as a live run does."""
    log = of(offline.stream(tiny_checkpoint, short, "neds"), rig_home / "session.npz")
    at = truth.bins(short, log, log.decoded_rows())
    for t_ns, value in zip(log.t_end_ns[log.decoded_rows()], short.values["wheel_speed"][at], strict=True):
        log.measured("wheel_speed", int(t_ns), float(value))
    return log


def test_what_was_received_scores_like_the_recording(
    measured: RunLog, short: Session, tiny_checkpoint: Checkpoint
) -> None:
    rows = measured.decoded_rows()
    received, recorded = truth.received(measured, rows), truth.recorded(short, measured, rows)
    np.testing.assert_array_equal(received.traces["wheel_speed"], recorded.traces["wheel_speed"])
    np.testing.assert_array_equal(received.labels["choice"], recorded.labels["choice"])


def test_the_summary_of_a_saved_log_is_the_same_to_the_digit(
    measured: RunLog, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    log_file.save(measured, tmp_path / "run.npz")
    again = summary.build(log_file.load(tmp_path / "run.npz"), tiny_checkpoint)
    assert msgspec.json.encode(again) == msgspec.json.encode(summary.build(measured, tiny_checkpoint))
    assert again["outputs"]["wheel_speed"]["r2"] is not None
    assert again["counts_vs_recording_diff"] == 0


def test_the_summary_says_what_is_recommended(short: Session, judged_checkpoint: Checkpoint) -> None:
    """A line for each output, as `train` and `check` print it; none where a checkpoint says nothing."""
    found = summary.build(offline.stream(judged_checkpoint, short, "recommended"), judged_checkpoint)

    said = list(judging.lines(judged_checkpoint.header.verdicts))
    assert len(said) == 2
    assert [line for line in report.lines(found) if " on validation " in line] == said
    assert found["decoder"] == "recommended"


def test_the_summary_says_how_far_ahead_an_output_is(short: Session, ahead_checkpoint: Checkpoint) -> None:
    """With what its own filter holds of the future."""
    found = summary.build(offline.stream(ahead_checkpoint, short, "neds"), ahead_checkpoint)

    assert found["ahead"] == ["wheel_speed: 60 ms ahead; its own filter holds up to 50 ms of the future"]
    assert found["ahead"][0] in report.lines(found)
    assert found["outputs"]["wheel_speed"]["lead_ms"] == 60.0


def test_the_summary_says_what_the_intervals_covered(
    short: Session, judged_checkpoint: Checkpoint, rig_home: Path
) -> None:
    """In the same order as they are called."""
    log = of(offline.stream(judged_checkpoint, short, "neds"), rig_home / "session.npz")
    rows = log.decoded_rows()
    for t_ns, value, sd in zip(log.t_end_ns[rows], log.values[rows, 0], log.sd[rows, 0], strict=True):
        log.measured("wheel_speed", int(t_ns), float(value) + float(sd))

    found = summary.build(log, judged_checkpoint)

    covers = found["outputs"]["wheel_speed"]["sd"]["covers"]
    assert covers == {"50": 0.0, "80": 1.0, "95": 1.0}
    said = "wheel_speed              50/80/95 % intervals of sd cover 0/100/100 %, of one width "
    assert any(line.startswith(said) for line in report.lines(found))


@pytest.mark.parametrize(("label", "shown"), [("Left", "'Left'"), (1, "1"), (True, "True")])
def test_labels_that_are_no_class_are_the_reason_why_a_class_is_not_scored(
    measured: RunLog, tiny_checkpoint: Checkpoint, label: Label, shown: str
) -> None:
    measured.marks = [replace(mark, labels={"choice": label}) for mark in measured.marks]
    row = summary.build(measured, tiny_checkpoint)["outputs"]["choice"]
    assert row["null_reason"] == f"label {shown} is no class; send 'left', 'right'"


def renumbered(log: RunLog, numbers: np.ndarray) -> None:
    """Give the segments of a run, in their order, these numbers."""
    occurrence = truth.occurrences(log, log.decoded_rows())
    log.segment[log.decoded_rows()] = numbers[occurrence]
    starts = [m for m in sorted(log.marks) if m.event == "segment_start"]
    given = {m.segment: int(numbers[k]) for k, m in enumerate(starts)}
    log.marks = [replace(m, segment=given[m.segment]) for m in log.marks]


def test_trial_numbers_that_start_again_change_no_score(session: Session, tiny_checkpoint: Checkpoint) -> None:
    """Two blocks of trials 1 to 8, as a task program numbers them: labels and counts are each trial's own."""
    part = replace(session, segments=session.segments[:16], segment_ids=session.segment_ids[:16])
    onward, again = (offline.stream(tiny_checkpoint, part, "ridge") for _ in range(2))
    renumbered(again, np.r_[1:9, 1:9])
    rows = onward.decoded_rows()
    for log in (onward, again):
        np.testing.assert_array_equal(truth.occurrences(log, rows), np.repeat(np.arange(16), 25))
    labels = [truth.received(log, rows).labels["choice"] for log in (onward, again)]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], truth.recorded(part, onward, rows).labels["choice"])
    np.testing.assert_array_equal(truth.bins(part, again, rows), truth.bins(part, onward, rows))


def test_a_difference_of_counts_has_its_reason(session: Session, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    most = np.iinfo(session.counts.dtype).max
    counts = session.counts.copy()
    counts[:, 3] = most
    session_file.save(replace(session, counts=counts), tmp_path / "full.npz")
    part = replace(session, segments=session.segments[:3], segment_ids=session.segment_ids[:3], counts=counts)
    log = of(offline.stream(tiny_checkpoint, part, "ridge"), tmp_path / "full.npz")
    rows = log.decoded_rows()
    assert truth.counts_difference(log, rows) == (0, "")
    log.counts[rows, 3] = most + 5
    assert truth.counts_difference(log, rows) == (5 * len(rows), f"{5 * len(rows)} clipped in the recording")
    log.outcome = msgspec.structs.replace(log.outcome, counters=log.outcome.counters | {"spikes_late": 7})
    log.counts[rows[0], 0] += 1
    assert truth.counts_difference(log, rows) == (
        5 * len(rows) + 1, f"7 late, {5 * len(rows)} clipped in the recording",
    )  # fmt: skip


def test_the_summary_says_what_its_scores_cover_and_what_was_counted(
    short: Session, tiny_checkpoint: Checkpoint
) -> None:
    log = offline.stream(tiny_checkpoint, short, "ridge")
    found = summary.build(log, tiny_checkpoint)
    assert not found["log_full"]
    assert not any(line.startswith(("other", "log holds")) for line in report.lines(found))
    log.outcome = msgspec.structs.replace(log.outcome, counters=log.outcome.counters | {"bad_markers": 3})
    log.happened(0, LOG_FULL, "")
    log.n -= 50
    found = summary.build(log, tiny_checkpoint)
    assert (found["log_full"], found["bad_markers"]) == (True, 3)
    assert "other   bad markers 3" in report.lines(found)
    assert any(line.startswith(f"log holds the first {log.n * 0.02:g} s of ") for line in report.lines(found))


def test_a_log_of_two_decoders_is_scored_for_the_one_that_its_header_names(
    short: Session, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """NEDS until the middle of a trial, then ridge, then NEDS again: each bin is of one, and the file says of which."""
    neds, ridge = (engines.decoder(tiny_checkpoint, name) for name in ("neds", "ridge"))
    plan, clock, turns = timeline(short), offline.SteppedClock(), {40: ridge, 90: neds}
    pipeline = Pipeline(Binner(12, BIN, max_age_ns=10**10, future_ns=2_000_000), neds, Rules(markers=True))

    def exchange() -> bool:
        if pipeline.binner.open_bin in turns:
            pipeline.exchange(turns.pop(pipeline.binner.open_bin))
        return False

    header = describe(neds, rig="r", source="synthetic", budget_ms=20.0)
    log = RunLog(header, 10_000, 12, neds.engine.layout.n_values)
    source = offline.SessionSource(plan, BIN, clock)
    run(source, pipeline, offline.NoSink(), clock, log, Plan(20_000_000, stop=exchange))
    log_file.save(log, tmp_path / "run.npz")

    read = log_file.load(tmp_path / "run.npz")
    found = summary.build(read, tiny_checkpoint)

    assert [(e.token, e.decoder) for e in read.outcome.exchanges] == [(40, "ridge"), (90, "neds")]
    assert found["streamed_vs_offline_max_abs"] <= 1e-4
    assert found["tokens"]["scored"] < found["tokens"]["published"]
    said = [line for line in report.lines(found) if line.startswith("from bin ")]
    assert said[0] == "from bin 40 on ridge of tiny decoded (swap); scores are of neds of tiny alone"
    read.outcome = msgspec.structs.replace(read.outcome, exchanges=())
    assert summary.build(read, tiny_checkpoint)["streamed_vs_offline_max_abs"] > 1e-2


def test_the_summary_says_what_happened_and_why_nothing_was_decoded(
    short: Session, tiny_checkpoint: Checkpoint
) -> None:
    log = offline.stream(tiny_checkpoint, short, "ridge")
    assert summary.build(log, tiny_checkpoint)["events"] == {}
    log.happened(0, "state", "RUNNING to IDLE")
    log.happened(1, "markers_lost", "the sender of 'm' has gone")
    log.happened(2, "markers_lost", "the sender of 'm' has gone again")
    log.happened(3, "state", "IDLE to FAULT: stamps are not of the LSL clock")
    log.outcome = msgspec.structs.replace(
        log.outcome, counters=log.outcome.counters | {"tokens_closed": 9, "tokens_idle": 9}
    )
    found = summary.build(log, tiny_checkpoint)
    assert {name: event["n"] for name, event in found["events"].items()} == {"markers_lost": 2, "FAULT": 1}
    lines = report.lines(found)
    assert "event   markers_lost 2 x: the sender of 'm' has gone again" in lines
    assert "event   FAULT 1 x: IDLE to FAULT: stamps are not of the LSL clock" in lines
    assert any(line.startswith("nothing was decoded: no segment_start came") for line in lines)


def test_a_trace_without_trials_is_told_without_them(measured: RunLog, tiny_checkpoint: Checkpoint) -> None:
    """The mean of training in place of their average, and another word for what carries no interval."""
    found = summary.build(measured, tiny_checkpoint)
    said = "\n".join(report.lines(found))
    assert "trial avg  lag ms\n" in said
    assert "\nlag: above 0, what is decoded comes after what is measured\n" in said
    found["outputs"]["wheel_speed"] |= {"r2_about_mean_trial": None, "ci95": None}
    said = "\n".join(report.lines(found))
    assert "mean of training  lag ms\n" in said
    assert "too short for intervals" in said
    assert "trial avg" not in said


def test_a_run_that_a_signal_ended_is_not_scored(measured: RunLog, tiny_checkpoint: Checkpoint) -> None:
    measured.outcome = msgspec.structs.replace(measured.outcome, stopped_by="signal")
    found = summary.build(measured, tiny_checkpoint)
    assert (found["outputs"], found["streamed_vs_offline_max_abs"]) == ({}, None)
    assert found["tokens"]["published"] > 0
