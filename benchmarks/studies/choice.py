"""`neds-rt bench choice`: what these recordings can say of an animal's choice beyond the stimulus and the movement.

Five contiguous folds of the trials of each session; every fit, penalty and scale comes from the other four. A row
is scored on the trials that it names, and the decoders in it on the same trials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.accuracy import windowed
from benchmarks.accuracy.steinmetz import Bundle
from neds_core.linear import linear
from neds_core.scores import bootstrap, r2 as scores
from neds_core.scores.bootstrap import Interval

Row = dict[str, Any]
QUESTIONS = ("wheel_direction", "go")
DECODERS = ("stimulus", "neural", "stimulus + neural")
WINDOW_MS = 100
PENALTIES = (0.1, 1.0, 10.0)
SHARES = (1.0, 10.0)  # of the contrasts beside the counts, a column of each
FOLDS = 5
MIN_TRIALS = 5  # of each class among the scored trials of a session, and among what a fold trains on


@dataclass(frozen=True, slots=True)
class Rows:
    """One row: windows read (the first k), trials scored (S,) bool, and whether the training is of such trials only."""

    name: str
    windows: int
    scored: np.ndarray
    own: bool


def contrasts(bundle: Bundle) -> np.ndarray:
    """(S, F) one column for each contrast above 0 of each side."""
    columns = [
        bundle.contrast[:, side] == level
        for side in (0, 1)
        for level in np.unique(bundle.contrast[:, side])
        if level > 0
    ]
    return np.stack(columns, 1).astype(np.float32)


def rows_of(bundle: Bundle, n_windows: int) -> Iterator[Rows]:
    """The rows of a session. A go trial whose movement was not seen is in none of those about movement."""
    every = np.ones(len(bundle.contrast), bool)
    equal = bundle.contrast[:, 0] == bundle.contrast[:, 1]
    seen = np.isfinite(bundle.movement_ms) | (bundle.labels("go") == 1)
    end = n_windows * WINDOW_MS

    def later(than_ms: float) -> np.ndarray:
        return seen & (bundle.movement_ms > than_ms)

    yield Rows("all trials", n_windows, every, False)
    for k in range(1, n_windows):
        yield Rows(f"all trials, first {k * WINDOW_MS} ms", k, every, False)
    yield Rows("equal contrasts", n_windows, equal, False)
    yield Rows("equal contrasts, trained on such", n_windows, equal, True)
    yield Rows(f"movement after {end} ms", n_windows, later(end), False)
    yield Rows(f"movement after {end} ms, trained on such", n_windows, later(end), True)
    for k in range(1, n_windows):
        margin = (k + 1) * WINDOW_MS
        yield Rows(f"first {k * WINDOW_MS} ms, movement after {margin} ms", k, later(margin), True)
    yield Rows(f"equal contrasts, movement after {end} ms", n_windows, equal & later(end), False)


@dataclass(frozen=True, slots=True)
class Told:
    """One session, question and row: recall sums of the scored trials (n, 4) for each decoder."""

    session: int
    mouse: str
    sums: dict[str, np.ndarray]


class Decoded:
    """Cross-validated evidence of one session, each fit made once whichever rows ask for it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.counts = windowed.windows(bundle.session, WINDOW_MS)
        kept = bundle.session.counts.mean(0) > 0
        self.counts = self.counts[:, :, kept]
        self.contrasts = contrasts(bundle)
        self.fold = linear.folds(np.arange(len(self.counts)), FOLDS)
        self.made: dict[tuple[Any, ...], np.ndarray | None] = {}

    def evidence(self, question: str, decoder: str, row: Rows) -> np.ndarray | None:
        """(S,) evidence for class 1 of held-out trials; None where a fold has too little to train on."""
        trained = row.name if row.own else ""
        key = (question, decoder, row.windows if decoder != "stimulus" else 0, trained)
        if key not in self.made:
            self.made[key] = self._evidence(question, decoder, row)
        return self.made[key]

    def _evidence(self, question: str, decoder: str, row: Rows) -> np.ndarray | None:
        label = self.bundle.labels(question)
        use = row.scored if row.own else np.ones(len(label), bool)
        out = np.zeros(len(label))
        for held in self.fold:
            train = use & ~held
            if np.bincount(label[train & (label >= 0)], minlength=2).min() < MIN_TRIALS:
                return None
            told = windowed.inner(self.contrasts, train)
            seen = windowed.inner(self.counts[:, : row.windows].reshape(len(label), -1), train)
            kernels = {
                "stimulus": [told],
                "neural": [seen],
                "stimulus + neural": [seen + share * told for share in SHARES],
            }[decoder]
            out[held] = windowed.evidence(kernels, label, train, PENALTIES)[held]
        return out

    def told(self, session: int, question: str, row: Rows) -> Told | None:
        """Sums of every decoder on the row's trials; None where the session has too few of a class."""
        label = self.bundle.labels(question)
        scored = row.scored & (label >= 0)
        if np.bincount(label[scored], minlength=2).min() < MIN_TRIALS:
            return None
        sums = {}
        for decoder in DECODERS:
            said = self.evidence(question, decoder, row)
            if said is None:
                return None
            sums[decoder] = scores.recall_sums(label[scored], (said[scored] > 0).astype(np.int64), 2)
        return Told(session, self.bundle.mouse, sums)


