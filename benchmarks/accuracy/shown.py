"""A part of a recording as it was measured and as decoders said it: what training kept, or what evaluate streamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec, Session
from neds_core.scores import bootstrap, judging
from neds_core.scores.points import groups
from neds_core.scores.r2 import guess
from runtime.core.engine import BROUGHT, DECODERS, RECOMMENDED
from runtime.engines.create import published
from runtime.engines.layout import layout
from runtime.scoring.points import score_points
from runtime.scoring.seeds import SeedScores
from runtime.scoring.truth import Truth

MOST_SEGMENTS, MOST_S = 20, 60.0  # of a part that are drawn: its first

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Guesses:
    """Classes at the last bins of S segments: label (S,) int64; each decoder's guess (S,); -1 = not known."""

    label: np.ndarray
    said: dict[str, np.ndarray]

    def table(self, decoder: str, n_classes: int) -> np.ndarray:
        """(C, C): segments of each class (rows) by what was said (columns)."""
        known = (self.label >= 0) & (self.said[decoder] >= 0)
        found = np.zeros((n_classes, n_classes), np.int64)
        np.add.at(found, (self.label[known], self.said[decoder][known]), 1)
        return found

    def missing(self, decoder: str) -> int:
        """Labelled segments that `table` leaves out: the decoder has no value of them."""
        return int(((self.label >= 0) & (self.said[decoder] < 0)).sum())


@dataclass(frozen=True, slots=True)
class Shown:
    """n decoded bins of a part, in time order; arrays by the name of a trace, in its unit.

    bins (n,): in the recording; segment (n,): changes where a segment begins; measured (n,), NaN = not known; said:
    decoder -> (n,); guesses: of each class with measured labels; r2: of each trace and decoder over the whole part;
    points: rows of `score_points` by group. main: of each output the decoder that a run publishes; NEDS where it is
    not named.
    """

    part: str
    specs: tuple[BehaviourSpec, ...]
    bin_ns: int
    bins: np.ndarray
    segment: np.ndarray
    measured: dict[str, np.ndarray]
    said: dict[str, dict[str, np.ndarray]]
    guesses: dict[str, Guesses]
    r2: dict[str, dict[str, float]]
    points: dict[str, Row]
    main: dict[str, str] = field(default_factory=dict)

    def drawn(self, name: str) -> tuple[str, ...]:
        """The decoders of an output that pictures have: the one that is published, and the ridge beside it."""
        main = self.main.get(name, "neds")
        return (main,) if main == BROUGHT else (main, "neds" if main == "ridge" else "ridge")

    def stretch(self) -> np.ndarray:
        """(m,) rows of the part's first segments, a minute at most: what is drawn of it."""
        first = np.unique(self.segment)[:MOST_SEGMENTS]
        return np.flatnonzero(np.isin(self.segment, first))[: round(MOST_S * 1e9 / self.bin_ns)]

    def t_s(self, rows: np.ndarray) -> np.ndarray:
        """(m,) right edges of the bins in seconds of the recording."""
        return (self.bins[rows] + 1) * (self.bin_ns * 1e-9)

    def starts(self, rows: np.ndarray) -> np.ndarray:
        """Which of the rows begin a segment, the first aside; also where bins of a segment are missing."""
        new = (np.diff(self.segment[rows]) != 0) | (np.diff(self.bins[rows]) > 1)
        return np.flatnonzero(new) + 1

    def lines(self, name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of a trace: measured, and each decoder that is drawn."""
        said = {d: self.said[d][name][rows] for d in self.drawn(name) if d in self.said}
        return {"measured": self.measured[name][rows]} | said

    def points_of(self, group: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of a group of K traces: measured and decoded (m, K)."""
        names = [spec.name for spec in groups(self.specs)[group]]
        each = [self.lines(name, rows) for name in names]
        return {line: np.stack([one[line] for one in each], axis=1) for line in each[0]}


def of_training(made: Checkpoint, validation: Session) -> Shown | None:
    """The validation part, by what the checkpoint keeps of it; None where it keeps nothing.

    validation: that part, each output looked ahead in as the checkpoint does. Nothing of another part is read.
    """
    judged, bins = made.judged, validation.bins()
    if judged is None or len(judged.segment) != len(bins):
        return None
    said: dict[str, dict[str, np.ndarray]] = {name: {} for name in DECODERS}
    guesses: dict[str, Guesses] = {}
    for spec in made.specs:
        values: Mapping[Any, np.ndarray] = judging.values(judged, spec.name, judging.shares_of(made, spec.name))
        if spec.kind == "continuous":
            for name in DECODERS:
                said[name][spec.name] = values[name]
        elif spec.labels == "measured":
            prior = np.array(made.header.prior[spec.name])
            guesses[spec.name] = Guesses(
                judged.target[spec.name].astype(np.int64), {n: guess(v, prior) for n, v in values.items()}
            )
    measured = {name: judged.target[name].astype(np.float64) for name in said["ridge"]}
    verdicts = made.header.verdicts.items()
    r2 = {n: {str(d): s.value for d, s in v.scores.items()} for n, v in verdicts if v.measure == "R2"}
    return Shown(
        "validation part", made.specs, made.header.bin_ns, bins, judged.segment, measured, said, guesses, r2,
        _points(made, judged.segment, measured, said), _main(made),
    )  # fmt: skip


def _main(made: Checkpoint) -> dict[str, str]:
    return {spec.name: published(made, RECOMMENDED, spec.name) for spec in made.specs}


def _points(
    made: Checkpoint, segment: np.ndarray, measured: dict[str, np.ndarray], said: dict[str, dict[str, np.ndarray]]
) -> dict[str, Row]:
    """Median errors of points and angles."""
    where, n = layout(made), len(segment)
    values = {name: np.full((n, where.n_values), np.nan) for name in said}
    for name, of in said.items():
        for output, value in of.items():
            values[name][:, where.columns[output].start] = value
    trial = bootstrap.RULES.groups(segment, made.header.bin_ns)
    return score_points(where, values, Truth(measured, {}), trial, made.header.bin_ns)


def of_scores(scores: SeedScores, pooled: Row, part: str) -> Shown:
    """The part that `neds-rt evaluate` streamed. pooled: its scores, of which this checkpoint's are the first."""
    made, where = scores.checkpoint, layout(scores.checkpoint)
    decoders = [name for name in (*DECODERS, BROUGHT) if name in scores.found]
    traces = [spec.name for spec in where.specs if spec.kind == "continuous" and spec.name in scores.truth.traces]
    said = {d: {n: scores.found[d][:, where.columns[n].start].astype(float) for n in traces} for d in decoders}
    last = np.r_[scores.segment[1:] != scores.segment[:-1], True]
    guesses = {}
    for spec in where.specs:
        if spec.kind == "class" and spec.labels == "measured" and spec.name in scores.truth.labels:
            prior, columns = made.scalers.prior[spec.name], where.columns[spec.name]
            guesses[spec.name] = Guesses(
                scores.truth.labels[spec.name][last],
                {d: guess(scores.found[d][last][:, columns], prior) for d in decoders},
            )
    r2 = {}
    for name, row in pooled["traces"].items():
        r2[name] = {d: row[d][0] if isinstance(row[d], list) else row[d] for d in decoders if d in row}
    points = {name: scores.outputs[name] for name in groups(where.specs) if name in scores.outputs}
    measured, bin_ns = scores.truth.traces, made.header.bin_ns
    return Shown(
        part, where.specs, bin_ns, scores.bins, scores.segment, measured, said, guesses, r2, points, _main(made)
    )  # fmt: skip
