"""Whether behaviour and spikes are on one clock: how well slow counts say the behaviour, moved against them.

A wrong time between two clocks leaves everything in order, and nothing to decode. Of a recording that is right, no
moved behaviour is said better than the one at its place. It is blind below `NEAR_S`, and to probes on different clocks:
all units are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from neds_core.data.checks.session import SAME
from neds_core.data.session import Session, split
from neds_core.errors import DataError

BLOCK_S = 0.2
REACH_S = 60.0  # behaviour is moved by as much, either way
MOST_BLOCKS = 9_000  # 30 minutes, of the training part
MOST_UNITS = 100  # those that vary most
AROUND = (-4, -2, -1, 0, 1, 2, 4)  # blocks of counts about each one
PENALTY = 0.3  # times the blocks; features have variance 1
FOLDS = 4  # contiguous
SLOW_S = 20.0  # what changes more slowly than that, such as a probe that drifts, says nothing of a clock
NEAR_S = 3.0  # a lag within is the animal's own, or a filter's
PEAK_S = 5.0  # a clock that is off has one best lag: no lag further than this from it comes near
SHORTEST_S = 240.0  # of a training part: in shorter ones what is independent is alike at some lag by chance
NONE = f"not compared, as there is no trace, or less than {SHORTEST_S / 60:g} minutes of it to train on"
LEAST, GAIN = 0.3, 0.22  # R2 at the best lag, and more than at its place and at every lag that is not near the best


@dataclass(frozen=True, slots=True)
class Look:
    """R2 of a behaviour near its place, and at the lag in s that says it best: it comes so much too late.

    elsewhere: the largest at all lags more than `PEAK_S` from that one.
    """

    name: str
    here: float
    lag_s: float
    there: float
    elsewhere: float

    @property
    def apart(self) -> bool:
        """Whether the spikes say it much better where it is moved by more than `NEAR_S`."""
        clear = self.there >= max(LEAST, self.here + GAIN, self.elsewhere + GAIN)
        return abs(self.lag_s) > NEAR_S and clear

    @property
    def told(self) -> str:
        """What is wrong with one that is apart, as the begin of a sentence."""
        way = f"{abs(self.lag_s):.1f} s {'earlier' if self.lag_s > 0 else 'later'}"
        return f"spikes say {self.name} best {way} (R2 {self.there:.2f} there, {self.here:.2f} where it is)"


def looks(session: Session) -> Iterator[Look]:
    """At each continuous behaviour; none where the recording is too short to move one."""
    for name, lags_s, r2 in curves(session):
        best = int(np.argmax(r2))
        here = max(0.0, float(r2[np.abs(lags_s) <= NEAR_S].max()))
        elsewhere = float(r2[np.abs(lags_s - lags_s[best]) > PEAK_S].max())
        yield Look(name, here, float(lags_s[best]), float(r2[best]), elsewhere)


def in_place(found: Iterable[Look]) -> Iterator[str]:
    """What is known of those that are not apart, in a sentence each, and what is not."""
    found = [each for each in found if not each.apart]
    said, hardly = ([each for each in found if (each.here >= LEAST) == known] for known in (True, False))
    if said:
        moved = f"{NEAR_S:g} to {REACH_S:g} s away"
        yield f"{_names(said)}: not clearly better said by the spikes {moved}; an error below {NEAR_S:g} s is not seen"
    if hardly:
        yield f"{_names(hardly)}: hardly said by the spikes, so whether its clock is theirs is not known"


def _names(found: list[Look]) -> str:
    return ", ".join(f"{each.name} (R2 {each.here:.2f})" for each in found)


def curves(session: Session) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Of each continuous behaviour its name, lags (L,) in s and R2 (L,) over folds of the training part.

    A ridge on the square roots of the counts of blocks of `BLOCK_S`; the same blocks at every lag.
    """
    size = max(1, round(BLOCK_S * 1e9 / session.bin_ns))
    step_s = size * session.bin_ns * 1e-9
    try:
        n = min(int(split(session).train.segments[-1, 1]) // size, MOST_BLOCKS)
    except DataError:  # too short for a training
        return
    names = [spec.name for spec in session.specs if spec.kind == "continuous"]
    if n * step_s < SHORTEST_S or not names:
        return
    reach = round(REACH_S / step_s)
    margin = reach + max(AROUND)
    rows = np.arange(margin, n - margin)
    x = _features(session.counts, n, size, rows)
    lags = np.arange(-reach, reach + 1)
    for name in names:
        y = _blocks(session.values[name], n, size)
        yield name, np.round(lags * step_s, 6), _r2(x, y[rows[:, None] + lags])


def _features(counts: np.ndarray, n: int, size: int, rows: np.ndarray) -> np.ndarray:
    """(R, F) of variance 1: the blocks about each row, of the units that vary most."""
    root = np.sqrt(counts[: n * size].reshape(n, size, -1).sum(1, dtype=np.uint32), dtype=np.float32)
    shares = (root[:, k : k + MOST_UNITS] for k in range(0, root.shape[1], MOST_UNITS))  # all at once take gigabytes
    spread = np.concatenate([_quick(share.astype(np.float64)).std(0) for share in shares])
    units = np.sort(np.argsort(spread)[::-1][:MOST_UNITS])
    units = units[spread[units] > 0]
    root = _quick(root[:, units].astype(np.float64)) / spread[units]
    return np.concatenate([root[rows + k] for k in AROUND], axis=1)


def _blocks(values: np.ndarray, n: int, size: int) -> np.ndarray:
    """(n,) the last value of each block, without what is slow, NaN where it is not known."""
    return _quick(np.asarray(values[size - 1 : n * size : size], np.float64))


def _quick(values: np.ndarray) -> np.ndarray:
    """Values (n, ...) less their mean over `SLOW_S` around. Two things that drift are alike at some lag by chance."""
    known, half = np.isfinite(values), round(SLOW_S / BLOCK_S) // 2
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))

    def around(each: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((1, *each.shape[1:])), np.cumsum(each, 0)])
        return total[high] - total[low]

    found = values - around(np.where(known, values, 0.0)) / np.maximum(around(known), 1)
    rounding = SAME * np.abs(values[known]).max(initial=0.0)
    return np.where(np.abs(found) < rounding, 0.0, found)


def _r2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(L,) R2 of y (R, L) from x (R, F), each row said by a ridge on the other folds; at most 1, NaN left out."""
    known = np.isfinite(y)
    mean = np.where(known, y, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    centred = np.where(known, y - mean, 0.0)
    said, fold = np.empty_like(centred), np.arange(len(x)) * FOLDS // len(x)
    for k in range(FOLDS):
        rest = fold != k
        gram = x[rest].T @ x[rest] + PENALTY * rest.sum() * np.eye(x.shape[1])
        said[~rest] = x[~rest] @ np.linalg.solve(gram, x[rest].T @ centred[rest])
    total = (centred**2).sum(0)
    wrong = (np.where(known, centred - said, 0.0) ** 2).sum(0)
    return np.where(total > 0, 1.0 - wrong / np.maximum(total, 1e-12), 0.0)
