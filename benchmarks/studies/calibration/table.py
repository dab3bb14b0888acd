"""The table of an arm from whatever cells are there: scores, paired differences, goals, and what is missing.

Of one session, rows of all test parts are pooled, each part's trace about its own mean, and trials (blocks of 10 s) and
seeds are resampled. Of many sessions the score is the mean of theirs over seeds, and mice, sessions and trials are
resampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.studies.calibration.arms import ALL, CONTROLS, ROWS_KEPT, Arm, Mode, minutes
from benchmarks.studies.calibration.cells import RIDGE, SEEDS, Cell, Row, queue
from neds_core.scores import bootstrap, r2 as scores
from neds_core.scores.bootstrap import Interval, Statistic

WITHIN, STAGE_S = 0.05, 60.0  # goals: of a score behind the full fit, and of the stage of rows and read-outs
ROWS_AND_READOUTS = "rows and read-outs"
DECODERS = (("NEDS", "calibrated", "neds"), ("offered", "calibrated", "offered"), (RIDGE, RIDGE, RIDGE))
Found = dict[str, dict[int, np.ndarray]]  # session -> seed -> rows of all its test parts


class Scores:
    """The cells of an arm, by what is asked of them."""

    def __init__(self, arm: Arm, done: dict[Cell, Row]) -> None:
        self.arm, self.done = arm, done
        self.animal = {day.session.name: day.animal for day in arm.days}

    def rows(self, mode: Mode, amount: int, condition: str, output: str, decoder: str) -> Found:
        """Of a decoder of a condition: fits of which each test part is there."""
        each: dict[tuple[str, int], dict[int, list[Any]]] = {}
        for cell, row in self.done.items():
            if (cell.mode, cell.amount, cell.condition) == (mode, amount, condition) and row["tests"]:
                tests = [one[output][decoder] for one in row["tests"]]
                each.setdefault((cell.session, cell.seed), {})[cell.origin] = tests
        found: Found = {}
        origins = {day.session.name: 1 if mode == "first" else len(day.tests) for day in self.arm.days}
        for (session, seed), by_origin in each.items():
            if len(by_origin) == origins[session]:
                tests = [np.array(one) for origin in sorted(by_origin) for one in by_origin[origin]]
                seeds = SEEDS if condition == RIDGE else (seed,)  # one linear fit stands beside every seed
                found.setdefault(session, {}).update(dict.fromkeys(seeds, np.concatenate(tests)))
        return found

    def statistic(self, output: str) -> Statistic:
        """R2, or balanced accuracy."""
        kind = self.arm.days[0].session.spec(output).kind
        return scores.r2_of_sums if kind == "continuous" else scores.balanced_accuracy_of_sums

    def score(self, found: Found, output: str) -> Interval | None:
        """Mean over seeds and sessions; None where there is nothing."""
        if not found:
            return None
        if len(self.arm.days) == 1:
            return bootstrap.pooled(list(next(iter(found.values())).values()), self.statistic(output))
        rows, session, mouse = self._joined(found)
        return bootstrap.hierarchical(rows, session, mouse, self.statistic(output))

    def minus(self, first: Found, second: Found, output: str) -> Interval | None:
        """The paired difference, over the sessions and seeds that both have."""
        pairs: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        for name in first.keys() & second.keys():
            seeds = sorted(first[name].keys() & second[name].keys())
            if seeds:
                pairs[name] = [first[name][s] for s in seeds], [second[name][s] for s in seeds]
        if not pairs:
            return None
        if len(self.arm.days) == 1:
            return bootstrap.paired(*next(iter(pairs.values())), self.statistic(output))
        a, session, mouse = self._joined({k: dict(enumerate(v[0])) for k, v in pairs.items()})
        b, _, _ = self._joined({k: dict(enumerate(v[1])) for k, v in pairs.items()})
        return bootstrap.hierarchical_paired(a, b, session, mouse, self.statistic(output))

    def _joined(self, found: Found) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of all sessions, meaned over seeds (both scores are linear in what seeds change), session and animal."""
        each = {name: np.mean(list(seeds.values()), axis=0) for name, seeds in sorted(found.items())}
        session = np.concatenate([np.full(len(rows), name) for name, rows in each.items()])
        mouse = np.array([self.animal[name] for name in session])
        return np.concatenate(list(each.values())), session, mouse


