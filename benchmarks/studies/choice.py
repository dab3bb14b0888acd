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
from benchmarks.accuracy.mice.questions import DECODERS, MIN_TRIALS, QUESTIONS, WINDOW_MS, Evidence, Rows
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.intervals import words
from neds_core.scores import bootstrap, r2 as scores

Row = dict[str, Any]


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


def told(evidence: Evidence, session: int, question: str, row: Rows) -> Told | None:
    """Sums of every decoder on the row's trials; None where the session has too few of a class."""
    label = evidence.bundle.labels(question)
    scored = row.scored & (label >= 0)
    if np.bincount(label[scored], minlength=2).min() < MIN_TRIALS:
        return None
    sums = {}
    for decoder in DECODERS:
        said = evidence.of(question, decoder, row)
        if said is None:
            return None
        sums[decoder] = scores.recall_sums(label[scored], (said[scored] > 0).astype(np.int64), 2)
    return Told(session, evidence.bundle.mouse, sums)


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
        **{d: bootstrap.hierarchical(sums[d], session, mouse, of)._asdict() for d in DECODERS},
        "gain": bootstrap.hierarchical_paired(
            sums["stimulus + neural"], sums["stimulus"], session, mouse, of
        )._asdict(),
    }


def each(found: list[Told], bundles: list[Bundle]) -> list[Row]:
    """The same for each session by itself, trials drawn."""
    of = scores.balanced_accuracy_of_sums
    return [
        {
            "session": bundles[one.session].session.name,
            "trials": len(one.sums["neural"]),
            **{d: float(of(one.sums[d].sum(0))) for d in DECODERS},
            "gain": bootstrap.paired([one.sums["stimulus + neural"]], one.sums["stimulus"], of)._asdict(),
        }
        for one in found
    ]


def bench(bundles: list[Bundle], say: Callable[[str], None]) -> Row:
    """Every question and row, pooled and by session, as one JSON object."""
    began = time.process_time()
    rows: dict[tuple[str, str], list[Told]] = {}
    for number, bundle in enumerate(bundles):
        say(f"{number + 1}/{len(bundles)}: {bundle.session.name}")
        evidence = Evidence(bundle)
        for row in rows_of(bundle, evidence.counts.shape[1]):
            for question in QUESTIONS:
                found = told(evidence, number, question, row)
                rows.setdefault((question, row.name), [])
                if found is not None:
                    rows[question, row.name].append(found)
    return {
        "rows": [
            {"question": question, "row": name} | pooled(found) for (question, name), found in rows.items() if found
        ],
        "empty": [{"question": q, "row": name} for (q, name), found in rows.items() if not found],
        "sessions": [
            {"question": question, "row": name} | one
            for (question, name), found in rows.items()
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
                cells = "".join(f"{words(row[d]):>24}" for d in DECODERS) + f"{words(row['gain'], '+'):>24}"
                out.append(f"{row['row']:<46}{row['sessions']:>9}{row['trials']:>8}{cells}")
    return [*out, "", "gain: stimulus + neural minus stimulus, on the same trials"]
