"""Which spikes are sent again: known by their unit and the sender's own stamp, where stamps are fine enough to tell."""

from __future__ import annotations

import numpy as np

from kernels.cpu.jit import jit
from runtime.core.values import NO_TIME

KEPT, SLOTS, ROW = 1 << 14, 1 << 15, 8  # newest spikes that are remembered; where each is looked for, by rows
NEW, SAME, AGAIN = range(3)  # a spike; with unit and stamp of one before; with those, and stamps are fine
EQUAL_NS = 1_000  # stamps nearer than this are one stamp that was rounded
NEAR_NS = 500_000  # of a clock that ticks this slowly or slower, no two stamps are nearer without being equal
ENOUGH = 6.0  # near stamps before a clock counts as fine
SHARED = 0.125  # more for each spike that shares a stamp: a coarse sender that stumbles has near ones too
BACK_NS = 1_000_000_000  # a stamp further behind than this: the sender's clock was set
IN_SUMS = 16_384.0  # spikes, then all sums are halved

COUNT, NEAR, EQUAL = range(3)  # sums over new spikes: how many, how many near the newest stamp before, how many equal
COME, NEWEST_NS = range(2)  # samples that were remembered, and the newest stamp


@jit
def _look(
    units: np.ndarray, t_ns: np.ndarray, found: np.ndarray, slots: np.ndarray, sums: np.ndarray, last: np.ndarray
) -> None:  # fmt: skip
    """found (n,): NEW, SAME or AGAIN for each sample.

    slots (2, SLOTS): a key of each that is remembered, and its number; those that a key may lie in are one line of the
    cache.
    """
    for i in range(len(t_ns)):
        t, unit = t_ns[i], np.int64(units[i])
        found[i] = NEW
        if t == NO_TIME:
            continue
        come = last[COME]
        key = t * -7046029254386353131 + unit * -4417276706812531889
        row = (key >> 40) & (SLOTS - ROW)
        slot = row
        for k in range(row, row + ROW):
            if slots[0, k] == key:
                slot = k
                break
            if slots[1, k] < slots[1, slot]:  # the oldest gives way
                slot = k
        known = slots[0, slot] == key and come - slots[1, slot] <= KEPT
        slots[0, slot], slots[1, slot] = key, come
        if known:
            found[i] = AGAIN if sums[NEAR] >= ENOUGH + SHARED * sums[EQUAL] else SAME
            continue
        last[COME] = come + 1
        if unit < 0:  # a keep-alive, or noise
            continue
        step = t - last[NEWEST_NS]
        wraps = ((t ^ last[NEWEST_NS]) & (t ^ step)) < 0  # further apart than 64 bits hold
        equal = -EQUAL_NS <= step <= EQUAL_NS
        sums[COUNT] += 1.0
        sums[EQUAL] += equal and not wraps
        sums[NEAR] += -NEAR_NS < step < NEAR_NS and not equal and not wraps
        if wraps or step > 0 or step < -BACK_NS:
            last[NEWEST_NS] = t
        if sums[COUNT] >= IN_SUMS:
            sums *= 0.5


class Memory:
    """The newest spikes of a stream, however it is cut into chunks.

    Two spikes of one unit never share a stamp of a fine clock, so the second is the first sent again. Of a coarse one
    (1 ms, bins, one stamp a chunk) they may, so nothing is known. A clock is fine that gives stamps which are near but
    not equal; until enough of those have come, it counts as coarse.
    """

    def __init__(self) -> None:
        self._slots = np.full((2, SLOTS), -KEPT - 1)
        self._sums, self._last = np.zeros(3), np.zeros(2, np.int64)
        self._found = np.zeros(1024, np.uint8)
        self.look(np.zeros(0, np.int32), np.zeros(0, np.int64))  # compiles, before the loop

    def look(self, units: np.ndarray, t_ns: np.ndarray) -> np.ndarray:
        """(n,) uint8: NEW, SAME or AGAIN, for samples of units (n,) int32 stamped t_ns (n,) int64; reused.

        t_ns: by the sender's own clock, for the map to ours moves; `NO_TIME` = unknown.
        """
        n = len(t_ns)
        if n > len(self._found):
            self._found = np.zeros(2 * n, np.uint8)
        _look(units, t_ns, self._found[:n], self._slots, self._sums, self._last)
        return self._found[:n]
