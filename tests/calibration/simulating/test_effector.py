"""The delay line: in order, as late as it says, and nothing once a value has run out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from calibration.simulating.effector import DelayLine

TICK, VALID = 5, 60
GAPS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(gaps=GAPS, delay=st.integers(0, 300))
def test_a_value_is_in_effect_from_its_delay_until_its_successor_or_its_end(gaps: list[int], delay: int) -> None:
    received = np.cumsum(gaps)
    line, pushed = DelayLine(), 0
    for now in range(0, int(received[-1]) + delay + VALID + 2 * TICK, TICK):
        while pushed < len(received) and received[pushed] <= now:
            line.push(int(received[pushed]), VALID, delay, np.array([float(pushed)]))
            pushed += 1
        newest = int(np.searchsorted(received + delay, now, side="right")) - 1
        command = line.at(now)
        if newest < 0 or now >= received[newest] + delay + VALID:
            assert command is None
        else:
            assert command is not None
            assert command.velocity is not None
            assert command.velocity[0] == newest


def test_a_withheld_value_is_in_effect_as_one_without_a_velocity() -> None:
    line = DelayLine()
    line.push(0, VALID, 0, np.ones(2))
    line.push(20, VALID, 0, None)
    command = line.at(20)
    assert command is not None
    assert command.velocity is None


def test_a_shorter_delay_overtakes_nothing_in_silence() -> None:
    """What is still on its way when a newer value takes effect before it is dropped: no value goes back in time."""
    line = DelayLine()
    line.push(0, VALID, 200, np.array([1.0]))
    line.push(20, VALID, 0, np.array([2.0]))
    seen = [line.at(now) for now in range(0, 300, TICK)]
    assert {float(c.velocity[0]) for c in seen if c is not None and c.velocity is not None} == {2.0}
