"""How soon a trial's class is known: NEDS, the logistic beside it, their blend and LDA against time in the trial.

Every decoder starts cold with the trial and is read at each of its first bins, as many as the shortest trial of the
recording has: at every time, all held-out trials are scored. A clocked decoder knows the time since the trial's start.
What LDA leaves open is chosen inside the first 80 % of the trials; checkpoints come as they were trained there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.accuracy import lda
from benchmarks.accuracy.peers.targets import FEW_BINS, FIVE_BINS, classes_of
from benchmarks.intervals import words
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import CheckpointError, DataError
from neds_core.model.directions import bins_of, spans_of
from neds_core.scores import bootstrap, r2 as scores, tasks
from neds_core.scores.bootstrap import Interval, Statistic

ENOUGH = 0.9  # the share of trials whose class a useful decoder tells
RIVALS = ("logistic", "lda", "lda_clocked", "lda_clocked_5_bins")
Row = dict[str, Any]  # one JSON object


@dataclass(frozen=True, slots=True)
class Trials:
    """The held-out trials: label (S,), and the decoded rows to read (S, K + 1), K first bins and then the last one."""

    label: np.ndarray
    rows: np.ndarray
    n_classes: int

    @property
    def n_bins(self) -> int:
        """K."""
        return self.rows.shape[1] - 1

    def right(self, guess: np.ndarray) -> np.ndarray:
        """Sums for `bootstrap`: (S, K + 2), whether each read was right, and a 1. guess (n,) of every decoded bin."""
        right = guess[self.rows] == self.label[:, None]
        return np.concatenate([right, np.ones((len(right), 1))], axis=1).astype(np.float64)


def trials_of(test: Session, name: str, n_bins: int, n_classes: int) -> Trials:
    """Trials with a label, by the rows that decoders of `test` have."""
    length = np.diff(test.segments)[:, 0]
    first = np.cumsum(length) - length
    rows = np.concatenate([first[:, None] + np.arange(n_bins), (first + length - 1)[:, None]], axis=1)
    label = test.values[name][test.segments[:, 1] - 1]
    if (label < 0).all():
        raise DataError(f"no held-out trial of {test.name!r} has a label of {name}; give a recording with labels")
    return Trials(label[label >= 0], rows[label >= 0], n_classes)


def at(read: int) -> Statistic:
    """Accuracy at one of the K + 1 reads."""
    return lambda sums: sums[..., read] / sums[..., -1]


def over_bins(sums: np.ndarray) -> np.ndarray:
    """Mean accuracy over the K first bins."""
    return sums[..., :-2].mean(-1) / sums[..., -1]


def bins_until_kept(sums: np.ndarray) -> np.ndarray:
    """Bins until accuracy reaches ENOUGH and stays there to the last of the K bins; K + 1 where it never does."""
    enough = sums[..., :-2] >= ENOUGH * sums[..., -1:] - 1e-9
    kept = np.flip(np.logical_and.accumulate(np.flip(enough, -1), axis=-1), -1)
    return np.where(kept.any(-1), kept.argmax(-1) + 1, kept.shape[-1] + 1).astype(np.float64)


def guesses(seeds: list[Checkpoint], spec: BehaviourSpec, test: Session) -> dict[str, list[np.ndarray]]:
    """Class (n,) of every held-out bin by each checkpoint's decoders; the logistic is the same in all of them."""
    said = [classes_of(made, spec, test) for made in seeds]
    return {
        "neds": [one["neds"] for one in said],
        "blend": [one["blend"] for one in said],
        "logistic": [said[0]["logistic"]],
    }


def lda_guesses(
    development: Session, test: Session, name: str, kept: np.ndarray, n_bins: int
) -> tuple[dict[str, list[np.ndarray]], Row]:
    """Class (n,) of every held-out bin by each LDA, and what was chosen for it."""
    label = development.values[name][bins_of(spans_of(development))]
    chosen: Row = {}
    found: dict[str, list[np.ndarray]] = {}
    for key, clocked in (("lda", False), ("lda_clocked", True)):
        setting, skill = lda.choose(development, label, kept, n_bins, clocked=clocked)
        chosen[key] = {"last_bins": setting.last_bins, "root": setting.root, "accuracy_inside_training": skill}
        found[key] = [lda.fit(development, label, kept, setting, n_bins, clocked=clocked).guess(test)]
    five = lda.fit(development, label, kept, FIVE_BINS, n_bins, clocked=True)
    return found | {"lda_clocked_5_bins": [five.guess(test)]}, chosen


