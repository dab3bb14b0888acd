"""The tables of `neds-rt bench transfer`: snapshots chosen by the other mice, then one look at the test part."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from benchmarks import machine
from benchmarks.intervals import words
from benchmarks.studies.transfer import ALL, CONDITIONS, CONTROLS, Row, Study
from neds_core.scores import bootstrap
from neds_core.scores.bootstrap import Statistic

HEAD = ("trials", "margin", "of")  # of `gained`, before its counts
MARGIN = 0.05  # of balanced accuracy or R2, that counts as a gain in one session


def chosen_step(rows: list[Row], mouse: str, target: str) -> int:
    """The step with the best mean validation score over the sessions (and seeds) of the mice other than `mouse`."""
    others = [one["snapshots"] for one in rows if one["mouse"] != mouse]
    score = np.array([[taken["validation"][target] for taken in snapshots] for snapshots in others], float)
    return others[0][int(np.nanmean(score, axis=0).argmax())]["step"]


def of_seeds(statistic: Statistic, seeds: int) -> Statistic:
    """The mean over seeds, of rows that hold the sums of each seed one after the other."""

    def mean(total: np.ndarray) -> np.ndarray:
        return statistic(total.reshape(*total.shape[:-1], seeds, -1)).mean(-1)

    return mean


class Scored:
    """One condition, number of trials and target: test rows of the chosen snapshots, seeds side by side."""

    def __init__(self, rows: list[Row], target: str, statistic: Statistic) -> None:
        self.steps = {mouse: chosen_step(rows, mouse, target) for mouse in sorted({r["mouse"] for r in rows})}
        self.seeds = len({one["seed"] for one in rows})
        self.statistic = of_seeds(statistic, self.seeds)
        self.sessions = list(dict.fromkeys(one["session"] for one in rows))
        self.mice, blocks = [], []
        for session in self.sessions:
            mine = [one for one in rows if one["session"] == session]
            self.mice.append(mine[0]["mouse"])
            blocks.append(np.concatenate([self._test(one, target) for one in mine], axis=1))
        self.each = np.array([float(self.statistic(block.sum(0))) for block in blocks])
        self.sums = np.concatenate(blocks)
        size = [len(block) for block in blocks]
        self.session = np.repeat(np.arange(len(blocks)), size)
        self.mouse = np.repeat(np.unique(self.mice, return_inverse=True)[1], size)

    def _test(self, one: Row, target: str) -> np.ndarray:
        wanted = self.steps[one["mouse"]]
        return np.array(next(s["test"][target] for s in one["snapshots"] if s["step"] == wanted), float)

    def value(self) -> dict[str, Any]:
        """Mean over sessions with its interval, and the steps chosen for each mouse."""
        found = bootstrap.hierarchical(self.sums, self.session, self.mouse, self.statistic)
        return found._asdict() | {"steps": self.steps, "seeds": self.seeds}

    def minus(self, other: Scored) -> dict[str, Any]:
        """Mean difference on the same trials, with its interval, and in how many sessions it is a gain."""
        theirs = other if other.seeds == self.seeds else other.repeated(self.seeds)
        found = bootstrap.hierarchical_paired(self.sums, theirs.sums, self.session, self.mouse, self.statistic)
        return found._asdict()

    def repeated(self, seeds: int) -> Scored:
        """The same rows for each of many seeds, of what has one seed only."""
        found = object.__new__(Scored)
        found.__dict__ = {**self.__dict__, "sums": np.tile(self.sums, (1, seeds)), "seeds": seeds}
        return found


def table(rows: list[Row], study: Study) -> dict[str, Any]:
    """Everything that is reported, as one JSON object."""
    cells, comparisons, verdicts, sessions = [], [], [], []
    for trials in sorted(study.trials, key=lambda n: (n == ALL, n)):
        for target, statistic in study.asked.statistics.items():
            made = {
                condition: Scored(
                    [r for r in rows if (r["trials"], r["condition"]) == (trials, condition)], target, statistic
                )
                for condition in (*CONDITIONS, *study.references)
            }
            cells += [{"trials": trials, "target": target, "condition": c} | s.value() for c, s in made.items()]
            ours = made["pretrained"]
            against = {control: ours.minus(made[control]) for control in (*CONTROLS, *study.references)}
            comparisons += [{"trials": trials, "target": target, "control": c} | r for c, r in against.items()]
            helps = all(against[control]["low"] > 0 for control in CONTROLS)
            verdicts.append({"trials": trials, "target": target, "pretraining_helps": helps})
            sessions += [
                {"trials": trials, "target": target, "session": session, "mouse": ours.mice[s]}
                | {condition: float(scored.each[s]) for condition, scored in made.items()}
                for s, session in enumerate(ours.sessions)
            ]
    return {
        "scores": cells,
        "pretrained_minus": comparisons,
        "verdicts": verdicts,
        "sessions_gained": gained(sessions, study),
        "sessions": sessions,
        "study": msgspec.to_builtins(study),
        "cpu_minutes": sum(one["cpu_seconds"] + one["cpu_seconds_trunk"] for one in rows) / 60.0,
        "cpu_minutes_of_trunks": sum(one["cpu_seconds_trunk"] for one in rows) / 60.0,
        "trainings": len(rows),
        "machine": machine.describe(),
    }


def gained(sessions: list[dict[str, Any]], study: Study) -> dict[str, Any]:
    """Sessions in which pre-trained beats scratch by `MARGIN` at the headline."""
    targets = (*study.asked.classes, *study.asked.traces)
    gain = {
        target: np.array(
            [
                one["pretrained"] - one["scratch"]
                for one in sessions
                if (one["trials"], one["target"]) == (study.headline, target)
            ]
        )
        for target in targets
    }
    together = f"mean of {'both' if len(targets) == 2 else 'all'}"
    gain[together] = np.mean([gain[target] for target in targets], axis=0)
    counts = {name: int((values >= MARGIN).sum()) for name, values in gain.items()}
    return dict(zip(HEAD, (study.headline, MARGIN, len(gain[together])), strict=True)) | counts


def told(result: dict[str, Any], key: str, of: str = "scores") -> list[str]:
    """Targets, conditions or controls of a table, in its order."""
    return list(dict.fromkeys(row[key] for row in result[of]))


def lines(result: dict[str, Any]) -> list[str]:
    """The tables for a terminal: losing rows like winning ones."""
    out = []
    scores = {(c["trials"], c["target"], c["condition"]): c for c in result["scores"]}
    counts = list(dict.fromkeys(c["trials"] for c in result["scores"]))
    gaps = {(c["trials"], c["target"], c["control"]): c for c in result["pretrained_minus"]}
    conditions, controls = told(result, "condition"), told(result, "control", "pretrained_minus")
    for target in told(result, "target"):
        out += ["", f"{target.replace('_', ' ')} on the last 20 % of each session: mean over sessions [95 %]"]
        out.append(f"{'trials':<8}" + "".join(f"{c:>28}" for c in conditions))
        for trials in counts:
            cells = "".join(f"{words(scores[trials, target, c]):>28}" for c in conditions)
            out.append(f"{trials or 'all':<8}{cells}")
        out.append("pretrained minus")
        for trials in counts:
            cells = "".join(f"{words(gaps[trials, target, c], '+'):>28}" for c in controls)
            out.append(f"{trials or 'all':<8}{'':>28}{cells}")
    out += ["", *_each_session(result)]
    won = [f"{v['target']}, {v['trials'] or 'all'} trials" for v in result["verdicts"] if v["pretraining_helps"]]
    count = result["sessions_gained"]
    out += ["", f"all three controls beaten (intervals above 0): {'; '.join(won) or 'nowhere'}"]
    each = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in count.items() if name not in HEAD)
    out.append(
        f"sessions of {count['of']} where pretrained beats scratch by {count['margin']} at {count['trials']}: {each}"
    )
    minutes = f"{result['cpu_minutes']:.0f} minutes of one core"
    out.append(f"{result['trainings']} rows, {minutes}, of them {result['cpu_minutes_of_trunks']:.0f} for trunks")
    return out


def _each_session(result: dict[str, Any]) -> list[str]:
    """Every session at the headline's number of trials, target by target."""
    trials, names = result["sessions_gained"]["trials"], told(result, "condition")
    out = []
    for target in told(result, "target"):
        mine = [one for one in result["sessions"] if (one["trials"], one["target"]) == (trials, target)]
        out.append(f"{target.replace('_', ' ') + f', {trials} trials':<34}" + "".join(f"{c:>16}" for c in names))
        out += [f"{one['session']:<34}" + "".join(f"{one[c]:>16.3f}" for c in names) for one in mine]
    return out
