"""The binner keeps its laws on any input, and agrees with a few lines of plain Python."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, strategies as st

from runtime.core import binning
from runtime.core.binning import COUNTERS, OPEN_BINS, Binner
from runtime.core.values import NO_TIME, SENT_AGAIN, SPIKES

U, BIN = 4, 20_000_000
NOW = 1_000 * BIN + 7
MAX_AGE, FUTURE = 10**9, 2_000_000
INT64 = np.iinfo(np.int64)

Spike = tuple[int, int]  # stamp ns, unit

near = st.integers(NOW - 3 * BIN, NOW + 3 * BIN)
on_edge = st.builds(lambda k, d: (1_000 + k) * BIN + d, st.integers(-4, 4), st.integers(-1, 1))
absurd = st.sampled_from([NO_TIME, INT64.min + 1, -1, 0, 1, NOW - MAX_AGE - 1, NOW + FUTURE + 1, INT64.max])
stamps = st.one_of(near, on_edge, absurd)
good = st.lists(st.tuples(near, st.integers(0, U - 1)), max_size=40)
garbage = st.lists(st.tuples(stamps, st.one_of(st.integers(-3, U + 2), st.just(SENT_AGAIN))), max_size=40)


def chunk(spikes: list[Spike]) -> np.ndarray:
    return np.array(spikes, SPIKES)


def started(at_ns: int = NOW - 2 * BIN) -> Binner:
    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=FUTURE)
    binner.start(at_ns)
    return binner


def close_all(binner: Binner, n_bins: int = 8) -> list[tuple[list[int], int]]:
    """Counts and newest stamp of the next bins."""
    out = np.zeros(U, np.uint16)
    found = []
    for _ in range(n_bins):
        newest = binner.close(out)
        found.append((out.tolist(), newest))
    return found


def slow_tally(spikes: list[Spike], binner: Binner) -> dict[str, int]:
    """Where each spike belongs, as the docstrings say."""
    tally = dict.fromkeys(COUNTERS, 0)
    for t, unit in spikes:
        index = (t - binner.grid_ns) // BIN
        if unit == SENT_AGAIN:
            tally["resent"] += 1
        elif not NOW - MAX_AGE <= t <= NOW + FUTURE:
            tally["quarantined"] += 1
        elif not 0 <= unit < U:
            tally["out_of_range"] += 1
        elif binner.skipped[0] <= index < binner.skipped[1] or index >= binner.open_bin + OPEN_BINS:
            tally["dropped_backlog"] += 1
        elif index < binner.open_bin:
            tally["late"] += 1
        else:
            tally["binned"] += 1
    return tally | {"received": len(spikes)}


def balanced(counters: dict[str, int]) -> bool:
    return counters["received"] == sum(n for name, n in counters.items() if name != "received")


@given(garbage, st.integers(0, 4), st.integers(0, 4), st.tuples(stamps, stamps))
def test_every_spike_goes_where_plain_python_says(
    spikes: list[Spike], closed: int, skipped: int, stall: tuple[int, int]
) -> None:
    binner = started()
    close_all(binner, closed)
    binner.skipped = (max(0, closed - skipped), closed)
    binner.stall_ns = stall

    binner.feed(chunk(spikes), NOW)

    assert binner.counters() == slow_tally(spikes, binner)
    of_stall = slow_tally([each for each in spikes if stall[0] <= each[0] < stall[1]], binner)
    for name in ("late", "quarantined"):
        assert binner.totals()[f"{name}_of_stall"] == of_stall[name]
    assert binner.totals()["negative"] == sum(
        SENT_AGAIN < unit < 0 and NOW - MAX_AGE <= t <= NOW + FUTURE for t, unit in spikes
    )


@given(st.lists(garbage, max_size=5))
def test_the_conservation_law_holds_after_every_step(chunks: list[list[Spike]]) -> None:
    """Received = binned + late + out_of_range + quarantined + dropped_backlog + resent; binned = closed + open."""
    binner = started()
    closed = 0
    for spikes in chunks:
        binner.feed(chunk(spikes), NOW)
        closed += sum(close_all(binner, 1)[0][0])

        assert balanced(binner.counters())
        assert binner.counters()["binned"] == closed + binner.counts.sum()


@given(st.lists(garbage, max_size=4), st.integers(0, 4))
def test_the_spikes_that_are_kept_are_those_that_were_binned(chunks: list[list[Spike]], skipped: int) -> None:
    """In the order in which they came, chunk by chunk."""
    binner = started()
    binner.kept = []
    closed = np.zeros(U, int)
    for spikes in chunks:
        binner.skipped = (max(0, binner.open_bin - skipped), binner.open_bin)
        before = binner.counters()["binned"]
        binner.feed(chunk(spikes), NOW)
        came = binner.kept[-1].tolist() if spikes else []
        assert len(came) == binner.counters()["binned"] - before
        assert came == [each for each in spikes if each in set(came)]
        closed += close_all(binner, 1)[0][0]
    kept = np.concatenate([np.zeros(0, SPIKES), *binner.kept])
    counts = closed + binner.counts.sum(0)
    np.testing.assert_array_equal(np.bincount(kept["unit"], minlength=U), counts)


@given(garbage, st.lists(st.integers(0, 40), max_size=6))
def test_chunking_does_not_matter(spikes: list[Spike], cuts: list[int]) -> None:
    """However the stream is cut, counts, newest stamps, watermark and counters equal the one-shot result."""
    whole, cut = started(), started()
    edges = [0, *sorted(min(c, len(spikes)) for c in cuts), len(spikes)]

    whole.feed(chunk(spikes), NOW)
    for a, b in pairwise(edges):
        cut.feed(chunk(spikes[a:b]), NOW)

    assert (cut.counters(), cut.watermark_ns) == (whole.counters(), whole.watermark_ns)
    assert close_all(cut) == close_all(whole)


@given(st.data())
def test_the_order_inside_a_chunk_does_not_matter(data: st.DataObject) -> None:
    spikes = data.draw(garbage)
    straight, mixed = started(), started()

    straight.feed(chunk(spikes), NOW)
    mixed.feed(chunk(data.draw(st.permutations(spikes))), NOW)

    assert (mixed.counters(), mixed.watermark_ns) == (straight.counters(), straight.watermark_ns)
    assert close_all(mixed) == close_all(straight)


@given(good)
def test_counts_are_those_of_a_histogram(spikes: list[Spike]) -> None:
    binner = started()
    spikes = [(t, u) for t, u in spikes if binner.grid_ns <= t <= NOW + FUTURE]
    want = np.zeros((8, U), int)
    for t, unit in spikes:
        want[(t - binner.grid_ns) // BIN, unit] += 1

    binner.feed(chunk(spikes), NOW)

    assert [row for row, _ in close_all(binner)] == want.tolist()


@pytest.mark.parametrize(("offset", "index"), [(-1, 0), (0, 1), (1, 1), (BIN - 1, 1), (BIN, 2)])
def test_bins_are_half_open(offset: int, index: int) -> None:
    """A spike on an edge belongs to the bin that begins there; one nanosecond decides."""
    binner = started()
    edge = binner.edge_ns

    binner.feed(chunk([(edge + offset, 2)]), edge + 2 * BIN)

    assert [row[2] for row, _ in close_all(binner, 3)] == [int(k == index) for k in range(3)]


@given(st.integers(-(10**18), 10**18))
def test_the_first_edge_is_the_multiple_at_or_before_now(now_ns: int) -> None:
    binner = started(now_ns)
    assert binner.grid_ns % BIN == 0
    assert 0 <= now_ns - binner.grid_ns < BIN


def test_the_newest_stamp_is_of_the_bin_that_is_closed() -> None:
    binner = started()
    edge = binner.edge_ns
    binner.feed(chunk([(edge - 5, 0), (edge - 9, 1), (edge + 3, 1)]), edge)
    assert [newest for _, newest in close_all(binner, 3)] == [edge - 5, edge + 3, NO_TIME]


def test_an_absurd_stamp_does_not_move_the_watermark() -> None:
    binner = started()
    binner.feed(chunk([(NOW - 5, 0), (NOW + FUTURE + 1, 1), (INT64.max, 1), (NO_TIME, 0)]), NOW)
    binner.alive(NOW + FUTURE + 1, NOW)
    binner.alive(NOW - MAX_AGE - 1, NOW)
    assert binner.watermark_ns == NOW - 5


def test_a_spike_of_an_unknown_unit_still_moves_the_watermark() -> None:
    """The stream has delivered up to it, whichever neuron it came from."""
    binner = started()
    binner.feed(chunk([(NOW - 5, U)]), NOW)
    binner.alive(NOW - 9, NOW)  # older: nothing new
    assert binner.watermark_ns == NOW - 5


def test_the_ring_is_reused_without_leftovers() -> None:
    binner = started(0)
    for k in range(3 * OPEN_BINS):
        binner.feed(chunk([(k * BIN + 1, k % U)]), k * BIN + 2)
        ((row, newest),) = close_all(binner, 1)
        assert (row, newest) == ([int(u == k % U) for u in range(U)], k * BIN + 1)


def test_a_stamp_beyond_the_ring_is_dropped_and_counted() -> None:
    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=10**12)
    binner.start(0)
    binner.feed(chunk([(OPEN_BINS * BIN - 1, 0), (OPEN_BINS * BIN, 0)]), 0)
    assert binner.counters() == dict.fromkeys(COUNTERS, 0) | {"received": 2, "binned": 1, "dropped_backlog": 1}


@pytest.mark.parametrize(("n", "same", "coarse"), [(15, 15, False), (16, 16, True), (40, 20, False), (40, 22, True)])
def test_shared_stamps_are_noticed(n: int, same: int, coarse: bool) -> None:
    """More than half repeated, in a chunk large enough to tell; said once."""
    binner = started()
    binner.feed(chunk([(NOW - max(0, i - same + 1), 0) for i in range(n)][::-1]), NOW)
    assert (binner.take_coarse(), binner.take_coarse()) == (coarse, False)


def test_no_chunk_is_compiled_for_behind_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of a second without a decoded value, in the run that first meets chunks of another type."""
    fresh = numba.njit(binning._scatter.py_func)
    monkeypatch.setattr(binning, "_scatter", fresh)
    binner = started()
    compiled = len(fresh.signatures)
    spikes = chunk([(NOW, i % U) for i in range(8)])
    for begin, end in ((0, 8), (0, 1), (1, 2), (2, 3), (3, 5), (7, 7)):
        binner.feed(spikes[begin:end], NOW)
    assert compiled == len(fresh.signatures) == 1
    assert binner.counters()["binned"] == 13
