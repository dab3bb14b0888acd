"""What the pipeline needs of a decoder: one contract, `step(token) -> values (V,)`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from runtime.core.values import Layout, Token

DECODERS = ("neds", "ridge", "blend")  # "ridge" is the linear decoder: ridge for traces, logistic for classes
RECOMMENDED = "recommended"  # each output by the one of these that its checkpoint recommends
NAMES = (*DECODERS, RECOMMENDED)
BROUGHT = "brought"  # of a checkpoint that holds a decoder which was not trained here, and no other


class Engine(Protocol):
    """What the pipeline needs of a decoder."""

    name: str
    layout: Layout
    values: np.ndarray  # (V,) float32 of the last step
    window_bins: int  # it decodes so many bins from a cold start, and knows each by its place there; 0 = no end

    def reset(self, position: int = 0) -> None:
        """Start cold at a position."""
        ...

    def step(self, token: Token) -> np.ndarray:
        """Take in one bin; returns values (V,) float32, reused by the next step."""
        ...

    def skip(self, n_bins: int) -> None:
        """Bins that were never seen: the position advances, nothing is remembered of them."""
        ...

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """The same values (T, V) computed at once from a log of what was stepped."""
        ...


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the values may be from what is measured (V,) float32, NaN = not known: sd^2 = floor^2 + (slope s)^2.

    floor_2, slope_2: their squares, in the outputs' units. variance: s^2 between the networks of an ensemble at the
    engine's last step, its own buffer; zeros where there is one network.
    """

    floor_2: np.ndarray
    slope_2: np.ndarray
    variance: np.ndarray

    def sd(self, variance: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """sd of variances (..., V), into `out` where it is given."""
        out = np.multiply(self.slope_2, variance, out=out)
        return np.sqrt(np.add(self.floor_2, out, out=out), out=out)


@dataclass(frozen=True, slots=True)
class Decoder:
    """What decodes: an engine, and where its numbers come from. The loop holds one, and may exchange it for another.

    name: one of `NAMES`, `RECOMMENDED` only where outputs differ in theirs, or `BROUGHT`. model, model_sha,
    model_created: of the checkpoint. unit_map_sha: of the units that it was trained on, n_units of them, with `bin_ns`
    a bin. profile (U,): mean of sqrt(counts) in training; used (U,) bool: units that the decoder uses; silence_ns: for
    how long none of them was silent in training, 0 = not known. spread: None = not known of any output. gated: a gate
    judged it on a session of these units, offers of every output what is published here, and was not overruled.
    forgets_bins: after so many bins with live data a decoder with a state has forgotten its start, 0 = it has none.
    """

    engine: Engine
    name: str
    model: str
    model_sha: str
    model_created: str
    unit_map_sha: str
    n_units: int
    bin_ns: int
    profile: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    silence_ns: int = 0
    spread: Spread | None = None
    gated: bool = False
    forgets_bins: int = 0
