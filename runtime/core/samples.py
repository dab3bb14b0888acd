"""Samples of a spike stream as they came: stamps to ns, and spikes apart from what may be keep-alives. Compiled."""

from __future__ import annotations

import numpy as np

from kernels.cpu.jit import jit
from runtime.core.again import AGAIN, NEW
from runtime.core.values import NO_TIME, SENT_AGAIN

SANE_S = 1e9  # no LSL clock has run for 30 years: a stamp beyond is not one


@jit
def stamped(
    stamps: np.ndarray, sent_ns: np.ndarray, here_ns: np.ndarray, at_ns: int, offset_ns: int, slope: float
) -> int:
    """LSL stamps (n,) float64 seconds to sent_ns (n,) int64 of the sender's clock, and here_ns (n,) of ours by the line
    of `ClockMap`; `NO_TIME` for one that no LSL clock gives. Returns the place of the last of those, -1 = none."""
    odd = -1
    for i in range(len(stamps)):
        if not abs(stamps[i]) < SANE_S:  # NaN and infinity too
            sent_ns[i] = here_ns[i] = NO_TIME
            odd = i
            continue
        t = np.int64(np.rint(stamps[i] * 1e9))
        sent_ns[i] = t
        t += offset_ns
        here_ns[i] = t + np.int64(np.rint(slope * (t - at_ns)))
    return odd


@jit
def negative(units: np.ndarray, sent_ns: np.ndarray, found: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Samples that may be keep-alives, units (n,) below 0 with a stamp, into out (n, 3): place, spikes before it, and
    how many of those had unit and stamp of one before (found (n,) is not `NEW`).

    Returns how many there are, and the spikes of the whole chunk that had.
    """
    n = spikes = same = 0
    for i in range(len(units)):
        if units[i] >= 0:
            spikes += 1
            same += found[i] != NEW
        elif sent_ns[i] != NO_TIME:
            out[n, 0], out[n, 1], out[n, 2] = i, spikes, same
            n += 1
    return n, same


@jit
def gather(
    units: np.ndarray, here_ns: np.ndarray, found: np.ndarray, keep_alives: bool, arrival_ns: int, spikes: np.ndarray,
    delays_ms: np.ndarray, n_delays: int,
) -> tuple[int, int]:  # fmt: skip
    """Spikes among samples (n,) into spikes `SPIKES`; keep_alives: negative units are none.

    One that came again gets the unit `SENT_AGAIN`. Arrival minus stamp of the others goes into the ring delays_ms from
    place n_delays on. Returns how many spikes there are, and the next place.
    """
    n = 0
    t_ns, unit = spikes["t_ns"], spikes["unit"]
    for i in range(len(units)):
        if keep_alives and units[i] < 0:
            continue
        again = found[i] == AGAIN
        t_ns[n] = here_ns[i]
        unit[n] = SENT_AGAIN if again else max(units[i], SENT_AGAIN + 1)
        n += 1
        if not again and here_ns[i] != NO_TIME:
            delays_ms[n_delays % len(delays_ms)] = (arrival_ns - here_ns[i]) * 1e-6
            n_delays += 1
    return n, n_delays