def bench(recording: Path, files: list[Path]) -> Row:
    """One JSON object; a row for each decoder, and NEDS minus each rival, paired by trial.

    Raises `DataError` where a checkpoint is of other units or of no single class, `CheckpointError` where it holds no
    logistic.
    """
    began = time.monotonic()
    session = session_file.load(recording)
    parts = sessions.split(session)
    seeds = [checkpoints.load(path) for path in files]
    for made, path in zip(seeds, files, strict=True):
        tasks.refuse_other_units(made, session)
        if not made.linear:
            raise CheckpointError(f"{path} holds no logistic to compare with; train one with neds-rt train")
    spec = _class_of(seeds, files)
    n_bins = int(np.diff(session.segments).min())
    if n_bins < FEW_BINS:
        raise DataError(f"{recording}: a trial has {n_bins} bins, under the {FEW_BINS} that are compared; leave it out")
    trials = trials_of(parts.test, spec.name, n_bins, len(spec.classes))
    rivals, chosen = lda_guesses(parts.development, parts.test, spec.name, seeds[0].scalers.kept, n_bins)
    found = guesses(seeds, spec, parts.test) | rivals
    bin_ms = session.bin_ns * 1e-6
    return {
        "recording": session.name,
        "checkpoints": [path.name for path in files],
        "clocked": seeds[0].header.config.model.clock_bins > 0,
        "output": spec.name,
        "classes": list(spec.classes),
        "trials": len(trials.label),
        "time_ms": [(k + 1) * bin_ms for k in range(n_bins)],
        "enough": ENOUGH,
        "lda_chosen": chosen,
        "decoders": {name: _row(trials, each, bin_ms) for name, each in found.items()},
        "neds_minus": {name: _gains(trials, found["neds"], found[name]) for name in RIVALS},
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine.describe(),
    }


def _class_of(seeds: list[Checkpoint], files: list[Path]) -> BehaviourSpec:
    """The one class output that all checkpoints have."""
    found = [[s for s in made.specs if s.kind == "class" and s.labels == "measured"] for made in seeds]
    if any(len(each) != 1 or each != found[0] for each in found):
        names = ", ".join(str(path) for path in files)
        raise DataError(
            f"{names}: not all of one measured class output; give checkpoints of one training configuration"
        )
    return found[0][0]


def reads(n_bins: int) -> dict[str, Statistic]:
    """What is compared with an interval."""
    return {
        "at_5_bins": at(FEW_BINS - 1),
        "at_last_common_bin": at(n_bins - 1),
        "over_all_bins": over_bins,
        "at_trial_end": at(n_bins),
    }


def _row(trials: Trials, each: list[np.ndarray], bin_ms: float) -> Row:
    """Scores of one decoder, mean over its training seeds; intervals resample trials and seeds."""
    sums = [trials.right(guess) for guess in each]
    curve = [bootstrap.pooled(sums, at(k)) for k in range(trials.n_bins)]
    balanced = [
        bootstrap.pooled(_recalls(trials, each, k), scores.balanced_accuracy_of_sums) for k in range(trials.n_bins + 1)
    ]
    reached = bootstrap.pooled(sums, bins_until_kept)
    return {
        "seeds": len(each),
        "accuracy": _curve(curve),
        "balanced_accuracy": _curve(balanced[:-1]),
        "balanced_accuracy_at_trial_end": balanced[-1]._asdict(),
        "ms_until_90_percent_kept": {
            **{key: _ms(bins, trials, bin_ms) for key, bins in reached._asdict().items()},
            "each_seed": [_ms(float(bins_until_kept(s.sum(0))), trials, bin_ms) for s in sums],
        },
        **{name: bootstrap.pooled(sums, read)._asdict() for name, read in reads(trials.n_bins).items()},
    }


def _recalls(trials: Trials, each: list[np.ndarray], read: int) -> list[np.ndarray]:
    return [scores.recall_sums(trials.label, guess[trials.rows[:, read]], trials.n_classes) for guess in each]


def _curve(found: list[Interval]) -> Row:
    return {key: [getattr(one, key) for one in found] for key in Interval._fields}


def _ms(bins: float, trials: Trials, bin_ms: float) -> float | None:
    """Time of the right edge of that bin; None where it lies past the bins that every trial has."""
    return bins * bin_ms if bins <= trials.n_bins else None


def _gains(trials: Trials, ours: list[np.ndarray], theirs: list[np.ndarray]) -> Row:
    first, second = ([trials.right(guess) for guess in each] for each in (ours, theirs))
    return {name: bootstrap.paired(first, second, read)._asdict() for name, read in reads(trials.n_bins).items()}


def lines(result: Row) -> list[str]:
    """The tables for a terminal."""
    times, decoders = result["time_ms"], result["decoders"]
    n, clock = result["trials"], "clocked" if result["clocked"] else "phase-free"
    text = [
        f"{result['recording']}: {result['output']}, {n} held-out trials, chance {1 / len(result['classes']):.2f}; "
        f"NEDS is {clock}",
        f"{'accuracy, ms from start':24}" + "".join(f"{t:>5.0f}" for t in times),
    ]
    for name, row in decoders.items():
        text.append(f"{name:24}" + "".join(f"{v:>5.2f}" for v in row["accuracy"]["value"]))
    names = list(reads(len(times)))
    text.append(f"{'':24}{'90 % kept from, ms':>19}" + "".join(f"{name.replace('_', ' '):>21}" for name in names))
    for name, row in decoders.items():
        kept = {key: _time(row["ms_until_90_percent_kept"][key], times[-1]) for key in Interval._fields}
        reached = f"{kept['value']} [{kept['low']}, {kept['high']}]"
        text.append(f"{name:24}{reached:>19}" + "".join(f"{words(row[read], digits=2):>21}" for read in names))
    for name, row in result["neds_minus"].items():
        text.append(f"{f'NEDS - {name}':43}" + "".join(f"{words(row[read], '+', 2):>21}" for read in names))
    text.append("value [95 % interval over trials and training seeds]; a decoder that errs nowhere has a point for one")
    return text


def _time(ms: float | None, longest: float) -> str:
    return f">{longest:.0f}" if ms is None else f"{ms:.0f}"
