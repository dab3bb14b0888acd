"""What a run's summary says of the recording that was played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import Session
from runtime.core.trace import RunLog
from runtime.live import offline as replayed
from runtime.scoring import summary

BIN = 20_000_000


def result(log: RunLog, checkpoint: Checkpoint, recording: str, first_bin: dict[int, int]) -> Any:
    """As much of a `Result` as the counts' difference needs."""
    return SimpleNamespace(
        streams=SimpleNamespace(markers=SimpleNamespace(first_bin=first_bin)),
        config=SimpleNamespace(score=SimpleNamespace(recording=recording)),
        checkpoint=checkpoint,
        log=log,
    )


def test_the_counts_of_a_run_are_compared_with_the_recording(
    session: Session, tiny_checkpoint: Checkpoint, rig_home: Path
) -> None:
    """Also for the last segment off the grid, which fills one bin more than the recording has."""
    part = replace(session, segments=session.segments[-2:], segment_ids=session.segment_ids[-2:])
    first_bin = dict(zip(part.segment_ids.tolist(), part.segments[:, 0].tolist(), strict=True))
    recording = str(rig_home / "session.npz")
    found = []
    for shift_ns in (0, BIN // 2):
        log = replayed.stream(tiny_checkpoint, part, "ridge", shift_ns=shift_ns)
        rows = np.flatnonzero(~log.idle[: log.n])
        found.append(
            summary.counts_difference(result(log, tiny_checkpoint, recording, first_bin), rows, log.clock[rows])
        )
    assert found[0] == 0
    assert found[1] is not None
    assert found[1] > 0

    log.counts[rows[0], 0] += 3
    assert summary.counts_difference(result(log, tiny_checkpoint, "", first_bin), rows, log.clock[rows]) is None
    assert summary.counts_difference(result(log, tiny_checkpoint, recording, {}), rows, log.clock[rows]) is None


def test_another_recording_than_the_one_played_is_not_compared(
    short: Session, unbroken: Session, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    log = replayed.stream(tiny_checkpoint, short, "ridge")
    sessions.save(unbroken, tmp_path / "other.npz")
    made = result(log, tiny_checkpoint, str(tmp_path / "other.npz"), {int(short.segment_ids[0]): 0})
    rows = np.flatnonzero(~log.idle[: log.n])
    assert summary.counts_difference(made, rows, log.clock[rows]) is None


def test_the_versions_that_a_measurement_depends_on() -> None:
    assert {"python", "machine", "system", "neds-rt", "torch", "numba", "pylsl", "pyzmq"} <= set(summary.versions())
