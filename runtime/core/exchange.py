"""How another decoder takes over between two bins: what is handed over, and the newest bins that it is primed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from runtime.core.engine import Decoder, Engine
from runtime.core.health import Health
from runtime.core.values import Token

Why = Literal["swap", "rollback", "fallback"]
When = Literal["iti", "now"]
RECENT_S = 60.0  # of bins that are kept to prime a decoder with
MOST_BEHIND = 5  # bins that a primed engine may lack when the loop takes it over; it takes them in before
SPARE = 64  # bins that may close while the newest are copied
ROUNDS = 20  # of priming, each over what closed during the one before


@dataclass(frozen=True, slots=True)
class Successor:
    """A decoder that is to take over: loaded, checked and warmed up elsewhere. Same units, bins and outputs.

    at: where markers rule, "iti" = with the first bin of the next segment, "now" = with the next bin in none. primed:
    the first bin that its engine has taken in from a cold start, `upto` the one behind the last; -1 = none, it starts
    cold. health: judges its input, None = made when it takes over. forced: its gate had not passed. said: in words.
    expect: SHA-256 of the decoder that it may follow, "" = any.
    """

    decoder: Decoder
    why: Why = "swap"
    at: When = "now"
    primed: int = -1
    upto: int = -1
    health: Health | None = None
    path: str = ""
    forced: bool = False
    said: str = ""
    expect: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """A decoder that took over, from the bin `token` on."""

    token: int
    successor: Successor


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins from `first` on: counts (T, U) uint16; valid (T,) bool; cold (T,) bool, decoding started anew before it."""

    first: int
    counts: np.ndarray
    valid: np.ndarray
    cold: np.ndarray


class Recent:
    """The newest bins of a run without segments. The loop writes, without allocation; another thread may copy.

    end: the bin behind the newest.
    """

    def __init__(self, n_units: int, n_bins: int) -> None:
        self.n_bins, self.end = n_bins, 0
        rows = n_bins + SPARE
        self._counts = np.zeros((rows, n_units), np.uint16)
        self._valid, self._cold = np.zeros(rows, bool), np.zeros(rows, bool)

    def take(self, token: Token, *, cold: bool) -> None:
        """One closed bin. cold: decoding starts anew before it, because of its input."""
        row = token.index % len(self._valid)
        self._counts[row] = token.counts
        self._valid[row], self._cold[row] = token.valid, cold
        self.end = token.index + 1  # last: who copies goes by it

    def copy(self, first: int) -> Bins:
        """The bins from `first` on, or from the oldest that is kept."""
        end, rows = self.end, len(self._valid)
        first = max(first, end - self.n_bins, 0)
        at = np.arange(first, end) % rows
        counts, valid, cold = self._counts[at], self._valid[at], self._cold[at]
        over = max(0, self.end + 1 - rows - first)  # written over in the meantime, the one of this moment included
        return Bins(first + over, counts[over:], valid[over:], cold[over:])


def take_in(engine: Engine, bins: Bins) -> int:
    """Step an engine through bins; returns the last of them before which it started cold, -1 = it went on."""
    started = -1
    for k, counts in enumerate(bins.counts):
        if bins.cold[k]:
            engine.reset()
            started = bins.first + k
        engine.step(Token(bins.first + k, 0, counts, valid=bool(bins.valid[k])))
    return started


def prime(engine: Engine, recent: Recent, n_bins: int) -> tuple[int, int]:
    """Have an engine start cold and take in the newest n_bins, and those that close meanwhile.

    Returns the bin that it started with and the one behind the last that it took in.
    """
    engine.reset()
    begun = upto = max(0, recent.end - n_bins)
    for _ in range(ROUNDS):
        bins = recent.copy(upto)
        if bins.first > upto:  # what lay between is gone
            engine.reset()
            begun = bins.first
        started = take_in(engine, bins)
        begun, upto = max(begun, started), bins.first + len(bins.counts)
        if recent.end == upto:
            break
    return begun, upto