def as_row(found: Interval) -> Row:
    """An interval as JSON."""
    return {"value": found.value, "low": found.low, "high": found.high}


def pooled(found: list[Told]) -> Row:
    """Means over sessions: mice are drawn, then sessions, then trials."""
    session = np.concatenate([np.full(len(one.sums["neural"]), one.session) for one in found])
    mouse = np.concatenate([np.full(len(one.sums["neural"]), one.mouse) for one in found])
    sums = {decoder: np.concatenate([one.sums[decoder] for one in found]) for decoder in DECODERS}
    of = scores.balanced_accuracy_of_sums
    return {
        "sessions": len(found),
        "mice": len(np.unique(mouse)),
        "trials": len(session),
        "chance": 0.5,
        **{d: as_row(bootstrap.hierarchical(sums[d], session, mouse, of)) for d in DECODERS},
        "gain": as_row(bootstrap.hierarchical_paired(sums["stimulus + neural"], sums["stimulus"], session, mouse, of)),
    }


def each(found: list[Told], bundles: list[Bundle]) -> list[Row]:
    """The same for each session by itself, trials drawn."""
    of = scores.balanced_accuracy_of_sums
    return [
        {
            "session": bundles[one.session].session.name,
            "trials": len(one.sums["neural"]),
            **{d: float(of(one.sums[d].sum(0))) for d in DECODERS},
            "gain": as_row(bootstrap.paired([one.sums["stimulus + neural"]], one.sums["stimulus"], of)),
        }
        for one in found
    ]


def bench(bundles: list[Bundle], say: Callable[[str], None]) -> Row:
    """Every question and row, pooled and by session, as one JSON object."""
    began = time.process_time()
    told: dict[tuple[str, str], list[Told]] = {}
    for number, bundle in enumerate(bundles):
        say(f"{number + 1}/{len(bundles)}: {bundle.session.name}")
        decoded = Decoded(bundle)
        for row in rows_of(bundle, decoded.counts.shape[1]):
            for question in QUESTIONS:
                found = decoded.told(number, question, row)
                told.setdefault((question, row.name), [])
                if found is not None:
                    told[question, row.name].append(found)
    return {
        "rows": [
            {"question": question, "row": name} | pooled(found) for (question, name), found in told.items() if found
        ],
        "empty": [{"question": q, "row": name} for (q, name), found in told.items() if not found],
        "sessions": [
            {"question": question, "row": name} | one
            for (question, name), found in told.items()
            for one in each(found, bundles)
        ],
        "cpu_minutes": (time.process_time() - began) / 60.0,
        "machine": machine.describe(),
    }


def lines(result: Row) -> list[str]:
    """The pooled tables for a terminal."""
    out = []
    for question in QUESTIONS:
        out += ["", f"{question.replace('_', ' ')}: balanced accuracy, mean over sessions [95 %]; chance 0.5"]
        out.append(f"{'':<46}{'sessions':>9}{'trials':>8}" + "".join(f"{d:>24}" for d in (*DECODERS, "gain")))
        for row in result["rows"]:
            if row["question"] == question:
                cells = "".join(f"{_cell(row[d]):>24}" for d in DECODERS) + f"{_cell(row['gain'], '+'):>24}"
                out.append(f"{row['row']:<46}{row['sessions']:>9}{row['trials']:>8}{cells}")
    return [*out, "", "gain: stimulus + neural minus stimulus, on the same trials"]


def _cell(found: Row, sign: str = "") -> str:
    return f"{found['value']:{sign}.3f} [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"
