"""The binner keeps its laws on any input, and agrees with a few lines of plain Python."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from runtime.core import binning
from runtime.core.binning import AGAIN, COUNTERS, KEPT, NEW, OPEN_BINS, RESENT_RUN, TWICE, Binner
from runtime.core.values import NO_TIME, SPIKES

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
garbage = st.lists(st.tuples(stamps, st.integers(-3, U + 2)), max_size=40)


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


def slow_again(spikes: list[Spike]) -> list[int]:
    """NEW, TWICE or AGAIN for each spike, by looking through all before it."""
    found, kept, first = [], [], {}
    source, length = 0, 0
    for t, unit in spikes:
        found.append(NEW)
        if not NOW - MAX_AGE <= t <= NOW + FUTURE:
            length = 0
            continue
        if 0 < length < len(kept) - source - 1 and kept[source + 1] == (t, unit):
            source, length = source + 1, length + 1
        else:
            source = first.setdefault((t, unit), len(kept))
            length = int(source < len(kept))
        kept.append((t, unit))
        run = kept[len(kept) - length :]
        found[-1] = TWICE if length else NEW
        if length >= RESENT_RUN and all(len(set(values)) > 1 for values in zip(*run, strict=True)):
            found[len(found) - length :] = [AGAIN] * length
    return found


def slow_tally(spikes: list[Spike], binner: Binner) -> dict[str, int]:
    """Where each spike belongs, as the docstrings say."""
    tally = dict.fromkeys(COUNTERS, 0)
    for (t, unit), again in zip(spikes, slow_again(spikes), strict=True):
        index = (t - binner.grid_ns) // BIN
        if again == AGAIN:
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


@given(garbage, st.integers(0, 4), st.integers(0, 4))
def test_every_spike_goes_where_plain_python_says(spikes: list[Spike], closed: int, skipped: int) -> None:
    binner = started()
    close_all(binner, closed)
    binner.skipped = (max(0, closed - skipped), closed)

    binner.feed(chunk(spikes), NOW)

    assert binner.counters() == slow_tally(spikes, binner)


sent_twice = st.builds(lambda a, n, b: a + a[:n] + b, garbage, st.integers(0, 40), garbage)


@given(sent_twice)
def test_spikes_that_come_again_are_those_that_plain_python_finds(spikes: list[Spike]) -> None:
    binner = started()
    binner.feed(chunk(spikes), NOW)
    assert binner._memory[2][: len(spikes)].tolist() == slow_again(spikes)
    assert binner.counters() == slow_tally(spikes, binner)


@pytest.mark.parametrize("cut", [0, 1, 3, 8, 11])
def test_a_chunk_that_is_sent_again_counts_once(cut: int) -> None:
    """However it arrives; and again later, with new spikes behind it."""
    binner, plain = started(), started()
    spikes = [(NOW - 19_000_000 + k * 1_000_000, k % U) for k in range(12)]
    new = [(NOW - 1_000_000 + k, 1) for k in range(3)]
    for part in (spikes, spikes[:cut], spikes[cut:], new, spikes, new[:2]):
        binner.feed(chunk(part), NOW)
    for part in (spikes, new, new[:2]):
        plain.feed(chunk(part), NOW)
    assert (binner.resent, binner.duplicates) == (24, 2)  # two spikes are too few to tell
    assert balanced(binner.counters())
    assert close_all(binner) == close_all(plain)


def test_a_bin_that_has_closed_keeps_its_spikes() -> None:
    """The first spikes of a repeated run, taken for new until the run was long enough, may have gone out."""
    binner = started()
    spikes = [(NOW - 19_000_000 + k, k % U) for k in range(6)]
    binner.feed(chunk(spikes + spikes[:3]), NOW)
    counts = [sum(row) for row, _ in close_all(binner, 2)]
    binner.feed(chunk(spikes[3:]), NOW)
    assert (sum(counts), binner.resent, binner.counters()["late"]) == (9, 3, 0)
    assert balanced(binner.counters())


@pytest.mark.parametrize(
    ("name", "spikes", "duplicates"),
    [
        ("each sent twice at once", [(NOW - 100 * (k // 2), k // 2 % U) for k in range(40)], 20),
        ("merged units, stamps of 1 ms", [(NOW - 10**6 * k, u) for k in range(8) for u in (0, 1, 1, 2)], 0),
        ("one unit", [(NOW - 100 * k, 0) for k in [*range(20), *range(20)]], 20),
        ("one stamp for all", [(NOW - 5, u % U) for u in range(40)], 0),
        ("two sources of a merged unit in turn", [(NOW - 100 * k, u) for u in (0, 0, 1) for k in range(9)], 9),
    ],
)  # fmt: skip
def test_spikes_that_may_be_two_are_binned(name: str, spikes: list[Spike], duplicates: int) -> None:
    """Equal stamps prove nothing where they are coarse, so nothing is dropped; what can be counted is."""
    binner = started(NOW - 10 * BIN)
    binner.feed(chunk(spikes), NOW)
    assert (binner.counters()["binned"], binner.resent, binner.duplicates) == (len(spikes), 0, duplicates)


def test_what_is_long_gone_is_not_remembered() -> None:
    """A spike that has left the memory is new again: nothing is dropped by a mistaken match."""
    binner = Binner(U, BIN, max_age_ns=10**12, future_ns=FUTURE)
    binner.start(NOW - 2 * BIN)
    spikes = [(NOW - 1_000 * k, k % U) for k in range(8)]
    binner.feed(chunk(spikes), NOW)
    binner.feed(chunk([(NOW - 2 * 10**9 + k, 0) for k in range(KEPT)]), NOW)
    binner.feed(chunk(spikes), NOW)
    assert (binner.resent, binner.counters()["binned"]) == (0, 16)


@given(st.lists(garbage, max_size=5))
def test_the_conservation_law_holds_after_every_step(chunks: list[list[Spike]]) -> None:
    """received = binned + late + out_of_range + quarantined + dropped_backlog; binned = closed + still open."""
    binner = started()
    closed = 0
    for spikes in chunks:
        binner.feed(chunk(spikes), NOW)
        closed += sum(close_all(binner, 1)[0][0])

        assert balanced(binner.counters())
        assert binner.counters()["binned"] == closed + binner.counts.sum()


@given(garbage, st.lists(st.integers(0, 40), max_size=6))
def test_chunking_does_not_matter(spikes: list[Spike], cuts: list[int]) -> None:
    """However the stream is cut, counts, newest stamps, watermark and counters equal the one-shot result."""
    whole, cut = started(), started()
    spikes = spikes + spikes[: len(spikes) // 2]  # sent again
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

    assume(straight.resent == mixed.resent == 0)  # these are known by their order
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

    assume(binner.resent == 0)
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
