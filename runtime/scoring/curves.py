"""Scores of a streamed decoder against delay, place in the trial and time from an event, and its calibration."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data import lead
from neds_core.data.session import BehaviourSpec, Session
from neds_core.scores import decoding as decoding_scores, r2 as scores, reliability as calibration_scores
from neds_core.train import loop as train
from runtime.engines.layout import layout
from runtime.scoring.score import Row
from runtime.scoring.seeds import SeedScores

CALIBRATION_SHARE = (
    0.25  # of the held-out trials, the first: a temperature is fitted on them, and no calibration scored
)
MOVING_RAD_S = 0.5  # wheel speed that, held for 60 ms, counts as a movement
EVENT_BINS = (-25, 75)


def curves(decoded: SeedScores, validation: Session) -> Row:
    """Curves of every output of one checkpoint. `validation`: inside its training, where a delay may be chosen."""
    plan = layout(decoded.checkpoint)
    found: Row = {}
    for spec in plan.specs:
        values = {name: v[:, plan.columns[spec.name]] for name, v in decoded.found.items()}
        if spec.kind == "continuous":
            if "mean_r2" not in decoded.outputs[spec.name]:
                continue  # not scored
            found[spec.name] = _trace(decoded, spec, {n: v[:, 0].astype(float) for n, v in values.items()}, validation)
        elif spec.labels == "measured":
            found[spec.name] = _class(decoded, spec, values["neds"].astype(float))
    return found


def bins_in_trial(segment: np.ndarray) -> np.ndarray:
    """(n,) tokens since each token's segment began."""
    start = np.flatnonzero(np.r_[True, np.diff(segment) != 0])
    return np.arange(len(segment)) - np.repeat(start, np.diff(np.r_[start, len(segment)]))


def numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [float(v) if np.isfinite(v) else None for v in values]


def _trace(decoded: SeedScores, spec: BehaviourSpec, values: dict[str, np.ndarray], validation: Session) -> Row:
    """R2 at every read-out delay, at the delay that validation prefers, and at every bin of the trial."""
    y, trial = decoded.truth.traces[spec.name], decoded.segment
    ms = decoded.checkpoint.header.bin_ns * 1e-6
    curve = {name: decoding_scores.delay_curve(y, v, trial) for name, v in values.items()}
    best = _best_delay(decoded.checkpoint, spec, validation)
    later, known = decoding_scores.at_delay(y, values["neds"], trial, best)
    row: Row = {
        "delay_ms": (curve["neds"].delay_bins * ms).tolist(),
        "n": curve["neds"].n,
        **{f"{name}_r2": numbers(c.r2) for name, c in curve.items()},
        "delay_chosen_on_validation_ms": best * ms,
        "neds_r2_at_chosen_delay": scores.r2(y[known], later[known]),
        "neds_r2_on_the_same_bins": scores.r2(y[known], values["neds"][known]),
    }
    if len(np.unique(trial)) > 1:
        position = bins_in_trial(trial)
        n = int(position.max()) + 1
        row["bin_in_trial_ms"] = (np.arange(n) * ms).tolist()
        for name, v in values.items():
            row[f"{name}_r2_by_bin"] = numbers(decoding_scores.r2_by_position(y, v, position, n))
    return row


def _best_delay(checkpoint: Checkpoint, spec: BehaviourSpec, validation: Session) -> int:
    bins, validation = validation.bins(), lead.ahead(validation, lead.of(checkpoint.specs))
    segment = validation.segment_of(bins)
    z = np.mean([train.decode_live(network, validation)[spec.name] for network in checkpoint.networks], axis=0)
    value = z * checkpoint.header.sd[spec.name] + checkpoint.header.mean[spec.name]
    return decoding_scores.delay_curve(validation.values[spec.name][bins].astype(float), value, segment).best()


