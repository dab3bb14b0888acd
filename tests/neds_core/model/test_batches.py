"""A batch is the recording, z-scored, with what is known in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neds_core.data import scalers, session as sessions
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session
from neds_core.model.batches import NO_PAUSE, Cutter, Pause


@pytest.fixture(scope="module")
def train(session: Session) -> Session:
    """The first 42 trials."""
    return sessions.split(session).train


@pytest.fixture(scope="module")
def scale(train: Session) -> Scalers:
    """Of the first 42 trials."""
    return scalers.fit(train, train.specs, 0.5)


@pytest.mark.parametrize("clocked", [False, True])
def test_a_cut_is_the_recording_and_its_padding_is_nothing(train: Session, scale: Scalers, clocked: bool) -> None:
    """z-scored traces, labels, counts, clock; padding is invalid and neither shown nor asked."""
    spans = [(25, 50), (60, 68), (75, 80)]  # trials 1 (NaN at bin 7), 2 (bin 3 is before it) and 3
    batch, defined = Cutter(train, train.specs, scale).cut(spans, clocked)

    wheel = (train.values["wheel_speed"] - scale.mean["wheel_speed"]) / scale.sd["wheel_speed"]
    assert defined.shape == (3, 25, 3)
    for b, (start, stop) in enumerate(spans):
        n = stop - start
        np.testing.assert_array_equal(batch.counts[b, :n], train.counts[start:stop])
        np.testing.assert_array_equal(batch.valid[b, :n], train.valid[start:stop])
        np.testing.assert_allclose(batch.traces["wheel_speed"][b, :n], wheel[start:stop], rtol=1e-5)
        np.testing.assert_array_equal(batch.classes["choice"][b, :n], train.values["choice"][start:stop])
        expected = np.arange(start % 25, start % 25 + n) if clocked else np.full(n, -1)
        np.testing.assert_array_equal(batch.clock[b, :n], expected)
        known = np.stack([np.ones(n, bool), np.isfinite(wheel[start:stop]), train.values["choice"][start:stop] >= 0], 1)
        np.testing.assert_array_equal(defined[b, :n], known & train.valid[start:stop, None])
        assert not batch.valid[b, n:].any()
        assert not defined[b, n:].any()
    assert not defined[0, 7, 1]


def test_a_pause_is_the_end_of_another_segment_and_a_gap(train: Session, scale: Scalers) -> None:
    """Tail, gap and span follow each other; of a gap the spike bins alone are known, and of an invalid one nothing."""
    cutter, spans = Cutter(train, train.specs, scale), [(25, 50), (60, 68), (75, 80)]
    pauses = [Pause(40, 50, 4, live=True), Pause(53, 75, 2, live=False), NO_PAUSE]
    batch, defined = cutter.cut(spans, clocked=False, pauses=pauses)

    assert defined.shape == (3, 10 + 4 + 25, 3)
    assert (batch.clock == -1).all()
    for b, (pause, span) in enumerate(zip(pauses, spans, strict=True)):
        at, n_tail = pause.n_bins, pause.n_tail
        for rows, (start, stop) in ((slice(n_tail), pause[:2]), (slice(at, at + span[1] - span[0]), span)):
            if stop > start:
                alone, known = cutter.cut([(start, stop)], clocked=False)
                np.testing.assert_array_equal(batch.counts[b, rows], alone.counts[0])
                np.testing.assert_array_equal(batch.valid[b, rows], alone.valid[0])
                np.testing.assert_array_equal(batch.traces["wheel_speed"][b, rows], alone.traces["wheel_speed"][0])
                np.testing.assert_array_equal(batch.classes["choice"][b, rows], alone.classes["choice"][0])
                np.testing.assert_array_equal(defined[b, rows], known[0])
        gap = slice(n_tail, at)
        assert not batch.counts[b, gap].any()
        assert batch.traces["wheel_speed"][b, gap].isnan().all()
        assert (batch.classes["choice"][b, gap] == -1).all()
        assert (batch.valid[b, gap] == pause.live).all()
        assert (defined[b, gap] == [pause.live, False, False]).all()
        assert not defined[b, at + span[1] - span[0] :].any()


def test_an_invalid_bin_is_neither_shown_nor_asked(train: Session, scale: Scalers) -> None:
    """Trial 2, bin 3 is faulty: its behaviour may be misplaced too."""
    _, defined = Cutter(train, train.specs, scale).cut([(50, 60)], clocked=False)

    assert defined[0, :, 0].tolist() == [True] * 3 + [False] + [True] * 6
    assert not defined[0, 3].any()


def test_constant_says_which_labels_never_change(train: Session, scale: Scalers) -> None:
    """Undefined bins and padding do not make a label vary; a trace is never constant."""
    choice = train.values["choice"].copy()
    choice[0:3], choice[30] = -1, 1 - choice[31]
    cutter = Cutter(replace(train, values=train.values | {"choice": choice}), train.specs, scale)
    batch, _ = cutter.cut([(0, 25), (25, 50), (32, 50)], clocked=False)

    assert cutter.constant(batch).tolist() == [[False, False, True], [False, False, False], [False, False, True]]
