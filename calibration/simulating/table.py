"""What a simulation has shown: success, time to target, path efficiency, for each decoder and delay, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from calibration.simulating.study import FIRST, REFIT, SIMULATION, Block
from calibration.simulating.task import EFFECTORS, TIMEOUT_S, Trial
from neds_core.scores.bootstrap import Interval, hierarchical, hierarchical_paired
from runtime.io import system

MEASURES: dict[str, Callable[[Trial], tuple[float, float]]] = {  # a sum and what it is divided by
    "success": lambda t: (float(t.success), 1.0),
    "time_s": lambda t: (t.time_s, 1.0),
    "efficiency": lambda t: (t.efficiency * t.success, float(t.success)),
}
HEADS = {
    "success": "success rate",
    "time_s": f"time to target, s (a lost trial counts {TIMEOUT_S:g} s)",
    "efficiency": "path efficiency of won trials",
}


class Cell(Struct, frozen=True):
    """A measure of one decoder at one delay: value, low, high (95 %); n trials over all seeds."""

    decoder: str
    fitted_to: str
    delay_ms: int
    measure: str
    value: float
    low: float
    high: float
    n: int


class Difference(Struct, frozen=True):
    """A measure of the first minus the second, paired by seed and target."""

    first: str
    second: str
    delay_ms: int
    measure: str
    value: float
    low: float
    high: float


class Result(Struct, frozen=True):
    """All blocks of a simulation in numbers. skill: R2 of each decoder on what its calibration judged it by, by seed.

    sub_ms: bin edge to receipt: the median, p99 and maximum, the worst of all blocks. late_ticks, stale_share: of all
    ticks, those that began over 5 ms late, and those without motion because the value was too old.
    """

    says: str
    effector: str
    matched_to: str
    matched_r2: float
    adapts: bool
    seeds: tuple[int, ...]
    cells: list[Cell]
    differences: list[Difference]
    skill: dict[str, dict[str, list[float]]]
    sub_ms: tuple[float, float, float]
    late_ticks: float
    stale_share: float
    machine: dict[str, str | int | dict[str, str]]  # that made the table


Rows = dict[tuple[str, str], list[Block]]


def build(blocks: Sequence[Block]) -> Result:
    """The table of the blocks of one effector."""
    order = blocks[0].order
    kinds: Rows = {}
    for block in blocks:
        kinds.setdefault((block.order.decoders[0], block.fitted_to), []).append(block)
    cells, differences = [], []
    for delay in order.delays_ms:
        for (decoder, fitted_to), of in kinds.items():
            for measure in MEASURES:
                sums, seed = _sums(of, delay, measure)
                found = hierarchical(sums, seed, seed, _ratio)
                cells.append(Cell(decoder, fitted_to, delay, measure, *_finite(found), n=len(sums)))
        differences += _differences(kinds, delay)
    played = [block.played for block in blocks]
    trials = [trial for each in played for trial in each.trials]
    effector, ticks = EFFECTORS[order.effector], sum(each.ticks for each in played)
    return Result(
        says=SIMULATION, effector=effector.name, matched_to=effector.like, matched_r2=effector.skill,
        adapts=order.adapts, seeds=tuple(sorted({b.order.seeds[0] for b in blocks})), cells=cells,
        differences=differences, skill={f"{d}, {f}": _skill(of) for (d, f), of in kinds.items()},
        sub_ms=(_worst(played, 0), _worst(played, 1), _worst(played, 2)),
        late_ticks=sum(each.late_ticks for each in played) / max(1, ticks),
        stale_share=sum(t.stale_ticks for t in trials) / max(1, ticks), machine=system.facts(system.PACKAGES),
    )  # fmt: skip


def _worst(played: Sequence, place: int) -> float:
    return max(each.sub_ms[place] for each in played)


def _skill(blocks: list[Block]) -> dict[str, list[float]]:
    return {name: [b.skill[name] for b in blocks] for name in blocks[0].skill}


def _sums(blocks: list[Block], delay: int, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) sum and weight of each trial at a delay, in the order of seeds and targets, and its seed (n,)."""
    rows = [
        (block.order.seeds[0], trial.target, *MEASURES[measure](trial))
        for block in blocks for trial in block.played.trials if trial.delay_ms == delay
    ]  # fmt: skip
    found = np.array(sorted(rows, key=lambda row: row[:2]))
    return found[:, 2:], found[:, 0].astype(np.int64)


