"""Where a calibrated decoder's skill comes from: how many trials it takes, and which units carry it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec import Struct

from calibration import judge
from calibration.fitting.fit import Fitted
from neds_core.data import session as sessions
from neds_core.data.parts import Parts
from neds_core.data.session import BehaviourSpec, Session
from neds_core.judged import Judged, Name, Offer, Score
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model import rows
from neds_core.scores import bootstrap, r2 as scores
from neds_core.train import loop

SHARES = (0.125, 0.25, 0.5)  # of the fitting part, from its start; the whole of it was fitted anyway
PASSES = 48  # units that the network is run again without
LOWEST = 1e-9


class Learning(Struct, frozen=True):
    """Score on the selecting part against how much of the fitting part was used, from its start.

    trials: segments; minutes: inside them; linear: the linear decoder of so many, with the bank and penalty of all of
    them; all: every decoder of the whole fitting part. None: too few to fit.
    """

    measure: str
    trials: list[int]
    minutes: list[float]
    linear: list[Score | None]
    all: dict[str, Score]


class Contribution(Struct, frozen=True):
    """What the score on the selecting part loses when a unit is silent, of each used unit: ids, region, in table order.

    measure: R2 of traces, 1 - cross-entropy / entropy of classes. linear: of the linear decoder, in closed form.
    offered: of what is offered; where that has a causal network, of the `PASSES` units that move its input most, else
    None. whole: the score of what is offered with all units.
    """

    decoder: str
    measure: str
    whole: float
    ids: list[int]
    region: list[str]
    linear: list[float]
    offered: list[float | None]


def learning(fitted: Fitted, parts: Parts, names: list[str]) -> dict[str, Learning]:
    """The learning curve of each output in `names`."""
    made, found = fitted.made, {}
    said = made.judged
    assert said is not None  # a calibration keeps what its selecting part said
    cuts = [sessions.part(parts.fit, 0.0, share) for share in SHARES]
    each = [*cuts, parts.fit]
    for spec in (s for s in made.specs if s.name in names):
        once = fitted.once[spec.name]
        curve = [_score(fitted, spec, said, _again(spec, once, cut, fitted), parts.select) for cut in cuts]
        curve.append(_score(fitted, spec, said, once, parts.select))
        verdict = made.header.verdicts[spec.name]
        minutes = [len(cut.bins()) * cut.bin_ns / 60e9 for cut in each]
        trials = [len(cut.segments) for cut in each]
        found[spec.name] = Learning(verdict.measure, trials, minutes, curve, {**verdict.scores})
    return found


def _again(spec: BehaviourSpec, once: Linear, cut: Session, fitted: Fitted) -> Linear | None:
    """The linear decoder of less; None where that holds no value, or trials of one class alone."""
    rows = cut.bins()
    known = cut.values[spec.name][rows][cut.valid[rows]]
    if spec.kind == "class":
        last = cut.values[spec.name][cut.segments[:, 1] - 1]
        if len(np.unique(last[last >= 0])) < len(spec.classes):
            return None
    elif np.isfinite(known).sum() < 2:
        return None
    return baseline.refit(cut, spec, fitted.made.scalers, once.bank, once.penalty)


def _score(fitted: Fitted, spec: BehaviourSpec, said: Judged, linear: Linear | None, select: Session) -> Score | None:
    """How a linear decoder does on the selecting part, with its interval over trials."""
    if linear is None:
        return None
    value = baseline.predict(linear, select, fitted.made.scalers.kept, spec.kind)
    if spec.kind == "class":
        value = value[baseline.decision_bins(select, select.bins())]
    case = judge.case(fitted.made, spec, said, {"ridge": value.astype(np.float64)})
    if not case.sums:
        return None
    found, low, high = bootstrap.interval(case.sums["ridge"], case.statistic)
    few = len(case.sums["ridge"]) < bootstrap.RULES.least or not np.isfinite([low, high]).all()
    return (Score(found) if few else Score(found, low, high)) if np.isfinite(found) else None


def units(fitted: Fitted, select: Session, offers: dict[str, Offer]) -> dict[str, Contribution]:
    """What each unit contributes to each output that was judged."""
    made = fitted.made
    kept = np.flatnonzero(made.scalers.kept)
    networks = any(offer.decoder != "ridge" for offer in offers.values())
    moved = _moving(fitted, select, kept) if networks else kept[:0]
    whole = loop.decode_live(made.model, select) if networks else {}
    without = {u: loop.decode_live(made.model, _silenced(select, u)) for u in moved.tolist()}
    found = {}
    for spec in (s for s in made.specs if s.name in offers):
        which = offers[spec.name].decoder
        output = _Output(fitted, select, spec, which)
        silent, full = output.silent(kept), output.skill(output.alone(output.ridge))
        drops = [full - output.skill(output.alone(each)) for each in silent]
        offered: list[float | None] = [*drops]
        if which != "ridge":
            full = output.skill(output.mixed(output.ridge, whole[spec.name]))
            offered = [None for _ in kept]
            for u, values in without.items():
                k = int(np.searchsorted(kept, u))
                offered[k] = full - output.skill(output.mixed(silent[k], values[spec.name]))
        ids, region = made.units.ids[kept].tolist(), made.units.region[kept].tolist()
        found[spec.name] = Contribution(which, output.measure, full, ids, region, drops, offered)
    return found


def _silenced(select: Session, unit: int) -> Session:
    counts = select.counts.copy()
    counts[:, unit] = 0
    return replace(select, counts=counts)


def _moving(fitted: Fitted, select: Session, kept: np.ndarray) -> np.ndarray:
    """The units whose counts move the network's input most: by the standard deviation of sqrt(count), times its row."""
    made, model = fitted.made, fitted.made.header.config.model
    size = np.sqrt(select.counts[select.bins()][:, kept].astype(np.float32)).std(0)
    if model.tokenizer == "rows":
        size *= np.linalg.norm(rows.of(made.model, 0, made.units, made.scalers.kept).moves, axis=(0, 2))
    return kept[np.argsort(-size, kind="stable")[: PASSES if model.attention == "causal" else 0]]


