"""Spikes to tokens of one bin on the LSL clock: integers only, every spike accounted for."""

from __future__ import annotations

import numpy as np

from kernels.cpu.jit import jit
from runtime.core.values import NO_TIME, SENT_AGAIN, SPIKES

OPEN_BINS = 128  # bins that can be open at once: catching up after a stall, lateness, and stamps of the near future
COUNTERS = ("received", "binned", "late", "out_of_range", "quarantined", "dropped_backlog", "resent")
RECEIVED, BINNED, LATE, OUT_OF_RANGE, QUARANTINED, DROPPED_BACKLOG, RESENT = range(len(COUNTERS))
# Of those above: units below 0; and what a stalled stream sent afterwards, late or by then too old.
ASIDE = ("negative", "late_of_stall", "quarantined_of_stall")
NEGATIVE, LATE_OF_STALL, QUARANTINED_OF_STALL = range(len(COUNTERS), len(COUNTERS) + len(ASIDE))
MOST = 65_535  # spikes of one unit in one bin that uint16 holds; more are a fault of the sender
# What a stream sends late of a stall is no habit where spikes came in time for so long before, and the last gap was so
# long ago; in time: at most this share of them late, bin by bin.
SOUND_NS, RARE_NS, IN_TIME = 1_000_000_000, 60_000_000_000, 0.05
COARSE_SHARE = 0.5  # more repeated stamps than this in a chunk of 16 or more: stamps are coarse

# Places in the array that says where spikes may go: the grid, the oldest open bin, the stamps that are believed, the
# bins that were closed unseen, and the newest stall. One array, because each argument of compiled code costs time in
# every call.
GRID_NS, BIN_NS, OPEN_BIN, LOW_NS, HIGH_NS, SKIPPED_FROM, SKIPPED_TO, STALL_FROM_NS, STALL_TO_NS = range(9)


@jit
def _scatter(
    spikes: np.ndarray, counts: np.ndarray, newest: np.ndarray, tally: np.ndarray, frame: np.ndarray
) -> tuple[int, int]:  # fmt: skip
    """Add spikes (n,) `SPIKES` to open bins. Returns (newest accepted stamp, repeated stamps).

    Takes them whole: a field by itself is of one type in chunks of one spike and of another in longer ones, and each
    would be compiled when it first comes.
    """
    t_ns, unit = spikes["t_ns"], spikes["unit"]
    low_ns, high_ns, open_bin = frame[LOW_NS], frame[HIGH_NS], frame[OPEN_BIN]
    n_open, n_units = counts.shape
    top = NO_TIME
    repeated = 0
    for i in range(len(t_ns)):
        t = t_ns[i]
        if unit[i] == SENT_AGAIN:
            tally[RESENT] += 1
            continue
        if t < low_ns or t > high_ns:
            tally[QUARANTINED] += 1
            tally[QUARANTINED_OF_STALL] += frame[STALL_FROM_NS] <= t < frame[STALL_TO_NS]
            continue
        if t > top:
            top = t
        repeated += i > 0 and t == t_ns[i - 1]
        index = (t - frame[GRID_NS]) // frame[BIN_NS]
        if unit[i] < 0 or unit[i] >= n_units:
            tally[OUT_OF_RANGE] += 1
            tally[NEGATIVE] += unit[i] < 0
        elif index >= open_bin + n_open or frame[SKIPPED_FROM] <= index < frame[SKIPPED_TO]:
            tally[DROPPED_BACKLOG] += 1
        elif index < open_bin:
            tally[LATE] += 1
            tally[LATE_OF_STALL] += frame[STALL_FROM_NS] <= t < frame[STALL_TO_NS]
        elif counts[index % n_open, unit[i]] == MOST:  # it would start again from 0
            tally[QUARANTINED] += 1
        else:
            counts[index % n_open, unit[i]] += 1
            newest[index % n_open] = max(newest[index % n_open], t)
            tally[BINNED] += 1
    tally[RECEIVED] += len(t_ns)
    return top, repeated


