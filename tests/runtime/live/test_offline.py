"""The same pipeline without sockets: a recording goes through bin by bin, and comes out as it was."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from runtime.core.timeline import GAP_BINS, timeline
from runtime.engines.layout import layout
from runtime.live import offline
from runtime.scoring import score as scoring, truth

BIN = 20_000_000


@pytest.mark.parametrize("decoder", ["neds", "ridge", "blend"])
def test_every_bin_of_the_recording_is_decoded_once(short: Session, tiny_checkpoint: Checkpoint, decoder: str) -> None:
    log = offline.stream(tiny_checkpoint, short, decoder)

    rows = log.decoded_rows()
    bins = short.bins()
    np.testing.assert_array_equal(log.counts[rows], short.counts[bins])
    np.testing.assert_array_equal(log.clock[rows], short.clock()[bins])
    np.testing.assert_array_equal(log.segment[rows], np.repeat(short.segment_ids, 25))
    np.testing.assert_array_equal(log.reset[rows], short.clock()[bins] == 0)
    assert log.valid[rows].all()
    assert log.in_time[rows].all()
    assert not log.counts[: log.n][log.idle[: log.n]].any()
    assert log.n == len(rows) + 3 * GAP_BINS

    whole = scoring.all_decoders(tiny_checkpoint, log, rows)[decoder]
    exact = scoring.exactness(layout(tiny_checkpoint), log.values[rows], whole, log.valid[rows])
    assert exact is not None
    assert exact < 1e-5  # float32 sums in another order


@pytest.mark.parametrize("bin_ns", [500_000, 1_000_000, 3_999_999, 4_000_000, 5_000_000])
def test_bins_may_be_narrow(short: Session, tiny_checkpoint: Checkpoint, bin_ns: int) -> None:
    """Markers and spikes stay in their own bins."""
    header = msgspec.structs.replace(tiny_checkpoint.header, bin_ns=bin_ns)
    log = offline.stream(replace(tiny_checkpoint, header=header), replace(short, bin_ns=bin_ns), "neds")

    rows, bins = log.decoded_rows(), short.bins()
    np.testing.assert_array_equal(log.counts[rows], short.counts[bins])
    np.testing.assert_array_equal(log.clock[rows], short.clock()[bins])
    np.testing.assert_array_equal(log.segment[rows], np.repeat(short.segment_ids, 25))


def test_bins_may_be_of_another_width(short: Session, tiny_checkpoint: Checkpoint) -> None:
    """The checkpoint's 45 ms rule everything: trials shifted against their grid lose no spike, and the ridge's filters
    forget more in a bin than they do in 20 ms."""
    header = msgspec.structs.replace(tiny_checkpoint.header, bin_ns=45_000_000)
    wide, made = replace(short, bin_ns=45_000_000), replace(tiny_checkpoint, header=header)

    for decoder in ("neds", "ridge"):
        log, at_20_ms = offline.stream(made, wide, decoder), offline.stream(tiny_checkpoint, short, decoder)
        rows = log.decoded_rows()
        np.testing.assert_array_equal(log.counts[rows], at_20_ms.counts[rows])
        np.testing.assert_array_equal(np.diff(log.t_end_ns[: log.n]), 45_000_000)
        whole = scoring.all_decoders(made, log, rows)[decoder]
        exact = scoring.exactness(layout(made), log.values[rows], whole, log.valid[rows])
        assert exact is not None
        assert exact < 1e-5  # float32 sums in another order
        same = np.allclose(log.values[rows], at_20_ms.values[rows], atol=1e-4)
        assert same == (decoder == "neds")  # NEDS counts bins
    shifted = offline.stream(made, wide, "ridge", shift_ns=31_000_000)
    assert shifted.counts[: shifted.n].sum() == short.counts[: short.segments[-1, 1]].sum()


def test_the_truth_is_of_the_tokens_own_bins(short: Session, tiny_checkpoint: Checkpoint) -> None:
    log = offline.stream(tiny_checkpoint, short, "ridge")
    rows = log.decoded_rows()
    found = truth.recorded(short, log, rows)
    bins = short.bins()
    np.testing.assert_array_equal(found.traces["wheel_speed"], short.values["wheel_speed"][bins].astype(float))
    np.testing.assert_array_equal(found.labels["choice"], short.values["choice"][bins])


@pytest.mark.parametrize("shift_ns", [1, BIN // 2, BIN - 1])
def test_off_the_grid_no_spike_is_lost(short: Session, tiny_checkpoint: Checkpoint, shift_ns: int) -> None:
    """Segments that start inside a bin: other counts, the same spikes."""
    log = offline.stream(tiny_checkpoint, short, "ridge", shift_ns=shift_ns)
    assert log.counts[: log.n].sum() == short.counts[: short.segments[-1, 1]].sum()
    assert log.valid[log.decoded_rows()].all()


@pytest.mark.parametrize("silence", [True, False])
def test_without_markers_all_is_one_segment_cold_after_silences(
    short: Session, tiny_checkpoint: Checkpoint, silence: bool
) -> None:
    log = offline.stream(tiny_checkpoint, short, "ridge", markers=False, silence=silence)
    assert not log.idle[: log.n].any()
    spikes = log.counts[: log.n].any(1)
    wakes = [s.start_ns // BIN + int(spikes[s.start_ns // BIN :].argmax()) for s in timeline(short)]
    assert np.flatnonzero(log.reset[: log.n]).tolist() == (wakes if silence else [0])
