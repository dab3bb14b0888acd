"""Which clock, and which unit, the time stamps of a stream are in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from runtime.core.values import FAR_S

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks when a stream was heard, in s: LSL's and time of day."""

    lsl_s: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class Stamps:
    """Arrival minus stamp of a stream's samples in ms; odd_s: the newest stamp that no LSL clock gives, NaN = none."""

    delays_ms: np.ndarray
    odd_s: float = math.nan


def astray(stamps: Stamps, clocks: Clocks) -> str:
    """How far stamps are from the LSL clock, and which clock or unit that looks like."""
    kept = stamps.delays_ms
    typical_s = clocks.lsl_s - float(np.median(kept)) * 1e-3 if len(kept) else stamps.odd_s
    if math.isfinite(stamps.odd_s) and (not len(kept) or abs(typical_s - clocks.lsl_s) < FAR_S):
        typical_s = stamps.odd_s
    if not math.isfinite(typical_s):
        return "they are NaN or infinite"
    off_s = typical_s - clocks.lsl_s
    guess = _guess(typical_s, clocks)
    return f"about {abs(off_s):.3g} s {'ahead' if off_s > 0 else 'behind'}{f' ({guess}?)' if guess else ''}"


def strange(stamps: Stamps) -> bool:
    """Whether markers or behaviour are stamped by another clock than LSL's."""
    if len(stamps.delays_ms) == 0:
        return math.isfinite(stamps.odd_s)
    return abs(float(np.median(stamps.delays_ms))) > FAR_S * 1e3


def _guess(stamp_s: float, clocks: Clocks) -> str:
    """What a stamp may be instead of seconds of the LSL clock."""
    for scale, unit in ((1.0, ""), (1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")):
        if abs(stamp_s / scale - clocks.unix_s) < DAY_S:
            return f"time of day{f' in {unit}' if unit else ''}"
        if unit and abs(stamp_s / scale / clocks.lsl_s - 1.0) < 0.05:
            return unit
    if 10_000.0 <= stamp_s / clocks.lsl_s <= 50_000.0:
        return "sample numbers"
    if 0.0 <= stamp_s < clocks.lsl_s:
        return "time since the recording began"
    return "another machine's clock" if abs(stamp_s) < 1e9 else ""
