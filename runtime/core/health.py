"""Whether the spikes that arrive can be what the decoder was trained on. Fed each closed bin; asks nobody.

A stream can be alive and still carry nothing that may be decoded: stamps in milliseconds, units numbered from one,
a sorter that has stopped. Four signs are looked at, over the last second unless said otherwise:

| sign | DEGRADED | FAULT |
| --- | --- | --- |
| share of received spikes: quarantined, late, outside the map | above its limit | above ten times |
| rank correlation of the units' counts, over `profile_ns`, with their mean counts in training | | below `profile_min` |
| no unit that the decoder uses has fired, inside a segment | | for longer than `silence_ns` |
| values of the engine that are not finite | | `BAD_VALUES` in a row |

What a sound stream sends after a rare stall (`Binner.told`), of bins that had no values, is left out once it is live
again: it says nothing of the spikes that come now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from kernels.cpu.jit import jit
from runtime.core.state import State

SHARES = ("quarantined", "late", "out_of_range")
AFTER_STALL = ("late", "quarantined")
FAULT_TIMES = 10.0  # times its limit, a share makes the stream unusable
LEAST_DEGRADED, LEAST_FAULT = 2, 5  # bad spikes in the window: one or two prove nothing
BAD_VALUES = 5
# So many units are judged over so long: on four recordings and subsets of their units no such time of an intact stream
# had a rank correlation below 0.36, also with a noisy unit; of permuted ones few with less than 50 units reached it.
PROFILE_NS = ((200, 600_000_000), (50, 3_000_000_000), (0, 10_000_000_000))
PROFILE_LOOKS = 6  # in that time
PROFILE_HELD = 3  # a verdict stands for so many of these times in which nothing can be told
# Below so many units, spikes a unit in the window, or variance over mean of the units' counts no profile is judged:
# a population that fires evenly (variance = mean, as chance has it) looks the same in any order.
PROFILE_UNITS, PROFILE_SPIKES, PROFILE_DISPERSION = 20, 1.0, 3.0
REMEDY = {
    "quarantined": "stamps are not of the LSL clock (time of day, milliseconds, samples?); stamp with local_clock()",
    "late": "raise bins.lateness_ms to what `neds-rt check` recommends, or look at the load of both machines",
    "out_of_range": "unit numbers do not fit the map (numbered from 1?); number them 0 to U-1 in the map's order",
    "negative": "most are below 0: a keep-alive has to be -1 - (spikes sent); leave out what a sorter calls noise",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """See the table above; shares of the spikes received in a second. silence_ns, profile_min: 0 = not judged.

    profile (U,): mean of sqrt(counts) in training. used (U,) bool: units that the decoder uses.
    """

    quarantined: float = 0.05
    late: float = 0.05
    out_of_range: float = 0.001
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
        profile = np.asarray(limits.profile, np.float64)
        self._block = max(1, round(profile_ns(profile, bin_ns) / PROFILE_LOOKS / bin_ns))  # bins
        self._blocks = np.zeros((PROFILE_LOOKS, n_units), np.int64)
        self._sum = np.zeros(n_units, np.int64)
        self._taken = 0  # bins
        self._unsure = 0  # looks in a row that could not tell
        self._silent_ns = self._bad_values = 0
        self._quiet_ns = 0  # as _silent_ns, stalls included
        self._valid = False  # the newest bin had live data
        self._fit: float | None = None
        self._profile = ranks(profile)
        self._used = limits.used if len(limits.used) else np.ones(n_units, bool)
        none = np.zeros(n_units, np.uint16)
        _fired(none, self._used)  # compiles, before the loop
        _add(none, self._blocks[0], self._sum)
        self._judges_profile = (
            len(profile) == n_units >= PROFILE_UNITS and limits.profile_min > 0 and bool((self._profile != 0).any())
        )

    def wakes(self, counts: np.ndarray) -> bool:
        """Whether counts (U,) of a bin not yet taken in end a silence, or a stall, longer than a silence may be."""
        return 0 < self.limits.silence_ns < self._quiet_ns and _fired(counts, self._used)[0]

    def binned(self, counts: np.ndarray, totals: dict[str, int], *, valid: bool, idle: bool) -> None:
        """One closed bin: counts (U,) uint16, and the binner's counters so far. valid: it had live data."""
        self._totals.append(totals)
        fired, some = _fired(counts, self._used)
        if some and (valid or idle):  # without a spike it says nothing of their order
            self._take(counts)
        if valid or idle:  # a stall neither adds to a silence nor ends it
            self._silent_ns = 0 if idle or fired else self._silent_ns + self.bin_ns
        self._quiet_ns = 0 if idle or (valid and fired) else self._quiet_ns + self.bin_ns
        self._valid = valid
        self.state, self.reason = self._judge()

    def decoded(self, finite: bool) -> None:
        """Whether the engine's values of the bin were finite."""
        self._bad_values = 0 if finite else self._bad_values + 1

    def _take(self, counts: np.ndarray) -> None:
        if not self._judges_profile:
            return
        at = self._taken // self._block % PROFILE_LOOKS
        if self._taken % self._block == 0:
            self._sum -= self._blocks[at]
            self._blocks[at] = 0
        _add(counts, self._blocks[at], self._sum)
        self._taken += 1
        if self._taken % self._block == 0:
            fit = self.profile_fit()
            self._unsure = self._unsure + 1 if fit is None else 0
            if fit is not None or self._unsure > PROFILE_HELD * PROFILE_LOOKS:
                self._fit = fit

    def _judge(self) -> tuple[State, str]:
        if self._bad_values >= BAD_VALUES:
            return State.FAULT, f"the engine gave {self._bad_values} values in a row that are not finite; train again"
        degraded, first, last = "", self._totals[0], self._totals[-1]
        if any(last[name] - first[name] >= LEAST_DEGRADED for name in SHARES):  # rare, and what follows takes a while
            state, degraded = self._judge_shares(self._seen(first, last))
            if state is State.FAULT:
                return state, degraded
        if self._valid and 0 < self.limits.silence_ns < self._silent_ns:
            seconds = self._silent_ns * 1e-9
            return State.FAULT, f"no unit has fired for {seconds:.2f} s, longer than in training; look at the sorter"
        unlike = self._fit is not None and self._fit < self.limits.profile_min
        if unlike and self._seen(first, last)["received"] > 0:
            return State.FAULT, (
                f"units fire unlike in training (rank correlation {self._fit:.2f}); number them in the order of the "
                "map, or train again where they are others than then"
            )
        return (State.DEGRADED, degraded) if degraded else (State.RUNNING, "")

    def _seen(self, first: dict[str, int], last: dict[str, int]) -> dict[str, int]:
        """What was counted in the last second; where live data come again, without what a stall left behind."""
        seen = {name: last[name] - first[name] for name in last}
        if self._valid:
            for name in AFTER_STALL:
                seen[name] -= seen[f"{name}_of_stall"]
                seen["received"] -= seen[f"{name}_of_stall"]
        return seen

    def _judge_shares(self, seen: dict[str, int]) -> tuple[State, str]:
        received, degraded = seen["received"], ""
        for name in SHARES:
            bad, limit = seen[name], getattr(self.limits, name)
            if received <= 0 or bad < LEAST_DEGRADED or bad <= limit * received:
                continue
            below = name == "out_of_range" and 2 * seen["negative"] > bad
            remedy = REMEDY["negative" if below else name]
            said = f"{100 * bad / received:.1f} % of the last second's spikes are {name.replace('_', ' ')}: {remedy}"
            if bad >= LEAST_FAULT and bad > FAULT_TIMES * limit * received:
                return State.FAULT, said
            degraded = degraded or said
        return (State.DEGRADED, degraded) if degraded else (State.RUNNING, "")

    def profile_fit(self) -> float | None:
        """Rank correlation of the counts with training, None where they cannot tell."""
        if not self._judges_profile or self._taken < PROFILE_LOOKS * self._block:
            return None
        mean = float(self._sum.mean())
        seen = self._sum - mean
        if mean < PROFILE_SPIKES or float(seen @ seen) < PROFILE_DISPERSION * mean * len(seen):
            return None
        order = ranks(self._sum)
        scale = np.sqrt(float(order @ order) * float(self._profile @ self._profile))
        return float(order @ self._profile) / scale if scale > 0 else None


