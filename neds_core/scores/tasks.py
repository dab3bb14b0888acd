"""The tasks of `neds-rt evaluate` beside decoding: encode, within and cross, on the held-out part.

The null and the trial average come from everything before the held-out part, which is what a
checkpoint was trained on. Every comparison is paired by trial and pools training seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.model import directions
from neds_core.model.batches import Cutter
from neds_core.model.directions import Span
from neds_core.model.model import NEDS
from neds_core.scores import bits, bootstrap, encoding, r2
from neds_core.scores.encoding import Row, Target

UNIT_FOLDS = 5
CROSS_FOLDS = 3  # about the 30 % that cross-modal training hides
WITHIN_BINS = 100  # longer segments are cut into such pieces: the next bin costs a pass for each bin of a piece


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out part of a recording as the tasks see it."""

    session: Session
    part: Session
    bins: np.ndarray  # (n,) bin of each predicted row
    trial: np.ndarray  # (n,) what a bootstrap draws each row with: its segment, or its block
    spans: list[Span]
    target: Target


def held_out(session: Session, longest: int | None = None) -> HeldOut:
    """The last 20 % of a recording; `longest` cuts its segments into pieces of so many bins.

    Raises `DataError` where it holds too few trials or blocks for an interval.
    """
    parts = sessions.split(session)
    spans = directions.spans_of(parts.test, longest)
    bins = directions.bins_of(spans)
    trial = bootstrap.RULES.groups(parts.test.segment_of(bins), session.bin_ns)
    if not bootstrap.RULES.enough(trial):
        raise DataError(
            f"the held-out part of {session.name!r} has under {bootstrap.RULES.least} trials or blocks; record more"
        )
    return HeldOut(session, parts.test, bins, trial, spans, encoding.target(parts.development, parts.test, bins, trial))


def refuse_other_units(checkpoint: Checkpoint, session: Session) -> None:
    """A checkpoint belongs to the recording whose units it was trained on."""
    if checkpoint.header.unit_map_sha != session.units.sha256:
        raise DataError(
            f"checkpoint {checkpoint.header.name!r} was trained on other units than {session.name!r} has; give its own"
        )


def cutter(checkpoint: Checkpoint, session: Session) -> Cutter:
    """The recording as a checkpoint's model reads it."""
    return Cutter(session, checkpoint.specs, checkpoint.scalers)


def shown(specs: tuple[BehaviourSpec, ...]) -> tuple[str, ...]:
    """Behaviours that spikes may be encoded from: labels inferred from spikes would give them back."""
    return tuple(s.name for s in specs if s.labels == "measured")


def encode_rates(checkpoints: list[Checkpoint], held: HeldOut) -> dict[str, list[np.ndarray]]:
    """Scored rates (n, U') of every seed: from "all" behaviours, from each alone, and from "none"."""
    first = checkpoints[0]
    if any(c.specs != first.specs for c in checkpoints):
        raise DataError("these checkpoints have other outputs than each other; evaluate each kind by itself")
    names = shown(first.specs)
    found: dict[str, list[np.ndarray]] = {"all": [], **{n: [] for n in names}, "none": []}
    for made in checkpoints:
        read = cutter(made, held.session)
        for key, rates in found.items():
            given = {"all": names, "none": ()}.get(key, (key,))
            each = [directions.encode(network, read, held.spans, given) for network in made.networks]
            rates.append(held.target.of(np.mean(each, axis=0)))
    return found


def encode(checkpoints: list[Checkpoint], held: HeldOut, found: dict[str, list[np.ndarray]]) -> Row:
    """Scores of spikes predicted from behaviour (see `encode_rates`)."""
    goal = held.target
    left_out = [s.name for s in checkpoints[0].specs if s.name not in found]
    alone = [name for name in found if name not in ("all", "none")]
    return {
        **references(goal),
        "scores": {name: [encoding.score(goal, r) for r in rates] for name, rates in found.items()},
        "left_out_because_inferred": left_out,
        "gains": {
            "all_minus_trial_average": encoding.gain(goal, found["all"], goal.average),
            **{f"{name}_minus_none": seed_gain(goal, found[name], found["none"]) for name in ("all", *alone)},
            **{f"all_minus_{name}": seed_gain(goal, found["all"], found[name]) for name in alone},
        },
    }