def result(arm: Arm, done: dict[Cell, Row]) -> dict[str, Any]:
    """Everything that the tables say, for JSON."""
    told = Scores(arm, done)
    rows = [
        _row(told, mode, amount, output)
        for mode, amounts in arm.asked
        for amount in sorted(amounts, key=lambda n: n or np.inf)
        for output in arm.outputs
    ]
    return {
        "arm": arm.number, "title": arm.title, "outputs": arm.outputs, "sessions": [d.session.name for d in arm.days],
        "rows": rows, "full_minus_near": _against_full(told),
        "recent_minus_first": list(_compared(told, ("recent", arm.near), ("first", arm.near))),
        "stage_s": _stage_seconds(done), "offered": _offered(arm, done), "refused": _refused(done),
        "missing": _missing(arm, done),
        "cpu_s": sum(row["cpu_s"] for row in done.values()),
    }  # fmt: skip


def _row(told: Scores, mode: Mode, amount: int, output: str) -> dict[str, Any]:
    arm = told.arm
    ridge = told.rows(mode, amount, RIDGE, output, RIDGE)
    calibrated = told.rows(mode, amount, "calibrated", output, "neds")
    offered = told.rows(mode, amount, "calibrated", output, "offered")
    each = {RIDGE: ridge, "calibrated": calibrated, "offered": offered}
    each |= {name: told.rows(mode, amount, name, output, "neds") for name in (*CONTROLS, ROWS_KEPT)}
    if calibrated:  # all columns of the same sessions: those that are not refused
        each = {name: {s: seeds for s, seeds in found.items() if s in calibrated} for name, found in each.items()}
        ridge = each[RIDGE]
    places = [row["places"] for cell, row in told.done.items() if (cell.mode, cell.amount) == (mode, amount)]
    pairs = {f"calibrated minus {name}": (calibrated, each[name]) for name in (*CONTROLS, ROWS_KEPT, RIDGE)}
    pairs["offered minus ridge"] = offered, ridge
    n = round(float(np.mean(places))) if places else 0
    return {
        "mode": mode, "amount": amount, "n": n, "minutes": minutes(arm, n), "output": output,
        "sessions": len(calibrated or ridge),
        "fits": {name: sum(len(seeds) for seeds in found.values()) for name, found in each.items()},
        "scores": {name: told.score(found, output) for name, found in each.items()},
        "differences": {name: told.minus(*pair, output) for name, pair in pairs.items()},
    }  # fmt: skip


def _against_full(told: Scores) -> list[dict[str, Any]]:
    """The full fit minus that of the near amount, for the ridge too: what more trials would bring."""
    near, found = told.arm.near, []
    for mode in ("first", "recent"):
        for row in _compared(told, (mode, ALL), (mode, near)):
            found.append({"mode": mode, "near": near, **row, "within": row["difference"].high <= WITHIN})
    return found


def _compared(told: Scores, one: tuple[Mode, int], other: tuple[Mode, int]) -> Iterator[dict[str, Any]]:
    """A decoder that was fitted on one amount minus the same on another, on the same test parts."""
    for output in told.arm.outputs:
        for name, condition, decoder in DECODERS:
            first, second = (told.rows(*which, condition, output, decoder) for which in (one, other))
            if (gain := told.minus(first, second, output)) is not None:
                yield {"output": output, "decoder": name, "difference": gain}


def _stage_seconds(done: dict[Cell, Row]) -> dict[str, float]:
    """Wall seconds of the stage of rows and read-outs in calibrated fits."""
    each = [
        seconds
        for cell, row in done.items()
        if cell.condition == "calibrated"
        for name, seconds, _ in row["stages"]
        if name == ROWS_AND_READOUTS
    ]
    return {"median": float(np.median(each)), "most": max(each), "fits": len(each)} if each else {}


