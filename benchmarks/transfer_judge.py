"""What `neds-rt bench transfer` asks of a decoder that was trained on the first trials of a session."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks import windowed
from benchmarks.steinmetz import OUTPUTS
from neds_core import bootstrap, directions, encoding, encoding_scores, scalers, scores, session as sessions, train
from neds_core.encoding import Target
from neds_core.model import NEDS
from neds_core.session import Session
from neds_core.sources import Source
from neds_core.windows import Windows

CLASSES = ("wheel_direction", "go")
ENCODE = "bits_per_spike"
STATISTICS: dict[str, bootstrap.Statistic] = {
    **dict.fromkeys(CLASSES, scores.balanced_accuracy_of_sums),
    ENCODE: encoding_scores.bits_of_sums,
}
ALL = 0  # instead of a number of trials: all of the first 70 %

Sums = dict[str, np.ndarray]  # target -> rows of trials, see `STATISTICS`


def first_trials(part: Session, n: int) -> Session:
    """The first n trials of a part; all for `ALL`."""
    many = len(part.segments) if n == ALL else min(n, len(part.segments))
    return replace(part, segments=part.segments[:many], segment_ids=part.segment_ids[:many])


def labels(part: Session, output: str) -> np.ndarray:
    """(S,) int64 of the part's trials, -1 = undefined."""
    return part.values[output][part.segments[:, 0]]


@dataclass(frozen=True, slots=True)
class Judge:
    """One later part of a session (validation or test), and the training trials that scalers and nulls come from."""

    source: Source
    part: Session
    goal: Target

    def neds(self, model: NEDS) -> Sums:
        """A class is read at the trial's last bin, about its training prior; rates are read from the labels."""
        said = train.decode(model, self.part)
        last = np.cumsum(np.diff(self.part.segments)) - 1
        prior = self.source.scale.prior
        guess = {name: (said[name][last] / prior[name]).argmax(1) for name in CLASSES}
        return self._sums(guess, self.goal.of(self._rates(model)))

    def plain(self, evidence: dict[str, np.ndarray]) -> Sums:
        """Of a logistic regression's evidence for class 1 on this part (S,), and of the training trials' average."""
        return self._sums({name: (said > 0).astype(np.int64) for name, said in evidence.items()}, self.goal.average)

    def _sums(self, guess: dict[str, np.ndarray], rates: np.ndarray) -> Sums:
        found = {}
        for name in CLASSES:
            label = labels(self.part, name)
            known = label >= 0
            found[name] = scores.recall_sums(label[known], guess[name][known], 2)
        return found | {ENCODE: self.goal.sums(rates)}

    def _rates(self, model: NEDS) -> np.ndarray:
        """(bins, U) from the labels; trials of the same labels have the same, so each kind is computed once."""
        kinds = np.stack([labels(self.part, name) for name in OUTPUTS], 1)
        _, example, kind = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        spans = [(int(a), int(b)) for a, b in self.part.segments[example]]
        rates = directions.encode(model, Windows(self.part, model.specs, self.source.scale), spans, OUTPUTS)
        return rates.reshape(len(spans), -1, rates.shape[1])[kind.ravel()].reshape(-1, rates.shape[1])


@dataclass(frozen=True, slots=True)
class Case:
    """The first trials of a session as training sees them, and its two judges."""

    whole: Session
    source: Source
    validation: Judge
    test: Judge

    def logistic(self) -> tuple[Sums, Sums]:
        """Rows of validation and test without a network: logistic on counts in 100 ms windows, and the trial average.

        The training trials alone fit, scale and choose.
        """
        seen = np.isin(self.whole.segments[:, 0], self.source.train.segments[:, 0])
        windows = windowed.windows(self.whole)[:, :, self.source.scale.kept]
        kernel = windowed.inner(windows.reshape(len(windows), -1), seen)
        said = {name: windowed.evidence([kernel], labels(self.whole, name), seen) for name in CLASSES}

        def of(judge: Judge) -> Sums:
            rows = np.isin(self.whole.segments[:, 0], judge.part.segments[:, 0])
            return judge.plain({name: evidence[rows] for name, evidence in said.items()})

        return of(self.validation), of(self.test)


def case(whole: Session, trials: int, min_rate_hz: float) -> Case:
    """Train on the first `trials` of the first 70 %, judge on the next 10 % and the last 20 %."""
    parts = sessions.split(whole)
    few = first_trials(parts.train, trials)
    source = Source(few, None, scalers.fit(few, few.specs, min_rate_hz))

    def judge(part: Session) -> Judge:
        bins = directions.bins_of(directions.spans_of(part))
        trial = np.searchsorted(part.segments[:, 0], bins, side="right")
        return Judge(source, part, encoding.target(few, part, bins, trial))

    return Case(whole, source, judge(parts.validation), judge(parts.test))
