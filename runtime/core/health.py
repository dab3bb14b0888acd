"""Whether the spikes that arrive can be what the decoder was trained on. Fed each closed bin; asks nobody.

A stream can be alive and still carry nothing that may be decoded: stamps in milliseconds, units numbered from one,
a sorter that has stopped. Four signs are looked at, over the last second unless said otherwise:

| sign | DEGRADED | FAULT |
| --- | --- | --- |
| share of received spikes: quarantined, late, outside the map, duplicates | above its limit | above ten times |
| correlation of the units' counts, over `PROFILE_NS`, with their mean counts in training | | below `profile_min` |
| no unit that the decoder uses has fired, inside a segment | | for longer than `silence_ns` |
| values of the engine that are not finite | | `BAD_VALUES` in a row |
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from runtime.core.state import State

SHARES = ("quarantined", "late", "out_of_range", "duplicates")
FAULT_TIMES = 10.0  # times its limit, a share makes the stream unusable
LEAST_DEGRADED, LEAST_FAULT = 2, 5  # bad spikes in the window: one or two prove nothing
BAD_VALUES = 5
PROFILE_NS = 600_000_000
PROFILE_EVERY = 5  # bins between two looks
# Below so many units, spikes a unit in the window, or variance over mean of the units' counts no profile is judged:
# a population that fires evenly (variance = mean, as chance has it) looks the same in any order.
PROFILE_UNITS, PROFILE_SPIKES, PROFILE_DISPERSION = 20, 1.0, 3.0
REMEDY = {
    "quarantined": "stamps are not of the LSL clock (time of day, milliseconds, samples?); stamp with local_clock()",
    "late": "raise bins.lateness_ms to what `neds-rt check` recommends, or look at the network",
    "out_of_range": "unit numbers do not fit the map (numbered from 1?); number them 0 to U-1 in the map's order",
    "duplicates": "they have the unit and the stamp of one before, and count twice; send each spike once",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """See the table above; shares of the spikes received in a second. silence_ns, profile_min: 0 = not judged.

    profile (U,): mean of sqrt(counts) in training. used (U,) bool: units that the decoder uses.
    """

    quarantined: float = 0.05
    late: float = 0.05
    out_of_range: float = 0.001
    duplicates: float = 0.2
    profile_min: float = 0.3
    silence_ns: int = 0
    profile: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


class Health:
    """State and reason of the input. `state` is RUNNING, DEGRADED or FAULT; `reason` one sentence, '' = healthy."""

    def __init__(self, limits: Limits, n_units: int, bin_ns: int) -> None:
        self.limits, self.bin_ns = limits, bin_ns
        self.state = State.RUNNING
        self.reason = ""
        self._totals: deque[dict[str, int]] = deque(maxlen=max(1, round(1e9 / bin_ns)) + 1)
        self._window = max(1, round(PROFILE_NS / bin_ns))
        self._counts = np.zeros((self._window, n_units), np.uint16)
        self._sum = np.zeros(n_units, np.int64)
        self._at = self._filled = 0
        self._silent_ns = self._bad_values = 0
        self._fit: float | None = None
        profile = np.asarray(limits.profile, np.float64)
        self._profile = profile - profile.mean() if len(profile) else profile
        self._judges_profile = (
            len(profile) == n_units >= PROFILE_UNITS and limits.profile_min > 0 and bool((self._profile != 0).any())
        )

    def binned(self, counts: np.ndarray, totals: dict[str, int], *, valid: bool, idle: bool) -> None:
        """One closed bin: counts (U,) uint16, and the binner's counters so far. valid: it had live data."""
        self._totals.append(totals)
        if valid or idle:
            self._take(counts)
        fired = bool(counts[self.limits.used].any()) if len(self.limits.used) else bool(counts.any())
        self._silent_ns = 0 if idle or fired or not valid else self._silent_ns + self.bin_ns
        self.state, self.reason = self._judge()

    def decoded(self, finite: bool) -> None:
        """Whether the engine's values of the bin were finite."""
        self._bad_values = 0 if finite else self._bad_values + 1

    def _take(self, counts: np.ndarray) -> None:
        if not self._judges_profile:
            return
        row = self._counts[self._at]
        self._sum -= row
        row[:] = counts
        self._sum += row
        self._at = (self._at + 1) % self._window
        self._filled = min(self._filled + 1, self._window)
        if self._at % PROFILE_EVERY == 0:
            fit = self.profile_fit()
            self._fit = self._fit if fit is None else fit  # a moment that cannot tell changes no verdict

    def _judge(self) -> tuple[State, str]:
        if self._bad_values >= BAD_VALUES:
            return State.FAULT, f"the engine gave {self._bad_values} values in a row that are not finite; train again"
        degraded = ""
        first, last = self._totals[0], self._totals[-1]
        received = last["received"] - first["received"]
        for name in SHARES:
            bad, limit = last[name] - first[name], getattr(self.limits, name)
            if received <= 0 or bad < LEAST_DEGRADED or bad <= limit * received:
                continue
            said = (
                f"{100 * bad / received:.1f} % of the last second's spikes are {name.replace('_', ' ')}: {REMEDY[name]}"
            )
            if bad >= LEAST_FAULT and bad > FAULT_TIMES * limit * received:
                return State.FAULT, said
            degraded = degraded or said
        if 0 < self.limits.silence_ns < self._silent_ns:
            seconds = self._silent_ns * 1e-9
            return State.FAULT, f"no unit has fired for {seconds:.2f} s, longer than in training; look at the sorter"
        if received > 0 and self._fit is not None and self._fit < self.limits.profile_min:
            return State.FAULT, (
                f"units fire unlike in training (correlation {self._fit:.2f}); number them in the order of the map"
            )
        return (State.DEGRADED, degraded) if degraded else (State.RUNNING, "")

    def profile_fit(self) -> float | None:
        """Correlation of the counts in the window with training, None where they cannot tell."""
        if not self._judges_profile or self._filled < self._window:
            return None
        mean = float(self._sum.mean())
        seen = self._sum - mean
        if mean < PROFILE_SPIKES or float(seen @ seen) < PROFILE_DISPERSION * mean * len(seen):
            return None
        scale = np.sqrt(float(seen @ seen) * float(self._profile @ self._profile))
        return float(seen @ self._profile) / scale if scale > 0 else None