class Binner:
    """Open bins as a ring. Bin k covers [grid + k * bin, grid + (k + 1) * bin), no epsilon.

    Conservation, always: received = binned + late + out_of_range + quarantined + dropped_backlog + resent.
    resent: those of unit `SENT_AGAIN`, which `runtime.core.again` has found.
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
        self.tally = np.zeros(len(COUNTERS) + len(ASIDE), np.int64)
        self._frame = np.zeros(STALL_TO_NS + 1, np.int64)
        self.grid_ns = 0
        self.open_bin = 0
        self.skipped: tuple[int, int] = (0, 0)  # bins [from, to) closed unseen after a stall; their spikes are backlog
        self.stall_ns: tuple[int, int] = (-1, -1)  # [from, to): the newest rare stall; no bin of it had a value
        self._sound_ns, self._gap_ns = 0, NO_TIME  # spikes have come in time for so long; end of the newest gap
        self._seen = (0, 0)  # late, received
        self.ordered = ordered
        self.watermark_ns: int = NO_TIME  # newest stamp: the stream is alive
        self.complete_ns: int = NO_TIME  # everything stamped before this has been delivered
        self.coarse = False
        self.kept: list[np.ndarray] | None = None  # copies of the spikes that were binned, as they came; None = no
        none = np.zeros(0, SPIKES)  # compiles, before the loop
        _scatter(none, self.counts, self.newest, self.tally, self._frame)

    def start(self, now_ns: int) -> None:
        """Fix the run's first edge: the multiple of bin_ns at or before now."""
        self.grid_ns = now_ns // self.bin_ns * self.bin_ns
        self.open_bin = 0

    def feed(self, spikes: np.ndarray, now_ns: int) -> None:
        """Bin spikes (n,) `SPIKES` that arrived at now_ns."""
        if len(spikes) == 0:
            return
        self._frame[:] = (
            self.grid_ns, self.bin_ns, self.open_bin, now_ns - self.max_age_ns, now_ns + self.future_ns,
            *self.skipped, *self.stall_ns,
        )  # fmt: skip
        if self.kept is not None:
            self.kept.append(spikes[self._goes_in(spikes)])
        top, repeated = _scatter(spikes, self.counts, self.newest, self.tally, self._frame)
        self.watermark_ns = max(self.watermark_ns, top)
        if self.ordered:
            self.complete_ns = max(self.complete_ns, top)
        if len(spikes) >= 16 and repeated > COARSE_SHARE * len(spikes):
            self.coarse = True

    def _goes_in(self, spikes: np.ndarray) -> np.ndarray:
        """(n,) bool: which of spikes (n,) `SPIKES` `_scatter` will bin. A bin with `MOST` spikes of a unit aside."""
        t_ns, unit, frame = spikes["t_ns"], spikes["unit"], self._frame
        index = (t_ns - self.grid_ns) // self.bin_ns
        found = (t_ns >= frame[LOW_NS]) & (t_ns <= frame[HIGH_NS]) & (unit >= 0) & (unit < self.n_units)
        found &= (index >= self.open_bin) & (index < self.open_bin + OPEN_BINS)
        return found & ~((index >= self.skipped[0]) & (index < self.skipped[1]))

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

    def told(self, live: bool) -> None:
        """Whether the stream had told anything of the bin closed last. Keeps a sound stream's newest rare stall."""
        end_ns = self.edge_ns - self.bin_ns
        begin_ns, seen = end_ns - self.bin_ns, self._seen
        late, received = int(self.tally[LATE] - self.tally[LATE_OF_STALL]), int(self.tally[RECEIVED])
        self._seen = late, received
        if live:
            in_time = late - seen[0] <= IN_TIME * (received - seen[1])
            self._sound_ns = self._sound_ns + self.bin_ns if in_time else 0
        elif self.watermark_ns != NO_TIME:
            if self.stall_ns[1] == begin_ns:
                self.stall_ns = (self.stall_ns[0], end_ns)
            elif self._sound_ns >= SOUND_NS and begin_ns - self._gap_ns >= RARE_NS:
                self.stall_ns = (begin_ns, end_ns)
            self._sound_ns, self._gap_ns = 0, end_ns

    @property
    def late(self) -> int:
        """Spikes that came after their bin was closed."""
        return int(self.tally[LATE])

    @property
    def resent(self) -> int:
        """Spikes that were sent again, and dropped."""
        return int(self.tally[RESENT])

    def take_coarse(self) -> bool:
        """Whether stamps were coarse since the last call."""
        coarse, self.coarse = self.coarse, False
        return coarse

    def counters(self) -> dict[str, int]:
        """The terms of the conservation law."""
        return dict(zip(COUNTERS, self.tally.tolist(), strict=False))

    def totals(self) -> dict[str, int]:
        """The terms of the law, and `ASIDE`: what some of them are made of."""
        return dict(zip(COUNTERS + ASIDE, self.tally.tolist(), strict=True))