def _offered(arm: Arm, done: dict[Cell, Row]) -> dict[str, dict[str, int]]:
    """Output -> how often each decoder was offered by calibrated fits."""
    rows = [row for cell, row in done.items() if cell.condition == "calibrated" and row["offered"]]
    return {output: dict(Counter(row["offered"][output] for row in rows)) for output in arm.outputs}


def _refused(done: dict[Cell, Row]) -> list[dict[str, Any]]:
    """Calibrated fits of seed 0 that the product refuses, and why."""
    return [
        {"session": c.session, "mode": c.mode, "amount": c.amount, "origin": c.origin, "reason": row["refused"]}
        for c, row in done.items()
        if row["refused"] and c.condition == "calibrated" and c.seed == 0
    ]


def _missing(arm: Arm, done: dict[Cell, Row]) -> list[dict[str, Any]]:
    """How many cells of each kind are not there."""
    asked, there = Counter(), Counter()
    for _, cell in queue(arm):
        key = (cell.mode, cell.amount, cell.condition)
        asked[key] += 1
        there[key] += cell in done
    return [
        {"mode": mode, "amount": amount, "condition": condition, "missing": n - there[mode, amount, condition], "of": n}
        for (mode, amount, condition), n in asked.items()
        if there[mode, amount, condition] < n
    ]


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The tables in Markdown."""
    kept = any(row["fits"][ROWS_KEPT] for row in found["rows"])
    names = ("offered", "calibrated", *CONTROLS, *([ROWS_KEPT] if kept else []), RIDGE)
    pairs = ("calibrated minus scratch", "calibrated minus shuffled trunk", "offered minus ridge")
    head = ["n", "rig min", "output", *(name.replace("calibrated", "NEDS") for name in (*names, *pairs))]
    for mode in ("first", "recent"):
        rows = [row for row in found["rows"] if row["mode"] == mode and row["fits"]["calibrated"] + row["fits"][RIDGE]]
        if not rows:
            continue
        yield f"Arm {found['arm']}, {found['title']}, the {'first' if mode == 'first' else 'most recent'} n:"
        yield ""
        yield f"| {' | '.join(head)} |"
        yield f"| {' | '.join(['---'] * len(head))} |"
        for row in rows:
            each = [_value(row["scores"][name]) for name in names] + [_gain(row["differences"][name]) for name in pairs]
            whole = row["minutes"] if "-" not in row["minutes"] else row["n"]
            amount = f"{row['amount']}" if row["amount"] else f"all ({whole})"
            yield f"| {amount} | {row['minutes']} | {row['output']} | {' | '.join(each)} |"
        yield ""
    yield from _goals(found)


def _goals(found: dict[str, Any]) -> Iterator[str]:
    for row in found["full_minus_near"]:
        said = f"{row['mode']} n, {row['output']}, {row['decoder']}: all minus {row['near']}"
        yield f"- {said} {_gain(row['difference'])}: {'within' if row['within'] else 'not within'} {WITHIN}"
    for row in found["recent_minus_first"]:
        yield f"- most recent minus first, {row['output']}, {row['decoder']}: {_gain(row['difference'])}"
    gains = [(row, row["differences"]["offered minus ridge"]) for row in found["rows"]]
    below = [f"{row['mode']} {row['amount']} {row['output']}" for row, gain in gains if gain and gain[2] < 0]
    yield f"- offered below the ridge by more than the interval: {', '.join(below) or 'never'}"
    if found["stage_s"]:
        yield f"- rows and read-outs: {found['stage_s']['median']:.0f} s, at most {found['stage_s']['most']:.0f} s"
    yield f"- offered: {found['offered']}"
    yield f"- refused: {len(found['refused'])} of the fits of a seed"
    lacking = [
        f"{row['mode']} {row['amount'] or 'all'}, {row['condition']}: {row['missing']} of {row['of']}"
        for row in found["missing"]
    ]
    yield f"- missing: {'; '.join(lacking) or 'nothing'}"


def _value(found: Interval | None) -> str:
    return "-" if found is None else f"{found[0]:.3f}"


def _gain(found: Interval | None) -> str:
    return "-" if found is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found)