def seed_gain(goal: Target, first: list[np.ndarray], second: list[np.ndarray]) -> Row:
    """Bits/spike of `first` above `second`, where both are of the same training seeds: trials are drawn, pairs kept."""
    n = len(first)
    sums = np.concatenate([goal.sums(r) for r in (*first, *second)], axis=1)  # (trials, 2 seeds * 2)

    def difference(total: np.ndarray) -> np.ndarray:
        each = bits.bits_of_sums(total.reshape(*total.shape[:-1], 2 * n, 2))
        return each[..., :n].mean(-1) - each[..., n:].mean(-1)

    return encoding.as_row(bootstrap.interval(sums, difference))


def references(goal: Target) -> Row:
    """What knows no behaviour: size of the target, the training mean, the trial average."""
    constant = np.broadcast_to(goal.mean, goal.counts.shape)
    return {
        "units": int(goal.units.sum()),
        "bins": len(goal.counts),
        "trials": len(np.unique(goal.trial)),
        "spikes": int(goal.counts.sum()),
        "null": "training mean",
        "training_mean": encoding.score(goal, constant),
        "trial_average": encoding.score(goal, goal.average),
    }


def within(checkpoints: list[Checkpoint], held: HeldOut) -> Row:
    """Spikes from spikes: held-out units (co-smoothing), and the next bin."""
    goal = held.target
    ways: dict[str, Callable[[NEDS, Checkpoint], np.ndarray]] = {
        "held_out_units": lambda network, made: directions.co_smooth(
            network, cutter(made, held.session), held.spans, directions.unit_folds(len(made.units), UNIT_FOLDS)
        ),
        "next_bin": lambda network, made: directions.next_bin(network, cutter(made, held.session), held.spans),
    }
    found = {
        name: [goal.of(np.mean([way(network, made) for network in made.networks], axis=0)) for made in checkpoints]
        for name, way in ways.items()
    }
    return {
        **references(goal),
        "scores": {name: [encoding.score(goal, r) for r in rates] for name, rates in found.items()},
        "gains": {f"{n}_minus_trial_average": encoding.gain(goal, r, goal.average) for n, r in found.items()},
    }


def _crossed(made: Checkpoint, held: HeldOut, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What the networks of a checkpoint say on average."""
    read = cutter(made, held.session)
    each = [directions.cross(network, read, held.spans, CROSS_FOLDS, names) for network in made.networks]
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


def cross(checkpoints: list[Checkpoint], held: HeldOut) -> Row:
    """Every modality from what is left of all of them, a third of the bins of each hidden at a time."""
    goal = held.target
    names = shown(checkpoints[0].specs)
    said = [_crossed(made, held, names) for made in checkpoints]
    rates = [goal.of(s["spikes"]) for s in said]
    rows: Row = {}
    for spec in shown_specs(checkpoints[0]):
        rows[spec.name] = [
            _behaviour(held, made, spec, s[spec.name]) for made, s in zip(checkpoints, said, strict=True)
        ]
    return {
        **references(goal),
        "scores": {"spikes": [encoding.score(goal, r) for r in rates], **rows},
        "left_out_because_inferred": [s.name for s in checkpoints[0].specs if s.name not in names],
        "gains": {"spikes_minus_trial_average": encoding.gain(goal, rates, goal.average)},
    }


def shown_specs(checkpoint: Checkpoint) -> list[BehaviourSpec]:
    """Specs of the behaviours that may be shown and scored."""
    return [s for s in checkpoint.specs if s.name in shown(checkpoint.specs)]


def _behaviour(held: HeldOut, made: Checkpoint, spec: BehaviourSpec, said: np.ndarray) -> Row:
    """R2 of z-scores (n,), or accuracies of the probabilities (n, C) at each trial's last bin."""
    measured, valid = held.session.values[spec.name][held.bins], held.part.valid[held.bins]
    if spec.kind == "continuous":
        known = np.isfinite(measured) & valid
        value = said[known] * made.header.sd[spec.name] + made.header.mean[spec.name]
        found = bootstrap.interval(r2.r2_sums(measured[known], value, held.trial[known]), r2.r2_of_sums)
        return {"r2": found.value, "ci95": [found.low, found.high], "n": int(known.sum())}
    known = (measured >= 0) & valid & np.r_[np.diff(held.trial) != 0, True]
    if not known.any():
        return {"accuracy": None, "balanced_accuracy": None, "n": 0}
    label, guess = measured[known], r2.guess(said[known], made.scalers.prior[spec.name])
    found = bootstrap.interval(r2.recall_sums(label, guess, len(spec.classes)), r2.balanced_accuracy_of_sums)
    return {
        "accuracy": float((label == guess).mean()),
        "balanced_accuracy": found.value,
        "ci95": [found.low, found.high],
        "n": len(label),
    }
