"""How often the gate is wrong: `python -m benchmarks.studies.gate [--sessions 200] [--out FILE.json]`.

The judging step alone, on simulated values with a known true skill: no network is trained. A trace is a stationary
autoregressive process of each trial (0.9 a bin, 40 bins of 20 ms); a decoder of true R2 s says `s y + e`, e of variance
s (1 - s) + 0.01 and as slow as the trace, so that a trial is worth what it is worth on a rig. (What 0.01 costs is what
fitting costs: a decoder that knows nothing has an R2 of -0.01.) Two decoders share half of the variance of e. A class
is a label a trial; a decoder of accuracy a is right in a share a of trials. The constant knows the mean.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.machine import describe
from calibration.judge import CONSTANT, Case, complete, offer
from neds_core.checkpoint.judged import Offer
from neds_core.scores import r2 as scores

BINS, KEEP, COST = 40, 0.9, 0.01
TRIALS = (6, 12, 24, 48)  # that judge: 20 % of sessions of 34, 64, 124 and 244
TRACES = ((0.0, 0.0), (0.05, 0.05), (0.2, 0.2), (0.2, 0.3), (0.3, 0.2))  # true R2 of NEDS and ridge
CLASSES = ((0.5, 0.5), (0.65, 0.65), (0.7, 0.8), (0.8, 0.7), (0.95, 0.95))  # accuracy
WORDS = ("PASS", "RIDGE", "NEED", "REFUSE")


class Row(Struct, frozen=True):
    """Shares of the words that one pair of true skills got. false_pass: see `passes_wrongly`; false_refuse: REFUSE
    though one of them is above chance."""

    kind: str
    neds: float
    ridge: float
    trials: int
    share: dict[str, float]
    false_pass: float
    false_refuse: float


class Result(Struct, frozen=True):
    """All rows. sessions: simulated for each."""

    sessions: int
    rows: list[Row]
    seconds: float
    machine: dict[str, str | int | dict[str, str]]


def slow(rng: np.random.Generator, trials: int) -> np.ndarray:
    """(trials, BINS) of variance 1 and autocorrelation KEEP."""
    x = rng.normal(size=(trials, BINS))
    for t in range(1, BINS):
        x[:, t] = KEEP * x[:, t - 1] + np.sqrt(1 - KEEP**2) * x[:, t]
    return x


def trace(rng: np.random.Generator, neds: float, ridge: float, trials: int) -> Case:
    """Two decoders of a trace with true R2 `neds` and `ridge`."""
    y, common, group = slow(rng, trials), slow(rng, trials), np.repeat(np.arange(trials), BINS)
    said = {CONSTANT: np.zeros_like(y)}
    for name, skill in (("neds", neds), ("ridge", ridge)):
        error = np.sqrt(0.5) * (common + slow(rng, trials))
        said[name] = skill * y + np.sqrt(skill * (1 - skill) + COST) * error
    return Case("R2", {k: scores.r2_sums(y.ravel(), v.ravel(), group) for k, v in said.items()}, scores.r2_of_sums)


def label(rng: np.random.Generator, neds: float, ridge: float, trials: int) -> Case:
    """Two decoders of two even classes with true accuracy `neds` and `ridge`, half of their errors in common."""
    y = rng.permutation(np.arange(trials) % 2)
    ease = rng.random(trials)  # the harder a trial, the fewer decoders are right in it
    said = {CONSTANT: np.zeros(trials, np.int64)}
    for name, skill in (("neds", neds), ("ridge", ridge)):
        own = np.where(rng.random(trials) < 0.5, ease, rng.random(trials))
        said[name] = np.where(own < skill, y, 1 - y)
    sums = {k: scores.recall_sums(y, v, 2) for k, v in said.items()}
    return Case("balanced accuracy", sums, complete(scores.balanced_accuracy_of_sums, sums["ridge"], 2))


def row(kind: str, neds: float, ridge: float, trials: int, sessions: int) -> Row:
    """The words over so many sessions, each with a seed of its own."""
    chance = 0.0 if kind == "trace" else 0.5
    make = trace if kind == "trace" else label
    offers: list[Offer] = []
    for session in range(sessions):
        key = [session, trials, round(100 * neds), round(100 * ridge), kind == "trace"]
        offers.append(offer(make(np.random.default_rng(key), neds, ridge, trials), "neds", "ridge"))
    words = Counter(one.word for one in offers)
    share = {word: words[word] / sessions for word in WORDS}
    wrong = [one for one in offers if passes_wrongly(one, neds, ridge, chance)]
    refused = share["REFUSE"] if max(neds, ridge) > chance else 0.0
    return Row(kind, neds, ridge, trials, share, len(wrong) / sessions, refused)


def passes_wrongly(found: Offer, neds: float, ridge: float, chance: float) -> bool:
    """Whether what is offered is not above chance, or is NEDS though it is more than 0.02 behind the ridge."""
    if found.word == "PASS":
        return neds <= chance or neds < ridge - 0.02
    return found.word == "RIDGE" and ridge <= chance


def run(sessions: int) -> Result:
    """Every pair at every number of trials."""
    began = time.monotonic()
    rows = [
        row(kind, neds, ridge, trials, sessions)
        for kind, pairs in (("trace", TRACES), ("class", CLASSES))
        for neds, ridge in pairs
        for trials in TRIALS
    ]
    return Result(sessions, rows, time.monotonic() - began, describe())


def lines(found: Result) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| true skill NEDS / ridge | trials | {' | '.join(WORDS)} | false pass | false refuse |"
    yield "| " + " | ".join(["---"] * 8) + " |"
    for one in found.rows:
        each = " | ".join(f"{one.share[word]:.3f}" for word in WORDS)
        name = f"{'R2' if one.kind == 'trace' else 'accuracy'} {one.neds:g} / {one.ridge:g}"
        yield f"| {name} | {one.trials} | {each} | {one.false_pass:.3f} | {one.false_refuse:.3f} |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=200, help="simulated for each row")
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    found = run(given.sessions)
    print("\n".join(lines(found)))
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


if __name__ == "__main__":
    main()
