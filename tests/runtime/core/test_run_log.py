"""A run's log keeps copies, takes no more than fits, and has measured behaviour by the one rule."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.core.misses import CAUSES, Passage
from runtime.core.run_log import Exchange, Header, Outcome, RunLog, Trace
from runtime.core.state import State
from runtime.core.values import Decoded, Token

MS = 1_000_000
BIN = 20 * MS
HEADER = Header(
    rig="rig", source="live", decoder="neds", engine="e", model="m", model_sha="sha", model_created="",
    unit_map_sha="u", bin_ns=BIN, budget_ms=20.0, specs=(),
)  # fmt: skip


def decoded(index: int, counts: np.ndarray, values: np.ndarray | None = None) -> Decoded:
    token = Token(index, (index + 1) * BIN, counts, valid=index != 1, clock=index, reset=index == 0, segment=7)
    return Decoded(token, values, 4, 5, State.RUNNING if index != 1 else State.STALLED)


def passage(**times: int) -> Passage:
    return Passage(**{"edge_ns": 10, "due_ns": 15, "woke_ns": 13, "before_ns": 17, "sent_ns": 19} | times)


def test_a_log_keeps_copies_and_null_values() -> None:
    """The loop reuses its arrays, so that a row must not change with them."""
    log = RunLog(HEADER, 10, 3, 2)
    counts, values = np.zeros(3, np.uint16), np.zeros(2, np.float32)
    for i in range(3):
        counts[:], values[:] = i, 10 + i
        log.add(decoded(i, counts, None if i == 1 else values))
    log.published(2, passage(), in_time=True)
    assert log.counts[:3].tolist() == [[0] * 3, [1] * 3, [2] * 3]
    np.testing.assert_array_equal(log.values[:3], [[10, 10], [np.nan, np.nan], [12, 12]])
    assert log.valid[:3].tolist() == [True, False, True]
    assert log.in_time[:3].tolist() == [False, False, True]
    assert (log.wait_ns[2], log.sent_ns[2], log.infer_ns[2], log.flags[2]) == (3, 19, 5, 4)
    assert log.decoded_rows().tolist() == [0, 1, 2]


def test_a_full_log_takes_no_more_and_does_not_crash() -> None:
    log = RunLog(HEADER, 2, 3, 2)
    for i in range(4):
        log.add(decoded(i, np.full(3, i, np.uint16)))
        log.published(i, passage(), in_time=True)
    assert (log.n, log.in_time.tolist(), log.counts[:, 0].tolist()) == (2, [True, True], [0, 1])


def test_a_row_has_the_times_of_the_pass_that_published_it() -> None:
    """Also how long the loop was busy after the send: until it waits again, and no longer."""
    log = RunLog(HEADER, 10, 3, 2)
    log.rests(5)  # nothing was published yet
    for i in range(2):
        log.add(decoded(i, np.zeros(3, np.uint16)))
    log.published(
        1, passage(began_ns=8, busy_ns=6, warm_ns=3, cpu_ns=4, faults=2, gc_ns=1), in_time=False, cause="page_fault"
    )
    log.rests(24)
    log.rests(90)
    want = {"began_ns": 8, "busy_ns": 6, "warm_ns": 3, "after_ns": 5, "cpu_ns": 4, "faults": 2, "gc_ns": 1}
    assert {n: int(getattr(log, n)[1]) for n in want} == want
    assert CAUSES[log.miss[1] - 1] == "page_fault"
    assert (log.sent_ns[0], log.after_ns[0], log.miss[0]) == (0, 0, 0)


def turn(token: int, primed: int = -1, sha: str = "sha 2") -> Exchange:
    return Exchange(token, "neds", "e", "m", sha, "", primed=primed)


def test_what_an_engine_was_primed_with_comes_before_its_own_rows() -> None:
    """From a cold start where priming began; rows of a decoder that came back are two stretches."""
    log = RunLog(HEADER, 20, 1, 1)
    for i in range(20):
        log.add(decoded(i, np.full(1, i, np.uint16)))
    log.outcome = Outcome(stopped_by="", exchanges=(turn(6, 4), turn(9), turn(12, 7, "sha")))
    rows = log.decoded_rows()
    assert rows[log.of_exchange(0, rows)].tolist() == [6, 7, 8]
    assert rows[log.of_exchange(2, rows)].tolist() == list(range(12, 20))
    ours = rows[log.of_header(rows)]
    at, cold, kept = log.told(ours)
    assert at.tolist() == [*range(6), *range(7, 12), *range(12, 20)]
    assert np.flatnonzero(cold).tolist() == [0, 6]
    assert at[kept].tolist() == ours.tolist()
    at, cold, kept = log.told(np.array([7, 8]))
    assert (at.tolist(), cold.tolist(), kept.tolist()) == ([4, 5, 7, 8], [True, *[False] * 3], [False] * 2 + [True] * 2)
    assert [part.tolist() for part in log.told(rows[:0])] == [[], [], []]


SAMPLES = [(1000, 10.0), (1020, 11.0), (1060, 13.0), (1040, 12.0), (1080, np.nan)]  # ms, one out of order


@pytest.mark.parametrize(
    ("edge_ms", "value"),
    [
        (999, np.nan),
        (1000, 10.0),
        (1019, 10.0),
        (1020, 11.0),
        (1045, 12.0),
        (1060, 13.0),
        (1080, np.nan),
        (1101, np.nan),
    ],
)
def test_the_last_sample_at_or_before_the_edge_is_the_target(edge_ms: int, value: float) -> None:
    """Also of samples that came out of order; one older than a bin is none."""
    trace = Trace()
    for t_ms, sample in SAMPLES:
        trace.add(t_ms * MS, sample)
    (found,) = trace.at(np.array([edge_ms * MS]), BIN)
    assert found == pytest.approx(value, nan_ok=True)


def test_nothing_received_is_nan_everywhere() -> None:
    assert np.isnan(Trace().at(np.arange(3), BIN)).all()


def test_a_trace_is_kept_for_as_long_as_the_log() -> None:
    """The newest value is not the trace's business: what comes later is passed over."""
    trace = Trace(keep_ns=BIN)
    for t_ns in (0, BIN, BIN + 1):
        trace.add(t_ns, 1.0)
    assert trace.t_ns.tolist() == [0, BIN]
