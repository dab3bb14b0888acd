"""The same pipeline without sockets: a recording goes through bin by bin, and comes out as it was."""

from __future__ import annotations

import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from neds_core.session import Session
from runtime import replayed, scoring
from runtime.layout import layout
from runtime.play import GAP_BINS
from runtime.trace import RunLog

BIN = 20_000_000


def rows_of(log: RunLog) -> np.ndarray:
    return np.flatnonzero(~log.idle[: log.n])


@pytest.mark.parametrize("decoder", ["neds", "ridge", "blend"])
def test_every_bin_of_the_recording_is_decoded_once(short: Session, tiny_checkpoint: Checkpoint, decoder: str) -> None:
    log = replayed.stream(tiny_checkpoint, short, decoder)

    rows = rows_of(log)
    bins = np.concatenate([np.arange(a, b) for a, b in short.segments])
    np.testing.assert_array_equal(log.counts[rows], short.counts[bins])
    np.testing.assert_array_equal(log.clock[rows], short.clock()[bins])
    np.testing.assert_array_equal(log.segment[rows], np.repeat(short.segment_ids, 25))
    np.testing.assert_array_equal(log.reset[rows], short.clock()[bins] == 0)
    assert log.valid[rows].all()
    assert log.in_time[rows].all()
    assert not log.counts[: log.n][log.idle[: log.n]].any()
    assert log.n == len(rows) + 3 * GAP_BINS

    offline = scoring.all_decoders(tiny_checkpoint, log, rows)[decoder]
    exact = scoring.exactness(layout(tiny_checkpoint), log.values[rows], offline, log.valid[rows])
    assert exact is not None
    assert exact < 1e-5  # float32 sums in another order


def test_the_truth_is_of_the_tokens_own_bins(short: Session, tiny_checkpoint: Checkpoint) -> None:
    log = replayed.stream(tiny_checkpoint, short, "ridge")
    rows = rows_of(log)
    found = replayed.truth(short, log, rows)
    bins = np.concatenate([np.arange(a, b) for a, b in short.segments])
    np.testing.assert_array_equal(found.traces["wheel_speed"], short.values["wheel_speed"][bins].astype(float))
    np.testing.assert_array_equal(found.labels["choice"], short.values["choice"][bins])


@pytest.mark.parametrize("shift_ns", [1, BIN // 2, BIN - 1])
def test_off_the_grid_no_spike_is_lost(short: Session, tiny_checkpoint: Checkpoint, shift_ns: int) -> None:
    """Segments that start inside a bin: other counts, the same spikes."""
    log = replayed.stream(tiny_checkpoint, short, "ridge", shift_ns=shift_ns)
    assert log.counts[: log.n].sum() == short.counts[: short.segments[-1, 1]].sum()
    assert log.valid[rows_of(log)].all()


def test_without_markers_all_is_one_segment(short: Session, tiny_checkpoint: Checkpoint) -> None:
    log = replayed.stream(tiny_checkpoint, short, "ridge", markers=False)
    assert not log.idle[: log.n].any()
    assert np.flatnonzero(log.reset[: log.n]).tolist() == [0]