def profile_ns(profile: np.ndarray, bin_ns: int) -> int:
    """How long counts are gathered, bins without a spike left out, before they are compared with training.

    profile (U,): mean sqrt(counts) a bin. The fewer the units, the longer; and long enough for two spikes of each on
    average, 10 s at most.
    """
    longest = PROFILE_NS[-1][1]
    by_units = next(ns for least, ns in PROFILE_NS if len(profile) >= least)
    a_bin = float(profile.mean()) if len(profile) else 0.0
    by_rate = 2.0 * PROFILE_SPIKES / a_bin * bin_ns if a_bin > 0 else longest
    return int(min(max(by_units, by_rate), longest))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values (n,) about their mean, equal ones alike: what Spearman's correlation is made of."""
    return _ranks(values.astype(np.float64))


@jit
def _ranks(values: np.ndarray) -> np.ndarray:
    n = len(values)
    order, found = np.argsort(values), np.empty(n)
    begin = 0
    for i in range(n):
        if i + 1 == n or values[order[i + 1]] != values[order[i]]:
            for k in range(begin, i + 1):
                found[order[k]] = (begin + i) / 2 - (n - 1) / 2
            begin = i + 1
    return found


@jit
def _fired(counts: np.ndarray, used: np.ndarray) -> tuple[bool, bool]:
    """Whether a unit of used (U,) bool has a spike in counts (U,), and whether any unit has."""
    fired = some = False
    for i in range(len(counts)):
        some |= counts[i] > 0
        fired |= used[i] and counts[i] > 0
    return fired, some


@jit
def _add(counts: np.ndarray, block: np.ndarray, total: np.ndarray) -> None:
    """counts (U,) into both sums (U,)."""
    for i in range(len(counts)):
        block[i] += counts[i]
        total[i] += counts[i]
