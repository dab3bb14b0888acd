"""A spike that is sent again is known where stamps are fine, and true spikes are kept where they are not."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from runtime.core import again
from runtime.core.again import AGAIN, BACK_NS, ENOUGH, EQUAL_NS, KEPT, NEAR_NS, NEW, SAME, SHARED, Memory
from runtime.core.values import NO_TIME

START = 10**14
MS = 1_000_000
Sample = tuple[int, int]  # stamp ns, unit
samples = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 5 * MS).map(lambda t: START + t), st.integers(-2 * BACK_NS, 2 * BACK_NS),
                  st.sampled_from([NO_TIME, START, START + 1, START + MS, np.iinfo(np.int64).max])),
        st.one_of(st.integers(-2, 5), st.sampled_from([np.iinfo(np.int32).min, np.iinfo(np.int32).max])),
    ), max_size=60,
)  # fmt: skip


def look(memory: Memory, spikes: list[Sample]) -> list[int]:
    units, t_ns = np.array([u for _, u in spikes], np.int32), np.array([t for t, _ in spikes], np.int64)
    return memory.look(units, t_ns).tolist()


def slow_look(spikes: list[Sample]) -> list[int]:
    """By looking through all before it."""
    found, known = [], set()
    near = equal = newest = 0
    for t, unit in spikes:
        found.append(NEW)
        if (t, unit) in known:
            found[-1] = AGAIN if near >= ENOUGH + SHARED * equal else SAME
        elif t != NO_TIME:
            known.add((t, unit))
            if unit >= 0:
                near += EQUAL_NS < abs(t - newest) < NEAR_NS
                equal += abs(t - newest) <= EQUAL_NS
                newest = t if t > newest or t < newest - BACK_NS else newest
    return found


def fine(n: int, units: int = 8, step_ns: int = 33_333) -> list[Sample]:
    """Spikes of a clock that ticks 30,000 times a second, some of which share a stamp."""
    rng = np.random.default_rng(n)
    ticks = np.cumsum(rng.integers(0, 60, n))
    order = rng.permutation(np.arange(n) % units)
    return sorted({(START + int(t) * step_ns, int(u)) for t, u in zip(ticks, order, strict=True)})


LAST = np.iinfo(np.int64).max
# Stamps whose distance does not fit into 64 bits, or just does: they are no equal ones.
FAR = [(START + 1002, 0), (START, 1), (START, 2), (START, 3), (START, 4), (START + 1, 0), (-1, 0), (LAST, 0), (-1, 1)]


@example([(START, 0)], 0, FAR)
@example([(START, 0)], 0, [*FAR[:-2], (-2 * BACK_NS, 5), (LAST, 0), (-2, 1), (LAST - 1, 2)])
@given(samples, st.integers(0, 60), samples)
def test_it_finds_what_plain_python_finds(first: list[Sample], n: int, more: list[Sample]) -> None:
    spikes = first + first[:n] + more + first
    assert look(Memory(), spikes) == slow_look(spikes)


@given(st.integers(0, 300), st.lists(st.integers(0, 600), max_size=6))
def test_chunking_does_not_matter(n: int, cuts: list[int]) -> None:
    spikes = fine(300) + fine(300)[:n]
    edges = [0, *sorted(min(cut, len(spikes)) for cut in cuts), len(spikes)]
    memory = Memory()
    found = [each for a, b in pairwise(edges) for each in look(memory, spikes[a:b])]
    assert found == look(Memory(), spikes) == [NEW] * len(fine(300)) + [AGAIN] * min(n, len(fine(300)))


@pytest.mark.parametrize("piece", [1, 2, 30])
def test_any_spike_that_comes_again_is_known_once_stamps_are_fine(piece: int) -> None:
    """One by itself, two of a chunk of 2 ms, windows that overlap; also a third time."""
    memory, spikes = Memory(), fine(400)
    assert look(memory, spikes[:100]) == [NEW] * 100
    for k in range(100, len(spikes), piece):
        assert look(memory, spikes[k : k + piece]) == [NEW] * len(spikes[k : k + piece])
        assert look(memory, spikes[k - 20 : k + piece]) == [AGAIN] * len(spikes[k - 20 : k + piece])


def coarse_bins(units: int, mean: float, by_unit: bool) -> list[Sample]:
    """Counts of bins of 20 ms, pushed five bins at a time: first those that fired, then those that fired twice."""
    rng, spikes = np.random.default_rng(units), []
    for chunk in range(60):
        counts = rng.poisson(mean, (5, units))
        part = []
        for least in range(1, counts.max() + 1):
            bins, which = np.nonzero(counts >= least)
            part += [(START + (5 * chunk + int(b)) * 20 * MS, int(u)) for b, u in zip(bins, which, strict=True)]
        spikes += sorted(part, key=lambda s: (s[1], s[0])) if by_unit else part
    return spikes


def ticks(tick_ns: int, rate_hz: float, units: int, rounding_ns: int = 0) -> list[Sample]:
    """Poisson spikes of merged units by a clock that ticks; stamps of doubles are rounded by a nanosecond."""
    rng = np.random.default_rng(units)
    t_ns = START + np.cumsum(rng.exponential(1e9 / rate_hz, 3000)).astype(np.int64) // tick_ns * tick_ns
    t_ns += rng.integers(-rounding_ns, rounding_ns + 1, 3000)
    return [(int(t), int(u)) for t, u in zip(t_ns, rng.integers(0, units, 3000), strict=True)]


@pytest.mark.parametrize(
    ("name", "spikes"),
    [
        *((f"bins of {units} units", coarse_bins(units, mean, by_unit))
          for units, mean in ((1, 0.8), (2, 0.1), (30, 1.0), (96, 2.0)) for by_unit in (False, True)),
        *((f"1 ms at {rate} Hz", ticks(MS, rate, units, 1)) for rate, units in ((20, 3), (300, 10), (5000, 50))),
        ("one stamp a chunk of 2 ms", ticks(2 * MS, 1000, 20)),
        ("one stamp for all", [(START, u % 4) for u in range(500)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_true_spikes_of_a_coarse_clock_are_kept(name: str, spikes: list[Sample], piece: int) -> None:
    """Two spikes of a unit may share its stamp; however they are cut, none is taken for one sent again."""
    memory, found = Memory(), []
    for k in range(0, len(spikes), piece):
        found += look(memory, spikes[k : k + piece])
    assert len(found) == len(spikes)
    assert SAME in found
    assert AGAIN not in found


def test_a_sender_that_stumbles_is_still_coarse() -> None:
    """One stamp a chunk; each time that the sender catches up, two chunks are near."""
    rng, spikes, at = np.random.default_rng(0), [], START
    for chunk in range(2000):
        at += 100_000 if chunk % 20 == 0 else 2 * MS
        spikes += [(at, int(u)) for u in rng.integers(0, 20, rng.poisson(3))]
    assert AGAIN not in look(Memory(), spikes)


def test_units_that_fire_together_do_not_make_a_clock_coarse() -> None:
    """Two electrodes that hear the same spike give it the same stamp."""
    spikes = [(t, u) for t, u in ticks(33_333, 40, 30) for u in ((u, u + 30) if u < 3 else (u,))]
    spikes = list(dict.fromkeys(spikes))
    memory = Memory()
    look(memory, spikes)
    assert set(look(memory, spikes[-500:])) == {AGAIN}


def test_what_is_long_gone_is_not_remembered() -> None:
    """A spike that has left the memory is new again: nothing is dropped by a mistaken match."""
    memory, spikes = Memory(), fine(200)
    look(memory, spikes)
    look(memory, [(START + (10 + k) * MS * 100, 0) for k in range(KEPT + 1)])
    assert look(memory, spikes) == [NEW] * len(spikes)


def test_a_clock_that_was_set_back_is_judged_anew() -> None:
    """One stamp far ahead must not hide that all others are fine."""
    memory = Memory()
    look(memory, [(START + 10**15, 0)])
    assert look(memory, fine(200) + fine(200)[-50:])[-50:] == [AGAIN] * 50


def test_no_chunk_is_compiled_for_behind_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = numba.njit(again._look.py_func)
    monkeypatch.setattr(again, "_look", fresh)
    memory = Memory()
    units, t_ns = np.zeros((9, 1), np.int32), np.arange(9)
    for n in (9, 1, 2, 0, 5):
        memory.look(units[:n, 0], t_ns[:n])
    assert len(fresh.signatures) == 1
