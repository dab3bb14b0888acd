"""What a calibrated decoder may publish, by the part of the session that nothing was fitted or chosen on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from msgspec import Struct

from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Judged, Measure, Name, Offer, Score, Verdict
from neds_core.data.parts import SHARES
from neds_core.data.session import BehaviourSpec, Session
from neds_core.scores import bootstrap, judging, r2 as scores, reliability
from neds_core.scores.judging import MARGIN
from neds_core.train import validation

MOST = 4.0  # times the judging part: an interval that needs more than that to tell is a refusal
RELIABILITY_BINS = 10
CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Case:
    """One output on the judging part. sums: of each decoder and of the constant, (groups, K) rows of `statistic`.
    without: why it cannot be judged, '' = it can."""

    measure: Measure
    sums: dict[str, np.ndarray]
    statistic: Callable[[np.ndarray], np.ndarray]
    without: str = ""


class Diagram(Struct, frozen=True):
    """Trials by confidence, in equal bins: mean probability of the guess, share that is right (None = no trial), n."""

    confidence: list[float | None]
    accuracy: list[float | None]
    n: list[int]


class Reliability(Struct, frozen=True):
    """Expected calibration error of a class's offered decoder on the judging part, in so many equal bins.

    temperature: that of NEDS and of the linear decoder, folded into their read-outs (1 = too few trials to choose one).
    error_before: without them. after, before: what the errors are made of.
    """

    error: float
    bins: int
    n: int
    temperature: dict[str, float]
    error_before: float
    after: Diagram
    before: Diagram


@dataclass(frozen=True, slots=True)
class Judgement:
    """The offers of all measured outputs, the checkpoint that follows them, and what classes' probabilities are worth.

    said: what was judged, for figures.
    """

    made: Checkpoint
    offers: dict[str, Offer]
    reliability: dict[str, Reliability]
    said: Judged


def judge(made: Checkpoint, part: Session, temperatures: Mapping[str, Mapping[str, float]]) -> Judgement:
    """Judge a checkpoint, as it was read from its file, on a part of the session; temperatures: see `Reliability`.

    Outputs with inferred labels are not judged: they have no offer. Verdicts of the others name what is offered.
    """
    decoded = validation.decode(made.model, made.linear, part, made.scalers)
    said = validation.evidence(decoded, made.specs, part)
    offers: dict[str, Offer] = {}
    reliable: dict[str, Reliability] = {}
    verdicts, measured = dict(made.header.verdicts), [spec for spec in made.specs if spec.labels == "measured"]
    values = {s.name: judging.values(said, s.name, judging.shares_of(made, s.name)) for s in measured}
    cases = {s.name: case(made, s, said, values[s.name]) for s in measured}
    for spec in measured:
        verdict = verdicts[spec.name]
        names = [s.name for s in measured if judging.same_point(s, spec)]
        best = chosen([verdicts[name] for name in names], [made.header.blend[name] for name in names])
        found = offer(cases[spec.name], best, verdict.recommended)
        if len(names) > 1:  # coordinates of one point are published by one decoder
            own, found = found, offer(together([cases[name] for name in names]), best, verdict.recommended)
            found = msgspec.structs.replace(found, scores=own.scores, reason=f"the whole point: {found.reason}")
        offers[spec.name] = found
        reason = f"the gate of this calibration: {found.word}, {found.reason}"
        verdicts[spec.name] = msgspec.structs.replace(verdict, recommended=found.decoder, reason=reason)
        if spec.kind == "class":
            used = {"neds": 1.0, "ridge": 1.0} | dict(temperatures.get(spec.name, {}))
            reliable[spec.name] = reliability_of(made, spec.name, said, found.decoder, used)
    header = msgspec.structs.replace(made.header, verdicts=verdicts)
    return Judgement(replace(made, header=header), offers, reliable, said)


def reliability_of(
    made: Checkpoint, name: str, said: Judged, decoder: Name, temperature: Mapping[str, float]
) -> Reliability:
    """What the probabilities of a class are worth with its temperatures, and without them."""
    label, prior = said.target[name], np.array(made.header.prior[name])
    known = label >= 0
    truth = label[known].astype(np.int64)

    def warm(probs: np.ndarray, of: str) -> np.ndarray:
        return reliability.with_temperature(probs.astype(np.float64), 1.0 / temperature[of], prior)

    each = np.stack([warm(network, "neds") for network in said.neds[name]])
    old = judging.mixed(each, warm(said.linear[name], "ridge"), judging.shares_of(made, name))
    new = judging.values(said, name, judging.shares_of(made, name))
    errors, diagrams = [], []
    for probs in (new[decoder][known], old[decoder][known]):
        errors.append(reliability.reliability_error(probs, truth, RELIABILITY_BINS))
        shown = reliability.reliability(probs, truth, RELIABILITY_BINS)
        sure, right = ([float(v) if np.isfinite(v) else None for v in x] for x in (shown.confidence, shown.accuracy))
        diagrams.append(Diagram(sure, right, shown.n.tolist()))
    return Reliability(errors[0], RELIABILITY_BINS, int(known.sum()), dict(temperature), errors[1], *diagrams)


def chosen(verdicts: Sequence[Verdict], shares: Sequence[float]) -> Name:
    """NEDS or the blend: the one with the better mean score on the selecting part, of one output or of a point's.

    shares: of NEDS in the blend of each; a blend without NEDS is the ridge.
    """
    gains = [v.scores["blend"].value - v.scores["neds"].value for v in verdicts if v.scores]
    return "blend" if gains and max(shares) > 0 and np.mean(gains) > 0 else "neds"


def together(cases: Sequence[Case]) -> Case:
    """The coordinates of one point as one case, by the mean of their scores."""

    def mean(total: np.ndarray) -> np.ndarray:
        parts = zip(cases, np.split(total, len(cases), axis=-1), strict=True)
        return np.mean([one.statistic(part) for one, part in parts], axis=0)

    sums = {name: np.concatenate([one.sums[name] for one in cases], axis=1) for name in cases[0].sums}
    return Case(cases[0].measure, sums, mean)


def case(made: Checkpoint, spec: BehaviourSpec, said: Judged, each: Mapping[Name, np.ndarray]) -> Case:
    """One output with every decoder and the constant: the mean of the fitting part, or its class shares."""
    target = said.target[spec.name]
    values: dict[str, np.ndarray] = {**each}
    if spec.kind == "class":
        known, prior = target >= 0, np.array(made.header.prior[spec.name])
        values[CONSTANT] = np.broadcast_to(prior, values["ridge"].shape)
        found = judging.of_class(spec, target[known].astype(np.int64), {k: v[known] for k, v in values.items()}, prior)  # pyright: ignore[reportArgumentType]
        if found.without:
            return Case("", {}, found.statistic, found.without)
        width = 2 if spec.contrasts else len(prior)
        return Case(found.measure, {**found.sums}, complete(found.statistic, found.sums["ridge"], width))
    point = [said.target[s.name] for s in made.specs if judging.same_point(s, spec)]
    known = np.isfinite(point).all(0)
    group = bootstrap.RULES.groups(said.segment, made.header.bin_ns)[known]
    values[CONSTANT] = np.full(len(target), made.header.mean[spec.name])
    sums = {name: scores.r2_sums(target[known], value[known], group) for name, value in values.items()}
    return Case("R2", sums, scores.r2_of_sums)


def complete(
    statistic: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, n_classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The same score of classes, NaN for a resample that lacks a class which occurs: there the constant would be right.

    sums (n, K): blocks of 2 n_classes columns, of which the first half counts trials of each class.
    """
    counts = np.arange(sums.shape[1]) % (2 * n_classes) < n_classes
    occurs = np.flatnonzero(counts & (sums.sum(0) > 0))
    return lambda total: np.where((total[..., occurs] > 0).all(-1), statistic(total), np.nan)


