"""Spikes to tokens of one bin on the LSL clock: integers only, every spike accounted for."""

from __future__ import annotations

import numpy as np

from kernels.cpu.jit import jit
from runtime.core.values import NO_TIME, SPIKES

OPEN_BINS = 128  # bins that can be open at once: catching up after a stall, lateness, and stamps of the near future
COUNTERS = ("received", "binned", "late", "out_of_range", "quarantined", "dropped_backlog", "resent")
RECEIVED, BINNED, LATE, OUT_OF_RANGE, QUARANTINED, DROPPED_BACKLOG, RESENT, DUPLICATES = range(len(COUNTERS) + 1)
MOST = 65_535  # spikes of one unit in one bin that uint16 holds; more are a fault of the sender
COARSE_SHARE = 0.5  # more repeated stamps than this in a chunk of 16 or more: stamps are coarse
KEPT, SLOTS, ROW = 1 << 14, 1 << 15, 8  # newest spikes that are remembered; where each is looked for, by rows
RESENT_RUN = 4  # so many spikes in the order in which they came before, of several units and stamps, were sent again
NEW, TWICE, AGAIN = range(3)  # a spike; with unit and stamp of one before; of a run that was sent again


# Places in the array that says where spikes may go: the grid, the oldest open bin, the stamps that are believed, and
# the bins that were closed unseen. Then how many spikes were remembered, and the run of spikes that have come before:
# which one its last repeats, how many it has, whether they are of several units, of several stamps, and enough of both.
# One array, because each argument of compiled code costs time in every call.
GRID_NS, BIN_NS, OPEN_BIN, LOW_NS, HIGH_NS, SKIPPED_FROM, SKIPPED_TO = range(7)
COME, SOURCE, LENGTH, UNITS, STAMPS, SURE = range(7, 13)


@jit
def _look(
    spikes: np.ndarray, frame: np.ndarray, kept: np.ndarray, slots: np.ndarray, again: np.ndarray
) -> tuple[int, int]:  # fmt: skip
    """Which of spikes (n,) have come before: again (n,) is NEW, TWICE or AGAIN.

    kept (2, KEPT): stamp and unit of the newest spikes. slots (2, SLOTS): a key of each, and its number; those that a
    key may lie in are one line of the cache. Returns the numbers [from, to) of earlier spikes that a run began with.
    """
    t_ns, unit = spikes["t_ns"], spikes["unit"]
    come, source, length = frame[COME], frame[SOURCE], frame[LENGTH]
    units, stamps, sure = frame[UNITS], frame[STAMPS], frame[SURE]
    begun, end = 0, 0
    for i in range(len(t_ns)):
        t, u = t_ns[i], np.int64(unit[i])
        again[i] = NEW
        if t < frame[LOW_NS] or t > frame[HIGH_NS]:
            length = 0
            continue
        source += 1
        place, before = source & (KEPT - 1), (come - 1) & (KEPT - 1)
        if 0 < length < come - source and kept[0, place] == t and kept[1, place] == u:
            length += 1
            units |= kept[1, before] != u
            stamps |= kept[0, before] != t
        else:
            length = units = stamps = sure = 0
            key = (t ^ (u << 40)) * -7046029254386353131
            row = (key >> 40) & (SLOTS - ROW)
            slot = row
            for k in range(row, row + ROW):
                if slots[0, k] == key:
                    slot = k
                    break
                if slots[1, k] < slots[1, slot]:  # the oldest gives way
                    slot = k
            source = slots[1, slot] if slots[0, slot] == key else np.int64(-KEPT - 1)
            place = source & (KEPT - 1)
            if come - source <= KEPT and kept[0, place] == t and kept[1, place] == u:
                length = 1
            else:
                slots[0, slot], slots[1, slot] = key, come
        if length > 0:
            again[i] = TWICE
        if length >= RESENT_RUN and units and stamps:
            again[max(0, i - length + 1) if not sure else i : i + 1] = AGAIN
            if not sure and length > i + 1:
                begun, end = come - length + 1, come - i
            sure = 1
        place = come & (KEPT - 1)
        kept[0, place], kept[1, place] = t, u
        come += 1
    frame[COME], frame[SOURCE], frame[LENGTH] = come, source, length
    frame[UNITS], frame[STAMPS], frame[SURE] = units, stamps, sure
    return begun, end


