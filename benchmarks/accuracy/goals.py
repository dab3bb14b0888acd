"""What the table of `neds-rt bench accuracy` is for: NEDS against the strongest of its peers, paired by trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.accuracy import table
from benchmarks.accuracy.compare import Row
from benchmarks.accuracy.peers import (
    classes,
    drift,
    heading,
    kalman,
    ndt2,
    neds,
    neds_classes,
    neds_full,
    place,
    recurrent,
    reduced_rank,
    regression,
    targets,
)
from benchmarks.accuracy.peers.task import Peer
from benchmarks.intervals import words


@dataclass(frozen=True, slots=True)
class Goal:
    """A peer of one block, and those of which it has to beat the strongest on the same test part."""

    words: str
    block: tuple[str, str, str]  # recording, task, split
    peer: Peer
    against: tuple[Peer, ...]


DECODE = ("ibl-dy016", "decode", "chronological")
RAT = ("rat-linear-track", "decode", "chronological")
HEADING = ("mouse-head-direction", "decode", "chronological")
MICE = ("steinmetz2019", "classify", "five folds")
TARGET = ("bci-monkey-20131218", "classify", "chronological")
CAUSAL = (regression.CAUSAL_RIDGE, reduced_rank.REDUCED_RANK, kalman.KALMAN, recurrent.GRU, ndt2.NDT2)
TRACK = (regression.CAUSAL_RIDGE, recurrent.GRU, place.BAYES)
CIRCLE = (regression.CAUSAL_RIDGE, recurrent.GRU, heading.BAYES)
ACAUSAL = (regression.ACAUSAL_RIDGE, regression.ACAUSAL_CLOCKED_RIDGE)
ENCODERS = (
    (drift.GLM, (drift.MULTI, drift.ENCODING_ONLY)),
    (drift.GLM_DRIFT, (drift.MULTI_DRIFT, drift.ENCODING_ONLY_DRIFT)),
)
GOALS = (
    Goal("causal NEDS minus the strongest causal peer", DECODE, neds.MULTI, CAUSAL),
    Goal("the ensemble minus the strongest causal peer", DECODE, neds.ENSEMBLE, CAUSAL),
    Goal("blend of the ensemble minus the strongest causal peer", DECODE, neds.ENSEMBLE_BLEND, CAUSAL),
    *(Goal(f"NEDS minus {one.name}, rat", RAT, neds.MULTI, (one,)) for one in TRACK),
    *(Goal(f"the ensemble minus {one.name}, rat", RAT, neds.ENSEMBLE, (one,)) for one in TRACK),
    Goal("causal NEDS minus its unimodal twin", DECODE, neds.MULTI, (neds.UNIMODAL,)),
    Goal("full NEDS minus the stronger acausal ridge", DECODE, neds_full.MULTI, ACAUSAL),
    Goal("full NEDS's unimodal twin minus the stronger acausal ridge", DECODE, neds_full.UNIMODAL, ACAUSAL),
    Goal("full NEDS minus its unimodal twin", DECODE, neds_full.MULTI, (neds_full.UNIMODAL,)),
    *(
        Goal(f"{peer.name} minus {glm.name}, {split}", ("ibl-dy016", "encode", split), peer, (glm,))
        for split in ("chronological", "random")
        for glm, peers in ENCODERS
        for peer in peers
    ),
    *(Goal(f"the ensemble minus {one.name}, head", HEADING, neds.ENSEMBLE, (one,)) for one in CIRCLE),
    *(Goal(f"NEDS minus {one.name}, head", HEADING, neds.MEMBERS_DECODING, (one,)) for one in CIRCLE),
    *(Goal(f"blend of the ensemble minus {one.name}, head", HEADING, neds.ENSEMBLE_BLEND, (one,)) for one in CIRCLE),
    Goal("NEDS of many mice minus NEDS of one session", MICE, neds_classes.NEDS_TUNED, (neds_classes.NEDS_SINGLE,)),
    Goal("NEDS of one session minus its unimodal twin", MICE, neds_classes.NEDS_SINGLE, (neds_classes.NEDS_ONLY,)),
    Goal("NEDS of one session minus logistic", MICE, neds_classes.NEDS_SINGLE, (classes.LOGISTIC,)),
    Goal("blend minus logistic", MICE, neds_classes.BLEND, (classes.LOGISTIC,)),
    Goal("NEDS minus the strongest LDA", TARGET, targets.NEDS, (targets.LDA, targets.LDA_CLOCKED, targets.LDA_FIVE)),
)


def judge(rows: list[Row]) -> list[Row]:
    """The peer minus the strongest of the others, for each goal and output whose rows are there.

    The strongest is picked by its mean score on the test part itself, which favours the others.
    """
    found: list[Row] = []
    for goal in GOALS:
        here = [r for r in rows if (r["recording"], r["task"], r["split"]) == goal.block]
        ours = [r for r in here if r["peer"] == goal.peer.name]
        others = [seeds for p in goal.against if (seeds := [r for r in here if r["peer"] == p.name])]
        if not ours or not others:
            continue
        medians = ours[0].get("errors", {})
        for output in [*ours[0]["sums"], *medians]:
            strongest = min if output in medians else max
            best = strongest(others, key=lambda seeds: np.mean([r["scores"][output] for r in seeds]))
            gain = table.minus(ours, best, output, goal.block[1])
            found.append({"goal": goal.words, "output": output, "against": best[0]["peer"], **gain._asdict()})
    return found


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The goals for people."""
    return [
        f"{g['goal']}: {g['output']} {words(g, '+', 1 if 'median' in g['output'] else 3)} (against {g['against']})"
        for g in found
    ]
