"""Scores of a logged run against what was measured: one code path for live runs and `neds-rt evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec
from neds_core.scores import bootstrap, r2 as scores, spread as spreads
from runtime.core.engine import BROUGHT, DECODERS, RECOMMENDED
from runtime.core.run_log import RunLog
from runtime.core.values import Layout
from runtime.core.words import listed
from runtime.engines import create as engines
from runtime.engines.ensemble import variance, weighted, with_linear
from runtime.engines.layout import layout
from runtime.engines.state_space import StateSpaceEngine
from runtime.scoring.points import Row, score_points
from runtime.scoring.truth import Truth, occurrences

LEAST_BINS = 25  # measured bins below which an output is not scored


def held(values: np.ndarray, in_time: np.ndarray, start: np.ndarray) -> np.ndarray:
    """What an actor had at each token (T, V): the last value published in time, within a segment.

    start (T,) bool: first token of a segment; nothing is carried over from the segment before.
    """
    out = values.copy()
    last = np.full(values.shape[1], np.nan, values.dtype)
    for t in range(len(values)):
        if start[t]:
            last = np.full(values.shape[1], np.nan, values.dtype)
        last = values[t] if in_time[t] else last
        out[t] = last
    return out


def score_trace(
    spec: BehaviourSpec,
    target: np.ndarray,
    decoded: dict[str, np.ndarray],
    trial: np.ndarray,
    average: np.ndarray,
    mean: float,
    bin_ns: int,
) -> Row:
    """Scores of one continuous output. decoded: decoder -> (n,) in units, NaN = nothing was said.

    average (n,): the training part's trial average, a reference only. A token for which
    nothing has been said yet scores as `mean`, the training part's mean: it lends no clock.
    """
    known = np.isfinite(target)
    y, group, mean_trial = target[known], trial[known], average[known]
    given = {name: np.where(np.isfinite(v), v, mean)[known] for name, v in decoded.items()}
    if reason := _unscored(y):
        return {"r2": None, "n": len(y), "null_reason": reason}
    ours = given["published"]
    phase = bool(np.ptp(mean_trial) > 0)
    row: Row = {"r2": scores.r2(y, ours), "r2_about_mean_trial": scores.r2(y, ours, mean_trial) if phase else None}
    for name in DECODERS if BROUGHT not in given else (BROUGHT,):
        row[f"{name}_r2"] = scores.r2(y, given[name])
        row[f"{name}_r2_about_mean_trial"] = scores.r2(y, given[name], mean_trial) if phase else None
        row[f"{name}_ci95"] = interval(y, given[name], group)
    if "ridge" in given:
        row |= {f"{name}_minus_ridge": gain(y, [given[name]], given["ridge"], group) for name in ("neds", "blend")}
        row["ridge_median_abs_error"] = float(np.median(np.abs(y - given["ridge"])))
    return row | {
        "mean_r2": scores.r2(y, mean_trial),
        "median_abs_error": float(np.median(np.abs(y - ours))),
        "max_abs_error": float(np.abs(y - ours).max()),
        "peak_lag_ms": scores.peak_lag(y, ours, group) * bin_ns * 1e-6,
        "n": len(y),
        "ci95": interval(y, ours, group),
        "unit": spec.unit,
    }


def _unscored(y: np.ndarray) -> str:
    """Why the measured values (n,) carry no score, '' = they do."""
    if len(y) == 0:
        return "no measured behaviour was received"
    if len(y) < LEAST_BINS:
        return f"too few measured bins ({len(y)}, at least {LEAST_BINS} are needed)"
    return "the measured behaviour did not vary" if float(np.ptp(y)) == 0.0 else ""


def interval(y: np.ndarray, value: np.ndarray, group: np.ndarray) -> list[float] | None:
    """95 % interval of R2, or None where there are too few trials to resample."""
    return list(scores.r2_interval(y, value, group)) if bootstrap.RULES.enough(group) else None


def gain(y: np.ndarray, ours: list[np.ndarray], theirs: np.ndarray, group: np.ndarray) -> Row:
    """Difference of R2 (mean over training seeds) with its paired interval, null where trials are too few."""
    value, low, high = scores.paired_interval(y, ours, theirs, group)
    few = not bootstrap.RULES.enough(group)
    return {"value": value, "low": None if few else low, "high": None if few else high}


def score_class(
    spec: BehaviourSpec, label: np.ndarray, decoded: dict[str, np.ndarray], prior: np.ndarray, strange: str = ""
) -> Row:
    """Scores of one class output at the trials' last bins. decoded: decoder -> (n, C); label (n,) -1 unknown.
    strange: a label that came and is no class.

    Every decoder's probabilities contain the training part's class shares (`prior`), and all
    are divided by them alike, so that the frequent class does not win by being frequent.

    A declared contrast gives two-class rows only: two- and three-class figures never stand side by side.
    """
    known = (label >= 0) & np.isfinite(decoded["published"]).all(1)
    row: Row = {"balanced_accuracy": None, "logistic_balanced_accuracy": None, "chance": None}
    row |= {"n": int(known.sum()), "null_reason": None}
    if spec.labels == "inferred":
        return row | {"null_reason": spec.labels_note or "labels were inferred"}
    if not known.any():
        return row | {
            "null_reason": f"label {strange} is no class; send {listed(spec.classes)}"
            if strange
            else "no labels were received"
        }
    y, given = label[known], {name: v[known] for name, v in decoded.items()}
    if not spec.contrasts:
        guesses = {name: scores.guess(v, prior) for name, v in given.items()}
        return row | _accuracies(y, guesses, spec.classes)
    rows = {}
    for name, pair in spec.contrasts.items():
        sides = [np.isin(y, [spec.classes.index(c) for c in side]) for side in pair]
        inside = sides[0] | sides[1]
        truth = sides[1][inside].astype(np.int64)
        guesses = {n: scores.contrast(v[inside], prior, spec.classes, pair) for n, v in given.items()}
        rows[name] = _accuracies(truth, guesses, ["+".join(side) for side in pair])
    return row | {"null_reason": "scored by its contrasts", "contrasts": rows}


def _accuracies(truth: np.ndarray, guesses: dict[str, np.ndarray], names: Sequence[str]) -> Row:
    """Accuracies over the trials; null where a guess of the only class that occurred would be perfect."""
    guess, n_classes = guesses["published"], len(names)
    occurred = np.unique(truth).tolist()
    if len(occurred) < 2:
        only = f"every scored trial is {names[occurred[0]]!r}" if occurred else "no trial is of these classes"
        return {"balanced_accuracy": None, "chance": 1.0 / n_classes, "n": len(truth), "null_reason": only}
    return {
        "balanced_accuracy": scores.balanced_accuracy(truth, guess, n_classes),
        "neds_balanced_accuracy": scores.balanced_accuracy(truth, guesses["neds"], n_classes),
        "logistic_balanced_accuracy": scores.balanced_accuracy(truth, guesses["ridge"], n_classes),
        "blend_balanced_accuracy": scores.balanced_accuracy(truth, guesses["blend"], n_classes),
        "chance": 1.0 / n_classes,
        "n": len(truth),
        "ci95": list(scores.accuracy_interval(truth, guess, n_classes)),
        "null_reason": None,
    }


def all_decoders(checkpoint: Checkpoint, log: RunLog, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Offline values (n, V) of neds, ridge, blend and `recommended` on counts, validity and resets the run logged."""
    if checkpoint.state_space is not None:
        return {BROUGHT: _brought(checkpoint, log, rows)}
    return _decoders(checkpoint, *_parts(checkpoint, log, rows))