@jit
def _take_back(
    begun: int, end: int, kept: np.ndarray, counts: np.ndarray, tally: np.ndarray, frame: np.ndarray
) -> None:  # fmt: skip
    """Spikes number [begun, end), the first of a run, leave the bins that are still open."""
    for number in range(begun, end):
        t, unit = kept[0, number & (KEPT - 1)], kept[1, number & (KEPT - 1)]
        index = (t - frame[GRID_NS]) // frame[BIN_NS]
        slot = index % len(counts)
        if 0 <= unit < counts.shape[1] and frame[OPEN_BIN] <= index and counts[slot, unit] > 0:
            counts[slot, unit] -= 1
            tally[BINNED] -= 1
            tally[RESENT] += 1
            tally[DUPLICATES] = max(0, tally[DUPLICATES] - 1)


@jit
def _scatter(
    spikes: np.ndarray, counts: np.ndarray, newest: np.ndarray, tally: np.ndarray, frame: np.ndarray,
    memory: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[int, int]:  # fmt: skip
    """Add spikes (n,) `SPIKES` to open bins. Returns (newest accepted stamp, repeated stamps).

    Takes them whole: a field by itself is of one type in chunks of one spike and of another in longer ones, and each
    would be compiled when it first comes. memory: kept, slots and again (see `_look`).
    """
    kept, slots, again = memory
    begun, end = _look(spikes, frame, kept, slots, again)
    if end > begun:
        _take_back(begun, end, kept, counts, tally, frame)
    t_ns, unit = spikes["t_ns"], spikes["unit"]
    low_ns, high_ns, open_bin = frame[LOW_NS], frame[HIGH_NS], frame[OPEN_BIN]
    n_open, n_units = counts.shape
    top = NO_TIME
    repeated = new = shared = twice = 0
    for i in range(len(t_ns)):
        t = t_ns[i]
        if t < low_ns or t > high_ns:
            tally[QUARANTINED] += 1
            continue
        if t > top:
            top = t
        same = i > 0 and t == t_ns[i - 1]
        repeated += same
        if again[i] == NEW:
            new += 1
            shared += same
        index = (t - frame[GRID_NS]) // frame[BIN_NS]
        if again[i] == AGAIN:
            tally[RESENT] += 1
        elif unit[i] < 0 or unit[i] >= n_units:
            tally[OUT_OF_RANGE] += 1
        elif index >= open_bin + n_open or frame[SKIPPED_FROM] <= index < frame[SKIPPED_TO]:
            tally[DROPPED_BACKLOG] += 1
        elif index < open_bin:
            tally[LATE] += 1
        elif counts[index % n_open, unit[i]] == MOST:  # it would start again from 0
            tally[QUARANTINED] += 1
        else:
            counts[index % n_open, unit[i]] += 1
            newest[index % n_open] = max(newest[index % n_open], t)
            tally[BINNED] += 1
            twice += again[i] == TWICE
    if shared == 0 or 2 * shared < new:  # else most stamps are shared by several units, and equal ones prove nothing
        tally[DUPLICATES] += twice
    tally[RECEIVED] += len(t_ns)
    return top, repeated


class Binner:
    """Open bins as a ring. Bin k covers [grid + k * bin, grid + (k + 1) * bin), no epsilon.

    Conservation, always: received = binned + late + out_of_range + quarantined + dropped_backlog + resent.
    Spikes that are sent again in a row are dropped (resent). One by itself with the unit and the stamp of another is
    binned and counted as a duplicate: two spikes of merged units may share a stamp that is coarse.
    """

    def __init__(
        self, n_units: int, bin_ns: int, *, max_age_ns: int, future_ns: int, ordered: bool = False
    ) -> None:  # fmt: skip
        """Stamps older than max_age_ns or further ahead than future_ns of arrival are quarantined.

        ordered: the sender declares that spikes arrive in the order of their stamps, so that each completes all before.
        """
        self.bin_ns, self.n_units = bin_ns, n_units
        self.max_age_ns, self.future_ns = max_age_ns, future_ns
        self.counts = np.zeros((OPEN_BINS, n_units), np.uint16)
        self.newest = np.full(OPEN_BINS, NO_TIME, np.int64)
        self.tally = np.zeros(len(COUNTERS) + 1, np.int64)
        self._frame = np.zeros(SURE + 1, np.int64)
        self._memory = (np.zeros((2, KEPT), np.int64), np.full((2, SLOTS), -KEPT - 1), np.zeros(1024, np.uint8))
        self.grid_ns = 0
        self.open_bin = 0
        self.skipped: tuple[int, int] = (0, 0)  # bins [from, to) closed unseen after a stall; their spikes are backlog
        self.ordered = ordered
        self.watermark_ns: int = NO_TIME  # newest stamp: the stream is alive
        self.complete_ns: int = NO_TIME  # everything stamped before this has been delivered
        self.coarse = False
        none = np.zeros(0, SPIKES)  # compiles, before the loop
        _scatter(none, self.counts, self.newest, self.tally, self._frame, self._memory)

    def start(self, now_ns: int) -> None:
        """Fix the run's first edge: the multiple of bin_ns at or before now."""
        self.grid_ns = now_ns // self.bin_ns * self.bin_ns
        self.open_bin = 0

    def feed(self, spikes: np.ndarray, now_ns: int) -> None:
        """Bin spikes (n,) `SPIKES` that arrived at now_ns."""
        if len(spikes) == 0:
            return
        self._frame[:COME] = (
            self.grid_ns, self.bin_ns, self.open_bin, now_ns - self.max_age_ns, now_ns + self.future_ns, *self.skipped
        )  # fmt: skip
        if len(spikes) > len(self._memory[2]):
            self._memory = (*self._memory[:2], np.zeros(2 * len(spikes), np.uint8))
        top, repeated = _scatter(spikes, self.counts, self.newest, self.tally, self._frame, self._memory)
        self.watermark_ns = max(self.watermark_ns, top)
        if self.ordered:
            self.complete_ns = max(self.complete_ns, top)
        if len(spikes) >= 16 and repeated > COARSE_SHARE * len(spikes):
            self.coarse = True

    def alive(self, t_ns: int, now_ns: int) -> None:
        """A keep-alive: the stream has delivered everything before t_ns."""
        if now_ns - self.max_age_ns <= t_ns <= now_ns + self.future_ns:
            self.watermark_ns = max(self.watermark_ns, t_ns)
            self.complete_ns = max(self.complete_ns, t_ns)

    @property
    def edge_ns(self) -> int:
        """Right edge of the oldest open bin."""
        return self.grid_ns + (self.open_bin + 1) * self.bin_ns

    def close(self, out: np.ndarray) -> int:
        """Close the oldest open bin: its counts go to out (U,) uint16; returns its newest stamp."""
        slot = self.open_bin % OPEN_BINS
        out[:] = self.counts[slot]
        newest = int(self.newest[slot])
        self.counts[slot] = 0
        self.newest[slot] = NO_TIME
        self.open_bin += 1
        return newest

    @property
    def late(self) -> int:
        """Spikes that came after their bin was closed."""
        return int(self.tally[LATE])

    @property
    def resent(self) -> int:
        """Spikes that were sent again in a row, and dropped."""
        return int(self.tally[RESENT])

    @property
    def duplicates(self) -> int:
        """Binned spikes with the unit and the stamp of one before."""
        return int(self.tally[DUPLICATES])

    def take_coarse(self) -> bool:
        """Whether stamps were coarse since the last call."""
        coarse, self.coarse = self.coarse, False
        return coarse

    def counters(self) -> dict[str, int]:
        """The terms of the conservation law."""
        return dict(zip(COUNTERS, self.tally.tolist(), strict=False))

    def totals(self) -> dict[str, int]:
        """The terms of the law, and the duplicates among the binned."""
        return self.counters() | {"duplicates": self.duplicates}
