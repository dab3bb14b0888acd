"""Which decoder of an output is published: judged on the validation part, where none of them was fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Judged, Measure, Name, Score, Spread, Verdict
from neds_core.data.session import BehaviourSpec
from neds_core.scores import bootstrap, r2 as scores, spread as spreads

DECODERS: tuple[Name, ...] = ("neds", "ridge", "blend")
MARGIN = 0.02  # of R2 or balanced accuracy: what the published decoder may be behind the ridge, by its interval
LEVEL = 90.0  # percent of that interval: one of 20 decoders that are so far behind passes, as at a calibration's gate


def decide(made: Checkpoint) -> Checkpoint:
    """The same checkpoint with a verdict on each output; without evidence it has none."""
    if made.judged is None:
        return replace(made, header=msgspec.structs.replace(made.header, verdicts={}))
    cases = {spec.name: _case(made, made.judged, spec, shares_of(made, spec.name)) for spec in made.specs}
    verdicts = {
        spec.name: _verdict(cases[spec.name], _together([cases[s.name] for s in made.specs if same_point(s, spec)]))
        for spec in made.specs
    }
    return replace(made, header=msgspec.structs.replace(made.header, verdicts=verdicts))


def values(judged: Judged, name: str, shares: np.ndarray) -> dict[Name, np.ndarray]:
    """What each decoder said of an output on the validation part: (n,) or (S, C). shares (K,): of each network in its
    blend."""
    return mixed(judged.neds[name].astype(np.float64), judged.linear[name].astype(np.float64), shares)


def mixed(each: np.ndarray, linear: np.ndarray, shares: np.ndarray) -> dict[Name, np.ndarray]:
    """What each decoder says, from what K networks (K, ...) and the linear decoder (...) say, in its unit or as
    probabilities. shares (K,): of each network in its blend."""
    share = shares.reshape(-1, *[1] * linear.ndim)
    return {"neds": each.mean(0), "ridge": linear, "blend": (share * each + (1.0 - share) * linear).mean(0)}


def shares_of(made: Checkpoint, name: str) -> np.ndarray:
    """(K,): share of each network in its blend of an output."""
    return np.array([blend[name] for blend in [member.blend for member in made.header.members] or [made.header.blend]])


@dataclass(frozen=True, slots=True)
class Case:
    """One output, ready to be judged. sums: of each decoder (groups, K), and `statistic`, the score of summed rows
    (see `neds_core.scores.bootstrap`). without: why it cannot be judged, '' = it can. lacks: decoders that have no
    value of some trial."""

    measure: Measure
    sums: dict[Name, np.ndarray]
    statistic: Callable[[np.ndarray], np.ndarray]
    without: str = ""
    spread: dict[Name, Spread] = field(default_factory=dict)
    lacks: tuple[Name, ...] = ()


def _case(made: Checkpoint, judged: Judged, spec: BehaviourSpec, shares: np.ndarray) -> Case:
    said, target = values(judged, spec.name, shares), judged.target[spec.name]
    if spec.kind == "class":
        if spec.labels == "inferred":
            return Case("", {}, scores.r2_of_sums, "its labels are inferred")
        known = target >= 0
        prior = np.array(made.header.prior[spec.name])
        return of_class(spec, target[known].astype(np.int64), {k: v[known] for k, v in said.items()}, prior)
    point = [judged.target[s.name] for s in made.specs if same_point(s, spec)]
    known = np.isfinite(point).all(0)
    group = bootstrap.RULES.groups(judged.segment, made.header.bin_ns)[known]
    sums: dict[Name, np.ndarray] = {}
    found: dict[Name, Spread] = {}
    between = _between(judged.neds[spec.name])[known]
    for name, value in said.items():
        sums[name] = scores.r2_sums(target[known], value[known], group)
        error = target[known] - value[known]
        found[name] = _spread(error, between if name != "ridge" else np.zeros_like(between))
    return Case("R2", sums, scores.r2_of_sums, spread=found)


def _between(each: np.ndarray) -> np.ndarray:
    """Sample standard deviation (n,) between the networks (K, n), 0 of one."""
    return np.std(each, axis=0, ddof=1) if len(each) > 1 else np.zeros(each.shape[1:])


def _spread(error: np.ndarray, between: np.ndarray) -> Spread:
    floor, slope = spreads.fit(error, between)
    constant, sd = float(np.sqrt((error**2).mean())), np.sqrt(floor**2 + (slope * between) ** 2)
    covers, constant_covers = spreads.coverage(error, sd), spreads.coverage(error, constant)
    return Spread(floor, slope, constant, covers, constant_covers, len(error))


def of_class(spec: BehaviourSpec, label: np.ndarray, said: dict[Name, np.ndarray], prior: np.ndarray) -> Case:
    """Balanced accuracy over the trials, or its mean over the contrasts of which both sides occur.

    A decoder without a value of a trial is not judged by the others, on which it might be the best.
    """
    missing = {name: int((~np.isfinite(v).all(1)).sum()) for name, v in said.items()}
    lacks: list[Name] = [name for name in said if missing[name]]
    if lacks:
        without = f"{lacks[0]} has no value of {missing[lacks[0]]} of {len(label)} trials there"
        return Case("", {}, scores.r2_of_sums, without, lacks=tuple(lacks))
    if not spec.contrasts:
        sums: dict[Name, np.ndarray] = {
            k: scores.recall_sums(label, (v / prior).argmax(1), len(prior)) for k, v in said.items()
        }
        return Case("balanced accuracy", sums, scores.balanced_accuracy_of_sums)
    found: dict[Name, list[np.ndarray]] = {name: [] for name in said}
    for pair in spec.contrasts.values():
        first, second = (np.isin(label, [spec.classes.index(c) for c in side]) for side in pair)
        if first.any() and second.any():
            for name, probs in said.items():
                guess = scores.contrast(probs, prior, spec.classes, pair)
                rows = scores.recall_sums(second.astype(np.int64), guess, 2)
                found[name].append(np.where((first | second)[:, None], rows, 0.0))
    n = len(found["ridge"])
    if not n:
        return Case("", {}, scores.r2_of_sums, "none of its contrasts has trials of both sides there")

    def mean(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a resample without a trial of a contrast has no score
            return np.mean([scores.balanced_accuracy_of_sums(each) for each in np.split(total, n, axis=-1)], axis=0)

    both: dict[Name, np.ndarray] = {name: np.concatenate(each, axis=1) for name, each in found.items()}
    return Case("balanced accuracy", both, mean)


def same_point(one: BehaviourSpec, other: BehaviourSpec) -> bool:
    return one.name == other.name or bool(one.group and one.group == other.group)


def _together(cases: list[Case]) -> Case:
    """The coordinates of one point as one case, by the mean of their scores: they are published by one decoder."""
    if len(cases) == 1:
        return cases[0]

    def mean(total: np.ndarray) -> np.ndarray:
        parts = zip(cases, np.split(total, len(cases), axis=-1), strict=True)
        return np.mean([one.statistic(part) for one, part in parts], axis=0)

    sums: dict[Name, np.ndarray] = {
        name: np.concatenate([one.sums[name] for one in cases], axis=1) for name in DECODERS
    }
    return Case(cases[0].measure, sums, mean)


def _verdict(case: Case, point: Case) -> Verdict:
    """The ridge, unless a better decoder is surely not behind it: see docs/training.md for the rule and its reason.

    point: what decides, all coordinates of the point that the output is one of, or `case` itself.
    """
    if case.without:
        return Verdict(_first_but(case.lacks), f"not judged: {case.without}")
    lacks: list[Name] = [name for name in DECODERS if not np.isfinite(point.statistic(point.sums[name].sum(0)))]
    if lacks:
        who = f"{lacks[0]} has no" if len(lacks) < len(DECODERS) else "no decoder has a"
        of = "" if point is case else " of the whole point"
        return Verdict(_first_but(lacks), f"not judged: {who} finite score{of} there")
    few = len(case.sums["ridge"]) < bootstrap.RULES.least
    found: dict[Name, Score] = {}
    for name in DECODERS:
        value, low, high = bootstrap.interval(case.sums[name], case.statistic)
        found[name] = Score(value) if few else Score(value, low, high)
    neds, blend = (float(point.statistic(point.sums[name].sum(0))) for name in ("neds", "blend"))
    best: Name = "blend" if blend > neds else "neds"
    what = ("NEDS" if best == "neds" else "the blend") + (" of the whole point" if point is not case else "")
    gain = bootstrap.paired([point.sums[best]], point.sums["ridge"], point.statistic, level=LEVEL)
    said = f"{what} gains {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] ({LEVEL:g} %)"
    if not gain.value > 0.0:
        chosen, why = "ridge", "neither NEDS nor the blend is better"
    elif few:
        chosen, why = "ridge", f"too few trials or blocks to tell ({len(case.sums['ridge'])})"
    elif not gain.low > -MARGIN:
        chosen, why = "ridge", f"{said}, which may be a loss of over {MARGIN:g}"
    else:
        chosen, why = best, said
    return Verdict(chosen, why, case.measure, found, case.spread)


def _first_but(lacks: Sequence[Name]) -> Name:
    """The ridge, unless it is among `lacks` and another is not: what has no score is not put before what has one."""
    order: list[Name] = [name for name in ("ridge", *DECODERS) if name not in lacks]
    return order[0] if order else "ridge"


def lines(verdicts: dict[str, Verdict]) -> Iterator[str]:
    """A line for each output: what the decoders reach on validation, and what is recommended; none if not judged."""
    for name, verdict in verdicts.items():
        linear = "logistic" if verdict.measure == "balanced accuracy" else "ridge"
        names = {"neds": "NEDS", "ridge": linear, "blend": "blend"}
        each = [f"{names[k]} {s.value:.3f}{_limits(s)}" for k, s in verdict.scores.items()]
        said = f"{verdict.measure} on validation {', '.join(each)}; " if each else ""
        yield f"{name}: {said}recommended {names[verdict.recommended]}: {verdict.reason}"


def outcome(made: Checkpoint) -> list[str]:
    """What a training or a join ends with."""
    missing = "not judged: a network holds nothing of its validation part; train it again with this version"
    return list(lines(made.header.verdicts)) or [missing]


def _limits(score: Score) -> str:
    return "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
