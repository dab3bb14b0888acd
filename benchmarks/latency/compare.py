"""`neds-rt bench compare A.json B.json`: what changed between two measurements beyond their noise.

Both are cut into blocks of a second, and paired by their place: the same load was under way. A statistic is the mean
over the blocks of what each says (its median, its maximum, its missed deadlines); its interval comes from resampled
pairs (Efron & Tibshirani 1993, ch. 13). Neighbouring seconds share what else the machine did, so pairs are drawn in
runs of `RUN` (Kuensch 1989). What differs from one minute to the next on a shared machine is in no interval: the work
of the sender, which the code under test does not touch, tells by how much the machine itself was slower or faster, and
a change has to go beyond that as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks.report import Report
from neds_core.errors import DataError
from neds_core.scores.bootstrap import RULES, percentiles, times_drawn

RUN = 2  # blocks that are drawn together
LEAST = 8  # runs without which nothing can be said
LEVEL = 99.0  # %, of each interval: many statistics are looked at
LEAST_SHARE, LEAST_MS = 0.10, 0.05  # a change below either of them is none
LEAST_MISSES = 1e-3  # as a share of the tokens
STUDENT_99 = {  # degrees of freedom -> quantile of Student's t for a 99 % interval
    2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250, 10: 3.169, 12: 3.055, 15: 2.947,
}  # fmt: skip
STATISTICS = ("p50", "max")
REFERENCE = "push_ms"  # what only the machine and the load decide
# What has to be the same; the code, its versions and the command may differ: that is what is compared.
LIKE = {
    "kind": "kind of measurement", "mode": "pace", "bin_ms": "bin width", "budget_ms": "budget", "units": "units",
    "load": "load", "decoder": "decoder", "checkpoint_sha256": "checkpoint", "config_sha256": "configuration",
    "scheduling": "scheduling granted", "hogs": "hogs beside it", "network": "network",
    "warm_up_s": "warm-up", "seconds": "seconds",
}  # fmt: skip
LIKE_MACHINE = {"cpu": "processor", "cores": "cores", "system": "system", "governor": "governor", "limits": "limits"}


class Change(Struct, frozen=True):
    """One statistic in both, its change and the interval of that. word: worse, better, or '' = within the noise."""

    name: str
    a: float
    b: float
    low: float
    high: float
    word: str

    @property
    def change(self) -> float:
        """B minus A."""
        return self.b - self.a


def unlike(a: Report, b: Report) -> list[str]:
    """What differs that should not, in words."""
    pairs = [(words, a.get(key), b.get(key)) for key, words in LIKE.items()]
    pairs.append(("launches", len(a.get("launches", [])), len(b.get("launches", []))))
    pairs += [(words, a["machine"].get(key), b["machine"].get(key)) for key, words in LIKE_MACHINE.items()]
    return [f"{words} ({_short(x)}, {_short(y)})" for words, x, y in pairs if x != y]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def compare(a: Report, b: Report, force: bool = False) -> list[Change]:
    """Every statistic that both have. Raises `DataError` for runs that are unlike (unless force) or too short."""
    for one in (a, b):
        if "blocks" not in one:
            raise DataError(f"a report of {one['kind']} has no seconds to compare; give two of neds-rt bench latency")
    if (different := unlike(a, b)) and not force:
        raise DataError(f"the two are unlike: {'; '.join(different)}; measure again alike, or add --force")
    x, y = a["blocks"], b["blocks"]
    launched = x.get("launch", []), y.get("launch", [])
    n = min(len(x["n"]), len(y["n"]))
    if n < RUN * LEAST:
        raise DataError(f"the shorter one has {n} blocks, {RUN * LEAST} are needed; measure for longer")
    found, moved = [], drift(a, b)
    for name in x:
        if isinstance(x[name], dict) and name in y and name != REFERENCE:
            for statistic in STATISTICS:
                before, after = (np.array(one[name][statistic][:n], float) for one in (x, y))
                share = LEAST_SHARE + moved[statistic]
                if (change := _change(f"{name} {statistic}", before, after, (LEAST_MS, share), launched)) is not None:
                    found.append(change)
    if "deadline_misses" in x and "deadline_misses" in y:
        before, after = (np.array(one["deadline_misses"][:n]) / np.maximum(1, one["n"][:n]) for one in (x, y))
        if (change := _change("missed deadlines", before, after, (LEAST_MISSES, LEAST_SHARE), launched)) is not None:
            found.append(change)
    return found


def drift(a: Report, b: Report) -> dict[str, float]:
    """Statistic -> by what share the machine itself was slower or faster in B; 0 where no sender took part."""
    x, y = a["blocks"].get(REFERENCE), b["blocks"].get(REFERENCE)
    if x is None or y is None:
        return dict.fromkeys(STATISTICS, 0.0)
    mean = {s: [float(np.nanmean(np.array(one[s], float))) for one in (x, y)] for s in STATISTICS}
    share = {s: abs(after / before - 1.0) if before > 0.0 else 0.0 for s, (before, after) in mean.items()}
    return {s: max(share[s], share["p50"]) for s in STATISTICS}


def _change(
    name: str, a: np.ndarray, b: np.ndarray, least: tuple[float, float], launch: tuple[list[int], list[int]]
) -> Change | None:
    """The change of a statistic over paired blocks (n,), NaN = none; None where too few have one.

    least: it counts above both, the second as a share of A. launch: of each block of A and of B.
    """
    both = np.isfinite(a) & np.isfinite(b)
    wide = _between_launches(a, b, launch)
    a, b = a[both], b[both]
    n = len(a) // RUN
    if n < LEAST:
        return None
    runs = (b - a)[: n * RUN].reshape(n, RUN).mean(1)
    times = times_drawn(np.random.default_rng(0), n, RULES.times)
    found = percentiles(float(runs.mean()), times @ runs / n, LEVEL)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    low, high = min(found.low, mean_b - mean_a - wide), max(found.high, mean_b - mean_a + wide)
    beyond = abs(mean_b - mean_a) > max(least[0], least[1] * abs(mean_a))
    word = "worse" if beyond and low > 0 else "better" if beyond and high < 0 else ""
    return Change(name, round(mean_a, 6), round(mean_b, 6), round(low, 6), round(high, 6), word)


def _between_launches(a: np.ndarray, b: np.ndarray, launch: tuple[list[int], list[int]]) -> float:
    """Half the interval of B minus A by how much launches of one code differ (Welch 1947).

    a, b (n,): of each block; launch: of each block of A and of B. 0 where there is one each.
    """
    means = [
        np.array([np.nanmean(one[place == k]) for k in np.unique(place) if np.isfinite(one[place == k]).any()])
        for one, place in ((a, np.array(launch[0][: len(a)])), (b, np.array(launch[1][: len(b)])))
    ]
    freedom = sum(len(each) - 1 for each in means)
    if min(len(each) for each in means) < 2:
        return 0.0
    return STUDENT_99[max(k for k in STUDENT_99 if k <= freedom)] * float(
        np.sqrt(sum(each.var(ddof=1) / len(each) for each in means))
    )


def worse(changes: list[Change]) -> list[Change]:
    """Those by which B is worse beyond the noise."""
    return [change for change in changes if change.word == "worse"]


def lines(a: Report, b: Report, changes: list[Change]) -> Iterator[str]:
    """The table: means over the seconds, with the change and its interval."""
    yield f"{'mean over the seconds':26} {'A':>10} {'B':>10} {'change':>10}   {LEVEL:g} % interval"
    for c in changes:
        yield f"{c.name:26} {c.a:10.4f} {c.b:10.4f} {c.change:+10.4f}   [{c.low:+.4f}, {c.high:+.4f}] {c.word}".rstrip()
    for name, one in (("A", a), ("B", b)):
        m, floor = one["machine"], one.get("floor_ms")
        sum_ms = f", floor p50 {floor['p50']:.3f} p99 {floor['p99']:.3f} ms" if floor else ""
        changed = " with changed files" if m["git"]["changed"] else ""
        yield f"{name}: {one['created']}, code {m['git']['commit'][:12]}{changed}{sum_ms}"
    moved = ", ".join(f"{name} {share:.0%}" for name, share in drift(a, b).items())
    yield f"the machine itself changed by: {moved} (work of the sender); {LEAST_SHARE:.0%} more is a change"
    for each in unlike(a, b):
        yield f"unlike: {each}"
    if min(len(one.get("launches", [])) for one in (a, b)) < 2:
        yield "one launch: what differs between two launches of one code is in no interval; measure with --launches 3"
    found = [f"{c.name} {c.change:+.3f}" for c in worse(changes)]
    yield f"B is worse: {', '.join(found)}" if found else "B is not worse beyond the noise"
