"""What is compiled of a spike stream's reading, against the same in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from runtime.core import samples as reading
from runtime.core.again import AGAIN, NEW, SAME
from runtime.core.values import NO_TIME, SENT_AGAIN, SPIKES

INT32 = np.iinfo(np.int32)
units = st.integers(-3, 5) | st.integers(INT32.min, INT32.max)
lines = st.tuples(st.integers(-(10**15), 10**15), st.integers(-(10**15), 10**15), st.floats(-1e-3, 1e-3))


@given(st.lists(st.floats(-1e6, 1e6) | st.floats(), max_size=20), lines)
def test_stamps(stamps: list[float], line: tuple[int, int, float]) -> None:
    """To ns by rounding, and by the line to our clock; what no clock gives is no time."""
    at_ns, offset_ns, slope = line
    sent, here = np.zeros((2, len(stamps)), np.int64)
    odd = reading.stamped(np.array(stamps), sent, here, at_ns, offset_ns, slope)
    wrong = [k for k, s in enumerate(stamps) if not abs(s) < reading.SANE_S]
    assert odd == (wrong[-1] if wrong else -1)
    for k, s in enumerate(stamps):
        assert sent[k] == (NO_TIME if k in wrong else round(s * 1e9))
        there = int(sent[k]) + offset_ns
        assert here[k] == (NO_TIME if k in wrong else there + round(slope * (there - at_ns)))


@given(st.lists(st.tuples(units, st.sampled_from([NEW, SAME, AGAIN]), st.booleans()), max_size=20), st.booleans())
def test_spikes_and_what_may_be_keep_alives(samples: list[tuple[int, int, bool]], keep_alives: bool) -> None:
    unit = np.array([u for u, _, _ in samples], np.int32)
    found = np.array([f for _, f, _ in samples], np.uint8)
    t_ns = np.array([k if known else NO_TIME for k, (_, _, known) in enumerate(samples)], np.int64)

    out = np.zeros((20, 3), np.int64)
    n, same = reading.negative(unit, t_ns, found, out)
    places = [k for k, u in enumerate(unit) if u < 0 and t_ns[k] != NO_TIME]
    assert out[:n, 0].tolist() == places
    assert out[:n, 1].tolist() == [int((unit[:k] >= 0).sum()) for k in places]
    assert out[:n, 2].tolist() == [int(((unit[:k] >= 0) & (found[:k] != NEW)).sum()) for k in places]
    assert same == int(((unit >= 0) & (found != NEW)).sum())

    spikes, delays = np.zeros(20, SPIKES), np.full(3, np.nan, np.float32)
    n, place = reading.gather(unit, t_ns, found, keep_alives, 10**6, spikes, delays, 2)
    kept = [k for k in range(len(unit)) if not (keep_alives and unit[k] < 0)]
    assert spikes["t_ns"][:n].tolist() == t_ns[kept].tolist()
    assert spikes["unit"][:n].tolist() == [
        SENT_AGAIN if found[k] == AGAIN else max(int(unit[k]), SENT_AGAIN + 1) for k in kept
    ]
    told = [k for k in kept if found[k] != AGAIN and t_ns[k] != NO_TIME]
    assert place == 2 + len(told)
    newest = {(2 + j) % 3: np.float32((10**6 - t_ns[k]) * 1e-6) for j, k in enumerate(told)}
    assert {k: delays[k] for k in range(3) if not np.isnan(delays[k])} == newest