def _brought(checkpoint: Checkpoint, log: RunLog, rows: np.ndarray) -> np.ndarray:
    """Offline values (n, V) of a decoder that was brought, from where the markers that were logged say it stands."""
    at, cold, kept = log.told(rows)
    engine = engines.create(checkpoint, BROUGHT)
    assert isinstance(engine, StateSpaceEngine)
    return engine.offline(log.counts[at], log.valid[at], log.clock[at], cold, log.stands[at])[kept]


def _parts(checkpoint: Checkpoint, log: RunLog, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Offline values (n, V) of each network, and of the linear decoder: what all decoders are made of."""
    at, cold, kept = log.told(rows)
    told = log.counts[at], log.valid[at], log.clock[at], cold
    linear = engines.create(checkpoint, "ridge").offline(*told)[kept]
    return [engines.network(checkpoint.alone(m)).offline(*told)[kept] for m in range(len(checkpoint.networks))], linear


def _decoders(checkpoint: Checkpoint, each: list[np.ndarray], linear: np.ndarray) -> dict[str, np.ndarray]:
    neds = each[0] if len(each) == 1 else weighted(engines.shares(checkpoint, "neds").astype(np.float32), each)
    found = {"neds": neds, "ridge": linear}
    for name in dict.fromkeys(("blend", engines.named(checkpoint, RECOMMENDED))):
        if name not in found:
            found[name] = weighted(with_linear(engines.shares(checkpoint, name)), [*each, linear])
    return found


def exactness(layout: Layout, streamed: np.ndarray, offline: np.ndarray, valid: np.ndarray) -> float | None:
    """Largest |streamed - offline| over valid tokens, in z-scores (probabilities for classes)."""
    if not valid.any():
        return None
    difference = np.abs(streamed[valid] - offline[valid]) / layout.scale
    return float(np.nanmax(difference)) if np.isfinite(difference).any() else None


@dataclass(frozen=True, slots=True)
class Scored:
    """A log decoded again: found, decoder -> offline values (n, V); outputs, a row each; n_scored tokens had a target;
    exact, the largest difference between what was published and its decoder's offline values."""

    found: dict[str, np.ndarray]
    outputs: Row
    n_scored: int
    exact: float | None


def score_log(checkpoint: Checkpoint, log: RunLog, rows: np.ndarray, truth: Truth) -> Scored:
    """All that the tokens `rows` of a log are scored by, of a live run and of one without sockets alike."""
    if checkpoint.state_space is not None:
        found, where = all_decoders(checkpoint, log, rows), layout(checkpoint)
        outputs, n_scored = score(checkpoint, where, log, rows, found, truth)
        return Scored(found, outputs, n_scored, exactness(where, log.values[rows], found[BROUGHT], log.valid[rows]))
    each, linear = _parts(checkpoint, log, rows)
    found, where, decoder = _decoders(checkpoint, each, linear), layout(checkpoint), log.header.decoder
    outputs, n_scored = score(checkpoint, where, log, rows, found, truth)
    exact = [exactness(where, log.values[rows], found[decoder], log.valid[rows])]
    if (spread := engines.spread(checkpoint, decoder, variance(each))) is not None:
        exact.append(exactness(where, log.sd[rows], spread.sd(spread.variance), log.valid[rows]))
    return Scored(found, outputs, n_scored, max((worst for worst in exact if worst is not None), default=None))


def _covered(checkpoint: Checkpoint, log: RunLog, rows: np.ndarray, name: str, target: np.ndarray) -> Row:
    """What the intervals of an output's published sd covered of the targets (n,) of bins that were published in time,
    and what intervals of one width do; empty where no sd was published."""
    column = layout(checkpoint).columns[name].start
    sd, value = (each[rows][:, column].astype(np.float64) for each in (log.sd, log.values))
    known = np.isfinite(target) & np.isfinite(sd) & np.isfinite(value) & log.in_time[rows]
    fitted = engines.calibrated(checkpoint, log.header.decoder, name)
    if fitted is None or known.sum() < LEAST_BINS:
        return {}
    error, flat = (target - value)[known], spreads.coverage((target - value)[known], fitted.constant)
    return {"sd": {"covers": spreads.coverage(error, sd[known]), "constant_covers": flat, "n": len(error)}}


def trial_average(checkpoint: Checkpoint, name: str, phase: np.ndarray) -> np.ndarray:
    """The training part's trial average at bins since segment start (n,), or its mean where there is none."""
    average = checkpoint.scalers.trial_mean.get(name, np.zeros(0, np.float32))
    if len(average) == 0:
        return np.full(len(phase), checkpoint.header.mean[name])
    return np.where(phase >= 0, average[np.clip(phase, 0, len(average) - 1)], checkpoint.header.mean[name])


def score(
    checkpoint: Checkpoint, layout: Layout, log: RunLog, rows: np.ndarray, found: dict[str, np.ndarray], truth: Truth
) -> tuple[Row, int]:
    """Scores of every output over the tokens `rows`, and how many tokens had a target.

    found: decoder -> offline values (n, V) on the same tokens (see `all_decoders`). Every
    decoder is held through tokens that were not published in time, so all are judged alike.
    """
    bin_ns = checkpoint.header.bin_ns
    segment, phase = occurrences(log, rows), log.clock[rows]
    start = np.r_[True, segment[1:] != segment[:-1]] | (phase == 0)
    decoders = {"published": log.values[rows], **found}
    said = {name: held(v, log.in_time[rows], start) for name, v in decoders.items()}
    trial = bootstrap.RULES.groups(segment, bin_ns)
    last = np.r_[segment[1:] != segment[:-1], True]
    outputs: Row = {}
    scored = np.zeros(len(rows), bool)
    for spec in layout.specs:
        columns = {name: v[:, layout.columns[spec.name]] for name, v in said.items()}
        if spec.kind == "continuous":
            target = truth.traces.get(spec.name, np.full(len(rows), np.nan))
            flat = {name: v[:, 0].astype(np.float64) for name, v in columns.items()}
            average, mean = trial_average(checkpoint, spec.name, phase).astype(float), checkpoint.header.mean[spec.name]
            outputs[spec.name] = _alone(score_trace, spec, target, flat, trial, average, mean, bin_ns)
            covered = _covered(checkpoint, log, rows, spec.name, target)
            outputs[spec.name] |= covered | ({"lead_ms": spec.lead_ms} if spec.lead_ms else {})
            scored |= np.isfinite(target)
        else:
            label = truth.labels.get(spec.name, np.full(len(rows), -1))
            at_end = {name: v[last] for name, v in columns.items()}
            outputs[spec.name] = _alone(
                score_class, spec, label[last], at_end, checkpoint.scalers.prior[spec.name],
                truth.strange.get(spec.name, ""),
            )  # fmt: skip
            if spec.labels == "measured":
                scored |= label >= 0
    return outputs | score_points(layout, said, truth, trial, bin_ns), int(scored.sum())


def _alone(judge: Callable[..., Row], *given: Any) -> Row:
    """The scores of one output; where they cannot be computed, why: the others and the summary stand."""
    try:
        return judge(*given)
    except (ArithmeticError, LookupError, ValueError) as error:
        return {"r2": None, "n": 0, "null_reason": f"its score failed ({error})"}