class _Output:
    """One output on the selecting part: its target, and what the decoders of the fitting part say of it."""

    def __init__(self, fitted: Fitted, select: Session, spec: BehaviourSpec, which: Name) -> None:
        made, bins = fitted.made, select.bins()
        self.spec, self.once, self.kept = spec, fitted.once[spec.name], made.scalers.kept
        self.share = {"neds": 1.0, "ridge": 0.0, "blend": made.header.blend[spec.name]}[which]
        self.prior = made.scalers.prior.get(spec.name, np.zeros(0))
        self.mean, self.sd = made.header.mean.get(spec.name, 0.0), made.header.sd.get(spec.name, 1.0)
        trace = spec.kind == "continuous"
        self.measure = "R2" if trace else "1 - cross-entropy / entropy"
        y = select.values[spec.name][bins]
        self.rows = np.isfinite(y) & select.valid[bins] if trace else baseline.decision_bins(select, bins) & (y >= 0)
        self.y = y[self.rows]
        self.x = baseline.design(select, self.once.bank, self.kept)[0][self.rows]
        self.ridge = self.once.apply(self.x)  # values (n, 1), or logits (n, C)

    def silent(self, kept: np.ndarray) -> np.ndarray:
        """What the linear decoder says with each unit silent (K, n, C): a silent unit's features are 0."""
        n_units, copies = len(self.kept), self.once.bank.copies
        x = self.x[:, : copies * n_units].reshape(-1, copies, n_units)[:, :, kept]
        weight = self.once.weight[: copies * n_units].reshape(copies, n_units, -1)[:, kept]
        return self.ridge[None] - np.einsum("nck,ckv->knv", x, weight, optimize=True)

    def alone(self, linear: np.ndarray) -> np.ndarray:
        """What the linear decoder says: values (n,), or probabilities (n, C); linear: see `ridge`."""
        if self.spec.kind == "continuous":
            return linear[:, 0]
        power = np.exp(linear - linear.max(1, keepdims=True))
        return power / power.sum(1, keepdims=True)

    def mixed(self, linear: np.ndarray, network: np.ndarray) -> np.ndarray:
        """The same of what is offered. network: of the network, on all bins of the part, values as z-scores."""
        ours = network[self.rows]
        ours = ours * self.sd + self.mean if self.spec.kind == "continuous" else ours
        return self.share * ours + (1.0 - self.share) * self.alone(linear)

    def skill(self, said: np.ndarray) -> float:
        """The score of what was said."""
        if self.spec.kind == "continuous":
            return float(scores.r2(self.y.astype(np.float64), said.astype(np.float64)))
        row = np.arange(len(self.y))
        got = -np.log(np.maximum(said[row, self.y], LOWEST)).mean()
        return float(1.0 - got / -np.log(self.prior[self.y]).mean())