def _ratio(total: np.ndarray) -> np.ndarray:
    """Sums (..., 2) to what they are of each other, NaN without a weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return total[..., 0] / total[..., 1]


def _finite(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _differences(kinds: Rows, delay: int) -> list[Difference]:
    """NEDS minus ridge, each minus the oracle, and after ReFIT minus before, where there are both."""
    pairs = [
        (("neds", FIRST), ("ridge", FIRST)), (("neds", REFIT), ("ridge", REFIT)),
        (("ridge", REFIT), ("ridge", FIRST)), (("neds", REFIT), ("neds", FIRST)),
        (("ridge", FIRST), ("oracle", FIRST)), (("neds", FIRST), ("oracle", FIRST)),
    ]  # fmt: skip
    found = []
    for one, other in pairs:
        if one not in kinds or other not in kinds:
            continue
        for measure in ("success", "time_s"):
            first, seed = _sums(kinds[one], delay, measure)
            second, theirs = _sums(kinds[other], delay, measure)
            if np.array_equal(seed, theirs):
                gain = hierarchical_paired(first, second, seed, seed, _ratio)
                found.append(Difference(", ".join(one), ", ".join(other), delay, measure, *_finite(gain)))
    return found


def lines(result: Result) -> list[str]:
    """The tables, as text in Markdown."""
    delays = list(dict.fromkeys(cell.delay_ms for cell in result.cells))
    rows = list(dict.fromkeys((cell.decoder, cell.fitted_to) for cell in result.cells))
    known = {(c.decoder, c.fitted_to, c.delay_ms, c.measure): c for c in result.cells}
    found = [f"SIMULATION ({result.effector}), seeds {', '.join(map(str, result.seeds))}; 95 % intervals over both."]
    heads = " | ".join(f"+{delay} ms" for delay in delays)
    for measure, head in HEADS.items():
        found += ["", f"| simulation: {head} | fitted to | {heads} |", "| --- " * (len(delays) + 2) + "|"]
        for decoder, fitted_to in rows:
            each = [_said(known[decoder, fitted_to, delay, measure]) for delay in delays]
            found.append(f"| {decoder} | {'' if decoder == 'oracle' else fitted_to} | {' | '.join(each)} |")
    return [*found, "", *_differences_said(result, delays), "", *_conditions(result)]


def _said(cell: Cell | Difference) -> str:
    sign = "+" if isinstance(cell, Difference) else ""
    return f"{cell.value:{sign}.2f} [{cell.low:{sign}.2f}, {cell.high:{sign}.2f}]"


def _differences_said(result: Result, delays: list[int]) -> list[str]:
    known = {(d.first, d.second, d.measure, d.delay_ms): d for d in result.differences}
    heads = " | ".join(f"+{delay} ms" for delay in delays)
    found = [f"| simulation: difference | of | {heads} |", "| --- " * (len(delays) + 2) + "|"]
    for first, second, measure in dict.fromkeys(key[:3] for key in known):
        each = [_said(known[first, second, measure, delay]) for delay in delays]
        found.append(f"| {first} minus {second} | {HEADS[measure].split(',')[0]} | {' | '.join(each)} |")
    return found


def _conditions(result: Result) -> list[str]:
    skill = [
        f"{kind}: " + ", ".join(f"{name} {' / '.join(f'{v:.2f}' for v in values)}" for name, values in each.items())
        for kind, each in result.skill.items() if each
    ]  # fmt: skip
    return [
        f"Noise matched to a ridge of R2 {result.matched_r2:g}, {result.matched_to}; the animal "
        f"{'learns' if result.adapts else 'does not learn'} to aim.",
        *(f"R2 on the judging part, {line}" for line in skill),
        f"Bin edge to receipt {result.sub_ms[0]:.1f} / {result.sub_ms[1]:.1f} / {result.sub_ms[2]:.1f} ms (p50 / p99 / "
        f"max, worst block); {result.late_ticks:.2%} of ticks began over 5 ms late; {result.stale_share:.2%} were "
        "without motion because the value was old.",
    ]