def _class(decoded: SeedScores, spec: BehaviourSpec, probs: np.ndarray) -> Row:
    """Accuracies against time for each two-class question, and calibration at the trials' last bins."""
    prior, segment = decoded.checkpoint.scalers.prior[spec.name], decoded.segment
    position = bins_in_trial(segment)
    trial = np.cumsum(position == 0) - 1
    shape = (int(trial[-1]) + 1, int(position.max()) + 1)
    label = np.full(shape[0], -1, np.int64)
    label[trial] = decoded.truth.labels[spec.name]
    events = {"from_segment_start": np.zeros(shape[0], np.int64)}
    for name, ms in decoded.truth.moments.items():
        found = np.full(shape[0], np.nan)
        found[trial] = ms * 1e6 / decoded.checkpoint.header.bin_ns
        events[f"from_{name}"] = np.floor(np.nan_to_num(found, nan=-1.0)).astype(np.int64)
    ahead = lead.of(decoded.checkpoint.specs)  # then the trace is not of the token's own bin
    if "from_first_movement" not in events and "wheel_speed" in decoded.truth.traces.keys() - ahead.keys():
        speed = np.full(shape, np.nan)
        speed[trial, position] = decoded.truth.traces["wheel_speed"]
        events["from_first_movement"] = decoding_scores.movement_onset(speed, MOVING_RAD_S)
    pairs = dict(spec.contrasts)
    if not pairs and len(spec.classes) == 2:
        pairs = {"_against_".join(spec.classes): ((spec.classes[0],), (spec.classes[1],))}
    rows: Row = {}
    for name, pair in pairs.items():
        sides = [[spec.classes.index(c) for c in side] for side in pair]
        evidence = np.full(shape, np.nan)
        first, second = (
            np.log(np.maximum(probs[:, s].sum(1), calibration_scores.LOWEST) / prior[s].sum()) for s in sides
        )
        evidence[trial, position] = second - first
        side = np.where(np.isin(label, sides[1]), 1, np.where(np.isin(label, sides[0]), 0, -1))
        rows[name] = {
            event: _curve(side, evidence, at, decoded.checkpoint.header.bin_ns) for event, at in events.items()
        }
    last = np.r_[position[1:] == 0, True]
    return {"against_time": rows, "calibration": calibration(probs[last], label)}


def _curve(label: np.ndarray, evidence: np.ndarray, event: np.ndarray, bin_ns: int) -> Row:
    shortest, longest = max(EVENT_BINS[0], -int(event.max(initial=0))), min(EVENT_BINS[1], evidence.shape[1] - 1)
    found = decoding_scores.class_curve(label, evidence, event, shortest, longest)
    return {
        "offset_ms": (found.offset_bins * bin_ns * 1e-6).tolist(),
        "accuracy": numbers(found.accuracy),
        "balanced_accuracy": numbers(found.balanced_accuracy),
        "auc": numbers(found.auc),
        "n": found.n.tolist(),
    }


def calibration(probs: np.ndarray, label: np.ndarray) -> Row | None:
    """Expected calibration error of probs (S, C) as they are and with a temperature; None with too few trials.

    The temperature is fitted on the first quarter of the labelled trials, which serve nothing
    else here; errors are of the other three.
    """
    known = np.flatnonzero((label >= 0) & np.isfinite(probs).all(1))
    n_fit = round(CALIBRATION_SHARE * len(known))
    if n_fit < 5:
        return None
    fit, rest = known[:n_fit], known[n_fit:]
    temperature = calibration_scores.fit_temperature(probs[fit], label[fit])
    scaled = calibration_scores.with_temperature(probs[rest], temperature)
    shown = calibration_scores.reliability(probs[rest], label[rest])
    return {
        "temperature": temperature,
        "ece": calibration_scores.reliability_error(probs[rest], label[rest]),
        "ece_with_temperature": calibration_scores.reliability_error(scaled, label[rest]),
        "n_fit": len(fit),
        "n_scored": len(rest),
        "confidence": numbers(shown.confidence),
        "accuracy": numbers(shown.accuracy),
        "n": shown.n.tolist(),
    }
