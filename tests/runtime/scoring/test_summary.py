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
from runtime.core.run_log import RunLog
from runtime.io import log_file
from runtime.live import offline
from runtime.scoring import summary, truth

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
    assert found[0] == 0
    assert found[1] is not None
    assert found[1] > 0


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


def test_a_run_that_a_signal_ended_is_not_scored(measured: RunLog, tiny_checkpoint: Checkpoint) -> None:
    measured.outcome = msgspec.structs.replace(measured.outcome, stopped_by="signal")
    found = summary.build(measured, tiny_checkpoint)
    assert (found["outputs"], found["streamed_vs_offline_max_abs"]) == ({}, None)
    assert found["tokens"]["published"] > 0
