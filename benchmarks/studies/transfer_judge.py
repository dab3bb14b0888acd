"""What `neds-rt bench transfer` asks of a decoder that was trained on the first trials of a session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from benchmarks.accuracy.mice import windowed
from benchmarks.accuracy.mice.steinmetz import OUTPUTS
from neds_core.config import LinearConfig
from neds_core.data import scalers, session as sessions
from neds_core.data.ceiling import Ceiling
from neds_core.data.session import Session
from neds_core.linear import baseline
from neds_core.model import directions
from neds_core.model.batches import Cutter
from neds_core.model.model import NEDS
from neds_core.scores import bits, bootstrap, encoding, r2 as scores
from neds_core.scores.encoding import Target
from neds_core.train import loop
from neds_core.train.sources import Source

ENCODE = "bits_per_spike"
ALL = 0  # instead of a number of trials: all of the first 70 %

Sums = dict[str, np.ndarray]  # target -> rows of trials, see `Asked.statistics`


class Asked(Struct, frozen=True):
    """What a network is trained on, and which of it is judged: two-way classes at a trial's last bin, traces at all."""

    outputs: tuple[str, ...] = OUTPUTS
    classes: tuple[str, ...] = ("wheel_direction", "go")
    traces: tuple[str, ...] = ()

    @property
    def statistics(self) -> dict[str, bootstrap.Statistic]:
        """The score of each target; encoding is always one."""
        return {
            **dict.fromkeys(self.classes, scores.balanced_accuracy_of_sums),
            **dict.fromkeys(self.traces, scores.r2_of_sums),
            ENCODE: bits.bits_of_sums,
        }


def first_trials(part: Session, n: int) -> Session:
    """The first n trials of a part; all for `ALL`."""
    many = len(part.segments) if n == ALL else min(n, len(part.segments))
    return sessions.select(part, slice(many))


def labels(part: Session, output: str) -> np.ndarray:
    """(S,) int64 of the part's trials, -1 = undefined."""
    return part.values[output][part.segments[:, 0]]


@dataclass(frozen=True, slots=True)
class Judge:
    """One later part of a session (validation or test), and the training trials that scalers and nulls come from."""

    asked: Asked
    source: Source
    part: Session
    bins: np.ndarray  # (n,) of the part
    trial: np.ndarray  # (n,)
    goal: Target

    def neds(self, model: NEDS) -> Sums:
        """A class is read at the trial's last bin, about its training prior; rates are read from the outputs."""
        said, scale = loop.decode(model, self.part), self.source.scale
        last = np.cumsum(np.diff(self.part.segments)) - 1
        guess = {name: (said[name][last] / scale.prior[name]).argmax(1) for name in self.asked.classes}
        value = {name: said[name] * scale.sd[name] + scale.mean[name] for name in self.asked.traces}
        return self.sums(guess, value, self.goal.of(self._rates(model)))

    def sums(self, guess: dict[str, np.ndarray], value: dict[str, np.ndarray], rates: np.ndarray) -> Sums:
        """guess: class of each trial (S,); value: a trace's at each bin (n,); rates: of the scored units, (n, U')."""
        found = {}
        for name in self.asked.classes:
            label = labels(self.part, name)
            known = label >= 0
            found[name] = scores.recall_sums(label[known], guess[name][known], 2)
        for name in self.asked.traces:
            measured = self.part.values[name][self.bins].astype(np.float64)
            found[name] = scores.r2_sums(measured, value[name].astype(np.float64), self.trial)
        return found | {ENCODE: self.goal.sums(rates)}

    def _rates(self, model: NEDS) -> np.ndarray:
        """(bins, U) from the outputs; trials of the same labels have the same, so each kind is computed once."""
        if self.asked.traces:  # no two trials are alike
            kinds = np.arange(len(self.part.segments))
        else:
            kinds = np.stack([labels(self.part, name) for name in self.asked.outputs], 1)
        _, example, kind = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        spans = [(int(a), int(b)) for a, b in self.part.segments[example]]
        cutter = Cutter(self.part, model.specs, self.source.scale)
        rates = directions.encode(model, cutter, spans, self.asked.outputs)
        return rates.reshape(len(spans), -1, rates.shape[1])[kind.ravel()].reshape(-1, rates.shape[1])


@dataclass(frozen=True, slots=True)
class Case:
    """The first trials of a session as training sees them, and its two judges."""

    whole: Session
    source: Source
    validation: Judge
    test: Judge

    def plain(self, clock_bins: int) -> tuple[Sums, Sums]:
        """Rows of validation and test without a network: logistic on counts in 100 ms windows for a class, the causal
        ridge for a trace, and the trial average for rates.

        The training trials alone fit, scale and choose.
        """
        train, asked = self.source.train, self.validation.asked
        specs = tuple(train.spec(name) for name in asked.traces)
        ridge = baseline.fit(train, specs, self.source.scale, LinearConfig(), clock_bins) if specs else {}
        kept = self.source.scale.kept
        seen = np.isin(self.whole.segments[:, 0], self.source.train.segments[:, 0])
        windows = windowed.windows(self.whole)[:, :, kept]
        kernel = windowed.inner(windows.reshape(len(windows), -1), seen)
        said = {name: windowed.evidence([kernel], labels(self.whole, name), seen) for name in asked.classes}

        def of(judge: Judge) -> Sums:
            rows = np.isin(self.whole.segments[:, 0], judge.part.segments[:, 0])
            guess = {name: (evidence[rows] > 0).astype(np.int64) for name, evidence in said.items()}
            value = {name: baseline.predict(one, judge.part, kept, "continuous") for name, one in ridge.items()}
            return judge.sums(guess, value, judge.goal.average)

        return of(self.validation), of(self.test)

    def known(self, ceiling: Ceiling) -> tuple[Sums, Sums]:
        """Rows of validation and test of whoever knows how a made-up recording was made: its filter, its true rates."""

        def of(judge: Judge) -> Sums:
            last = judge.part.segments[:, 1] - 1
            guess = {name: ceiling.choice[last].argmax(1) for name in judge.asked.classes}
            value = {name: ceiling.traces[name][judge.bins] for name in judge.asked.traces}
            return judge.sums(guess, value, judge.goal.of(ceiling.rates[judge.bins]))

        return of(self.validation), of(self.test)


def case(whole: Session, asked: Asked, trials: int, min_rate_hz: float) -> Case:
    """Train on the first `trials` of the first 70 %, judge on the next 10 % and the last 20 %."""
    parts = sessions.split(whole)
    few = first_trials(parts.train, trials)
    source = Source(few, None, scalers.fit(few, few.specs, min_rate_hz))

    def judge(part: Session) -> Judge:
        bins = directions.bins_of(directions.spans_of(part))
        trial = part.segment_of(bins)
        return Judge(asked, source, part, bins, trial, encoding.target(few, part, bins, trial))

    return Case(whole, source, judge(parts.validation), judge(parts.test))
