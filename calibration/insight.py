"""Where a calibrated decoder's skill comes from: how many trials it takes, and which units carry it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec import Struct

from calibration import judge
from calibration.fitting.fit import Fitted
from neds_core.checkpoint.judged import Judged, Name, Offer, Score
from neds_core.data import session as sessions
from neds_core.data.parts import Parts
from neds_core.data.session import BehaviourSpec, Session
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
    None. whole: the score of what is offered with all units. low: the lower ends of 95 % intervals by a bootstrap over
    trials, the same for both terms of a difference: of a unit's drop, and of whole minus the constant's score. None =
    too few trials. They are of each unit for itself: of N units without effect 0.025 N end above 0 by chance.
    """

    decoder: str
    measure: str
    whole: float
    ids: list[int]
    region: list[str]
    linear: list[float]
    offered: list[float | None]
    linear_low: list[float | None] = []
    offered_low: list[float | None] = []
    whole_low: float | None = None

    @property
    def drops(self) -> tuple[str, list[float | None], list[float | None]]:
        """The decoder that was tested without units, what each lost (None = not tested) and the lower ends."""
        if any(drop is not None for drop in self.offered):
            return self.decoder, self.offered, self.offered_low
        return "ridge", [*self.linear], self.linear_low


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
    """What each unit contributes to each output that was judged, where the selecting part has values of it."""
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
        if not len(output.y):  # nothing was measured there
            continue
        silent = output.silent(kept)
        full, said = output.alone(output.ridge), {k: output.alone(each) for k, each in enumerate(silent)}
        drops, lows = output.lost(full, said)
        offered = (_row(drops, kept), _row(lows, kept))
        if which != "ridge":
            full = output.mixed(output.ridge, whole[spec.name])
            places = {u: int(np.searchsorted(kept, u)) for u in without}
            said = {k: output.mixed(silent[k], without[u][spec.name]) for u, k in places.items()}
            offered = tuple(_row(each, kept) for each in output.lost(full, said))
        ids, region = made.units.ids[kept].tolist(), made.units.region[kept].tolist()
        found[spec.name] = Contribution(
            which, output.measure, output.skill(full), ids, region, [drops[k] for k in range(len(kept))], offered[0],
            _row(lows, kept), offered[1], output.above_constant(full),
        )  # fmt: skip
    return found


def _row(found: dict[int, float], kept: np.ndarray) -> list[float | None]:
    """By place among the used units, None = not there."""
    return [found.get(k) for k in range(len(kept))]


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
        group = bootstrap.RULES.groups(select.segment_of(bins), select.bin_ns)
        self.group = group[self.rows] if trace else np.arange(len(self.y))
        self.few = not bootstrap.RULES.enough(self.group)

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
        return float(self._statistic(self._sums(said).sum(0)))

    def lost(self, full: np.ndarray, said: dict[int, np.ndarray]) -> tuple[dict[int, float], dict[int, float]]:
        """What the score of `full` loses where each of `said` is said instead, and the lower ends of its intervals."""
        drawn = self._drawn({-1: full, **said})
        each = {k: drawn[-1].minus(drawn[k]).interval() for k in said}
        lows = {k: found.low for k, found in each.items() if np.isfinite(found.low) and not self.few}
        return {k: found.value for k, found in each.items()}, lows

    def above_constant(self, full: np.ndarray) -> float | None:
        """The lower end of the interval of the score minus that of the mean or class shares of the fitting part."""
        one = np.full(len(self.y), self.mean)
        constant = one if self.spec.kind == "continuous" else np.broadcast_to(self.prior, full.shape)
        drawn = self._drawn({-1: full, 0: constant})
        low = drawn[-1].minus(drawn[0]).interval().low
        return None if self.few or not np.isfinite(low) else low

    def _drawn(self, said: dict[int, np.ndarray]) -> dict[int, bootstrap.Drawn]:
        found = bootstrap.together({str(k): self._sums(each) for k, each in said.items()}, self._statistic)
        return {int(k): one for k, one in found.items()}

    def _sums(self, said: np.ndarray) -> np.ndarray:
        """Rows of a trial each: of R2, or the cross-entropy with what was said and with the class shares."""
        if self.spec.kind == "continuous":
            return scores.r2_sums(self.y, said.astype(np.float64), self.group)
        got = said[np.arange(len(self.y)), self.y]
        return -np.log(np.stack([np.maximum(got, LOWEST), self.prior[self.y]], axis=1).astype(np.float64))

    def _statistic(self, total: np.ndarray) -> np.ndarray:
        if self.spec.kind == "continuous":
            return scores.r2_of_sums(total)
        return 1.0 - total[..., 0] / total[..., 1]