def offer(found: Case, best: Name, otherwise: Name) -> Offer:
    """The gate's word on one output.

    PASS: the 95 % interval of `best` - constant lies above 0, and the 90 % interval of `best` - ridge above -MARGIN.
    RIDGE: the 95 % interval of ridge - constant lies above 0. NEED: neither, but the estimates lie on the right side
    and their intervals are too wide. REFUSE: the rest. otherwise: the decoder that is named where nothing is offered.

    An interval shrinks with the square root of the n segments that it is made of. Of an estimate g above its bound,
    whose lower end lies h below it, n (h / g)^2 segments would put the lower end onto the bound. They are 20 % of a
    session, so `n_more` = (n (h / g)^2 - n) / 0.2 segments are to be collected. More than `MOST` times n is a refusal.
    """
    if found.without:
        return Offer("REFUSE", otherwise, f"not judged: {found.without}")
    n, drawn = len(found.sums["ridge"]), bootstrap.together(found.sums, found.statistic)
    over = {k: drawn[k].minus(drawn[CONSTANT]).interval() for k in (best, "ridge")}
    gain = drawn[best].minus(drawn["ridge"]).interval(90.0)
    each = {k: _score(one.interval()) for k, one in drawn.items()}
    kept = {"measure": found.measure, "n": n, "scores": each, "gain": _score(gain)}
    who = "NEDS" if best == "neds" else "the blend"
    against = f"{who} minus ridge {_said(gain)}"
    if over[best].low > 0 and gain.low > -MARGIN:
        return Offer("PASS", best, f"{who} minus the constant {_said(over[best])}, {against} (90 %)", **kept)
    if over["ridge"].low > 0:
        why = f"{who} does not pass: {against} (90 %)" if over[best].low > 0 else f"{who} {_said(over[best])} does not"
        return Offer("RIDGE", "ridge", f"the ridge minus the constant {_said(over['ridge'])}; {why}", **kept)
    for_neds = max(_needed(n, over[best]), _needed(n, gain, -MARGIN))
    needed = min(for_neds, _needed(n, over["ridge"]))
    said = f"{who} minus the constant {_said(over[best])}, ridge {_said(over['ridge'])}"
    if needed > MOST * n:
        return Offer("REFUSE", otherwise, f"nothing is surely above the constant: {said}", **kept)
    more = max(1, int(np.ceil((needed - n) / SHARES[-1])))
    return Offer("NEED", otherwise, f"too wide to tell: {said}", n_more=more, **kept)


def _needed(n: int, found: bootstrap.Interval, bound: float = 0.0) -> float:
    """Segments that would put the lower end of an interval onto a bound (see `offer`); infinite below it."""
    above, half = found.value - bound, found.value - found.low
    return n * max(1.0, (half / above) ** 2) if above > 0 else np.inf


def _score(found: bootstrap.Interval) -> Score:
    finite = np.isfinite(found.low) and np.isfinite(found.high)
    return Score(found.value, found.low, found.high) if finite else Score(found.value)


def _said(found: bootstrap.Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
