"""`neds_core.score`: what a decoder is worth beside the ridge, with intervals paired by trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Name
from neds_core.data import lead, summary
from neds_core.data.session import BehaviourSpec, Session, content
from neds_core.errors import DataError
from neds_core.linear.baseline import decision_bins
from neds_core.public.decode import Decoded, decode, part_of
from neds_core.public.given import session_of, sha_of
from neds_core.scores import bootstrap, points, r2 as scores
from neds_core.scores.bootstrap import RULES, Interval

LEAST_BINS = 25  # measured bins below which a trace is not scored
NOTHING = Interval(np.nan, np.nan, np.nan)
GAINS = ("neds", "blend")


@dataclass(frozen=True, slots=True)
class Score:
    """One output's scores on n bins (of a class: trials). measure: what they are.

    "R2" of a trace; "median error" of an angle (unit deg) or of a point (distance, in its unit), where less is better;
    "balanced accuracy" of a class, whose `chance` is given. each: decoder -> its score with its 95 % interval.
    minus_ridge: "neds" and "blend" minus the linear decoder, on the same trials. Limits are NaN under 5 trials or
    blocks of 10 s. recommended: what a run publishes. without: why there is no score, "" = there is one.
    """

    measure: str
    n: int
    unit: str = ""
    recommended: Name = "neds"
    each: dict[str, Interval] = field(default_factory=dict)
    minus_ridge: dict[str, Interval] = field(default_factory=dict)
    chance: float = float("nan")
    without: str = ""

    @property
    def neds(self) -> Interval:
        """Of NEDS."""
        return self.each.get("neds", NOTHING)

    @property
    def ridge(self) -> Interval:
        """Of the causal linear decoder."""
        return self.each.get("ridge", NOTHING)

    @property
    def blend(self) -> Interval:
        """Of both together."""
        return self.each.get("blend", NOTHING)


@dataclass(frozen=True, slots=True, repr=False)
class Scores:
    """Scores of one part of a recording, by output, point, angle or contrast of a class. As text, two lines for each.

    note: what a reader has to know of the part, "" = nothing.
    """

    recording: str
    part: str
    note: str
    outputs: dict[str, Score]

    def __getitem__(self, name: str) -> Score:
        """The scores of one output. Raises `KeyError` with the names that are there."""
        if name not in self.outputs:
            raise KeyError(f"{name!r} was not scored; there are {', '.join(self.outputs)}")
        return self.outputs[name]

    def __repr__(self) -> str:
        rows = ["\n  ".join([f"{name}: {said}", *more]) for name, (said, *more) in self._lines()]
        return "\n".join([self._title(), *([self.note] if self.note else []), *rows])

    def _repr_html_(self) -> str:
        """The same as a table, for a notebook."""
        note = [("note", self.note)] if self.note else []
        return summary.table(self._title(), [*note, *((name, "; ".join(said)) for name, said in self._lines())])

    def _lines(self) -> list[tuple[str, list[str]]]:
        """The lines of each output by its name."""
        return [(name, _said(score)) for name, score in self.outputs.items()]

    def _title(self) -> str:
        return f"{self.recording}, {'whole recording' if self.part == 'all' else f'{self.part} part'}"


def score(checkpoint: Checkpoint | Decoded | str | Path, session: Session | str | Path) -> Scores:
    """Score decoders on the last 20 % of a recording, which neither training nor choice has seen, beside the ridge.

    The numbers are those of `neds-rt evaluate`. Traces: R2 (docs/glossary.md). Points and angles: the median of the
    distance in their unit, or of the angle between in degrees. Classes: balanced accuracy at the last bins of trials,
    of each contrast where such are declared; inferred labels are not scored. Intervals are 95 % percentiles over
    resampled trials, or blocks of 10 s of a continuous recording; differences from the ridge are of the same resamples.

    checkpoint: what `fit` or `decode` returned, or the path of a checkpoint. A `Decoded` is scored on its own part;
    `note` says where that part is no evidence, or where that is not known: a recording is known by the SHA-256 of its
    file, or of what it would be saved as, and not by its name. session: a `Session`, or the path of a `Session.npz`.
    Raises `DataError` for another recording than was decoded, for a part with bins that a decoder has no value of, and
    what `decode` raises.
    """
    whole = session_of(session)
    decoded = checkpoint if isinstance(checkpoint, Decoded) else decode(checkpoint, whole)
    made = decoded.checkpoint
    if (decoded.recording, len(decoded.t_s)) != (whole.name, whole.n_bins):
        raise DataError(
            f"decoded were {len(decoded.t_s)} bins of {decoded.recording!r}, and this is {whole.name!r} with "
            f"{whole.n_bins}; give the recording that was decoded"
        )
    if decoded.content != content(whole):
        raise DataError(
            f"recording {whole.name!r} holds something else than when it was decoded; decode it again, or give the "
            "recording that was decoded"
        )
    part = lead.ahead(part_of(whole, decoded.part), lead.of(made.specs))
    bins = part.bins()
    _refuse_beyond(decoded, bins)
    trial = RULES.groups(part.segment_of(bins), part.bin_ns)
    found: dict[str, Score] = {}
    for spec in made.specs:
        said = {name: values[spec.name][bins].astype(np.float64) for name, values in decoded.said.items()}
        measured = part.values[spec.name][bins] if spec.name in part.values else None
        chosen = decoded.recommended[spec.name]
        if measured is None:
            found[spec.name] = Score("", 0, recommended=chosen, without="it is not in this recording")
        elif spec.kind == "continuous":
            found[spec.name] = _trace(measured.astype(np.float64), said, trial, chosen)
        else:
            last = decision_bins(part, bins)
            at_end = {name: v[last] for name, v in said.items()}
            found |= _class(spec, measured[last], at_end, made.scalers.prior[spec.name], chosen)
    for group, members in points.groups(made.specs).items():
        if all(s.name in part.values for s in members):
            target = np.stack([part.values[s.name][bins] for s in members], axis=1).astype(np.float64)
            said = {k: np.stack([v[s.name][bins] for s in members], axis=1) for k, v in decoded.said.items()}
            found[group] = _point(members[0], target, said, trial, decoded.recommended[members[0].name])
    return Scores(whole.name, decoded.part, _note(made, decoded, whole), found)


def _refuse_beyond(decoded: Decoded, bins: np.ndarray) -> None:
    """Raise `DataError` where bins (n,) of the part have no value of a decoder: a score of the others is not of it."""
    model = decoded.checkpoint.header.config.model
    for decoder, said in decoded.said.items():
        for name, values in said.items():
            missing = int((~np.isfinite(values[bins].reshape(len(bins), -1))).any(1).sum())
            if missing:
                full = f"segments are longer than its {model.window_bins} bins; raise model.window_bins and train again"
                why = full if model.attention == "full" else "its weights are not finite; train it again"
                raise DataError(f"{decoder} has no value of {name} in {missing} of {len(bins)} bins: {why}")


def _note(made: Checkpoint, decoded: Decoded, whole: Session) -> str:
    """What is known of the recording by the SHA-256 of its file: names are shared between days."""
    trained = made.header.record
    if sha_of(whole) == trained.recording_sha:
        said = f"trained on or chosen by bins of this part ({decoded.part}): these scores are no evidence of skill"
        return "" if decoded.part == "test" else said
    if trained.recording == whole.name or not whole.of_file():
        return (
            f"not known whether this part ({decoded.part}) was trained on: the recording is not the file that the "
            "decoder was trained on, and may hold the same bins"
        )
    if decoded.part == "test":
        return 'not the recording that was trained on: decode(..., part="all") scores the whole of it'
    return ""


def _trace(y: np.ndarray, said: dict[str, np.ndarray], trial: np.ndarray, recommended: Name) -> Score:
    """R2. y (n,), NaN = unknown; said: decoder -> (n,); trial (n,): what is drawn together."""
    known = np.isfinite(y)
    y, group = y[known], trial[known]
    if len(y) < LEAST_BINS or float(np.ptp(y)) == 0.0:
        why = f"measured in {len(y)} bins, {LEAST_BINS} are needed" if len(y) < LEAST_BINS else "it did not vary"
        return Score("R2", len(y), recommended=recommended, without=why)
    sums = {name: scores.r2_sums(y, v[known], group) for name, v in said.items()}
    each = {
        name: Interval(scores.r2(y, v[known]), *bootstrap.interval(sums[name], scores.r2_of_sums)[1:])
        for name, v in said.items()
    }
    gains = _gains(sums, scores.r2_of_sums)
    return _limited(Score("R2", len(y), "", recommended, each, gains), group)


def _class(
    spec: BehaviourSpec, label: np.ndarray, said: dict[str, np.ndarray], prior: np.ndarray, recommended: Name
) -> dict[str, Score]:
    """Balanced accuracy of each contrast, or of the class. label (S,) of the trials, -1 = unknown; said: (S, C)."""
    measure = "balanced accuracy"
    known = (label >= 0) & np.isfinite(said[recommended]).all(1)
    if spec.labels == "inferred" or not known.any():
        why = (spec.labels_note or "its labels were inferred") if spec.labels == "inferred" else "no trial is labelled"
        return {spec.name: Score(measure, int(known.sum()), recommended=recommended, without=why)}
    y, given = label[known], {name: v[known] for name, v in said.items()}
    if not spec.contrasts:
        guesses = {name: scores.guess(v, prior) for name, v in given.items()}
        return {spec.name: _accuracy(y, guesses, len(spec.classes), recommended)}
    found = {}
    for name, pair in spec.contrasts.items():
        first, second = (np.isin(y, [spec.classes.index(c) for c in side]) for side in pair)
        inside = first | second
        guesses = {k: scores.contrast(v[inside], prior, spec.classes, pair) for k, v in given.items()}
        found[f"{spec.name} {name}"] = _accuracy(second[inside].astype(np.int64), guesses, 2, recommended)
    return found


def _accuracy(y: np.ndarray, guesses: dict[str, np.ndarray], n_classes: int, recommended: Name) -> Score:
    """Balanced accuracy over trials. y (n,) and guesses (n,): classes by index."""
    if len(np.unique(y)) < 2:
        why = "the trials are all of one class" if len(y) else "no trial is of these classes"
        return Score("balanced accuracy", len(y), recommended=recommended, chance=1 / n_classes, without=why)
    sums = {name: scores.recall_sums(y, guess, n_classes) for name, guess in guesses.items()}
    each = {name: bootstrap.interval(s, scores.balanced_accuracy_of_sums) for name, s in sums.items()}
    gains = _gains(sums, scores.balanced_accuracy_of_sums)
    made = Score("balanced accuracy", len(y), "", recommended, each, gains, 1 / n_classes)
    return _limited(made, np.arange(len(y)))


def _point(
    spec: BehaviourSpec, target: np.ndarray, said: dict[str, np.ndarray], trial: np.ndarray, recommended: Name
) -> Score:
    """Median error of a point or an angle. spec: one of its outputs; target and said (n, K), NaN = unknown."""
    known = np.isfinite(target).all(1)
    between, unit = (points.turn_deg, "deg") if spec.angle else (points.distance, spec.unit)
    if not known.any():
        return Score("median error", 0, unit, recommended, without="it was not measured")
    group = trial[known]
    found = {name: points.median(between(target, v.astype(np.float64))[known], group) for name, v in said.items()}
    each = {name: points.pooled([one]) for name, one in found.items()}
    gains: dict[str, Interval] = {name: points.paired([found[name]], [found["ridge"]]) for name in GAINS}
    return _limited(Score("median error", int(known.sum()), unit, recommended, each, gains), group)


def _gains(sums: dict[str, np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]) -> dict[str, Interval]:
    """Of NEDS and the blend over the linear decoder, both on the same resampled trials."""
    return {name: bootstrap.paired([sums[name]], sums["ridge"], statistic) for name in GAINS}


def _limited(found: Score, group: np.ndarray) -> Score:
    """The same, its intervals without limits where there are too few trials or blocks to resample."""
    if RULES.enough(group):
        return found
    each, gains = (
        {name: Interval(one.value, np.nan, np.nan) for name, one in kept.items()}
        for kept in (found.each, found.minus_ridge)
    )
    return replace(found, each=each, minus_ridge=gains)


def _said(score: Score) -> list[str]:
    """A score in words: what each decoder has, and what it gains."""
    if score.without:
        return [f"not scored: {score.without}"]
    digits = 1 if score.measure == "median error" else 3
    linear = "logistic" if score.measure == "balanced accuracy" else "ridge"
    names: dict[str, str] = {"neds": "NEDS", "ridge": linear, "blend": "blend"}
    each = ", ".join(f"{names[k]} {one.value:.{digits}f} {_range(one, digits)}" for k, one in score.each.items())
    gains = ", ".join(
        f"{names[k]} minus {linear} {one.value:+.{digits}f} {_range(one, digits)}"
        for k, one in score.minus_ridge.items()
    )
    unit = f" in {score.unit}" if score.unit else ""
    chance = f", chance {score.chance:.2f}" if np.isfinite(score.chance) else ""
    return [f"{score.measure}{unit} {each}{chance}", f"{gains}, n {score.n}, recommended {names[score.recommended]}"]


def _range(one: Interval, digits: int) -> str:
    known = np.isfinite(one.low) and np.isfinite(one.high)
    return f"[{one.low:.{digits}f}, {one.high:.{digits}f}]" if known else "[too few trials or blocks]"
