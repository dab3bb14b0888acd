"""Goals of the accuracy table: the strongest of the others, paired by trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import goals
from benchmarks.accuracy.blocks import BLOCKS
from benchmarks.accuracy.peers import neds, recurrent, reduced_rank, regression
from neds_core.scores import r2 as scores


def row(peer: str, seed: int, noise: float) -> dict[str, Any]:
    """A row of the decoding block whose error has the given size."""
    rng = np.random.default_rng([seed, round(100 * noise)])
    y, trial = np.random.default_rng(0).normal(size=600), np.arange(600) // 20
    sums = scores.r2_sums(y, y + noise * rng.normal(size=600), trial)
    found = {"peer": peer, "seed": seed, "sums": {"wheel_speed": sums.tolist()}, "sessions": {}}
    found["scores"] = {"wheel_speed": float(scores.r2_of_sums(sums.sum(0)))}
    return found | dict(zip(("recording", "task", "split"), goals.DECODE, strict=True))


def test_a_goal_is_judged_against_the_strongest_of_those_that_are_there() -> None:
    """By the mean over seeds; rows of other blocks and goals without rows are left out."""
    ours = [row(neds.MULTI.name, seed, 0.4) for seed in range(3)]
    strong, lucky = row(reduced_rank.REDUCED_RANK.name, 0, 0.3), row(regression.CAUSAL_RIDGE.name, 0, 0.6)
    uneven = [row(recurrent.GRU.name, seed, noise) for seed, noise in enumerate((0.25, 0.9, 0.9))]
    elsewhere = row(regression.CAUSAL_RIDGE.name, 0, 0.1) | {"recording": "another"}

    found = goals.judge([*ours, strong, lucky, *uneven, elsewhere])

    (only,) = found
    assert only["against"] == strong["peer"]
    expected = np.mean([r["scores"]["wheel_speed"] for r in ours]) - strong["scores"]["wheel_speed"]
    assert only["value"] == pytest.approx(expected)
    assert only["low"] < only["value"] < only["high"] < 0
    assert "strongest causal peer" in goals.lines(found)[0]


def test_of_median_errors_the_strongest_is_the_smallest() -> None:
    """Over seeds, with its interval over blocks."""

    def angle(peer: str, seed: int, degrees: float) -> dict[str, Any]:
        blocks = np.random.default_rng(seed).exponential(degrees, (12, 50))
        name = "head_direction median error all, deg"
        where = dict(zip(("recording", "task", "split"), goals.HEADING, strict=True))
        scores = {name: float(np.median(blocks))}
        return {"peer": peer, "sums": {}, "sessions": {}, "errors": {name: blocks.tolist()}, "scores": scores} | where

    gru = [angle(recurrent.GRU.name, seed, 4.0) for seed in range(3)]

    ridge, gated = goals.judge([angle(neds.ENSEMBLE.name, 0, 6.0), angle(regression.CAUSAL_RIDGE.name, 0, 9.0), *gru])

    assert (ridge["against"], gated["against"]) == (regression.CAUSAL_RIDGE.name, recurrent.GRU.name)
    assert ridge["low"] < ridge["value"] < ridge["high"] < 0.0 < gated["low"] < gated["value"] < gated["high"] < 4.0
    assert "median error all, deg +" in goals.lines([gated])[0]


def test_goals_name_rows_that_the_table_has() -> None:
    """Every peer of a goal is a row of its block."""
    blocks = {(b.recording, b.task, b.split): b.peers for b in BLOCKS}
    for goal in goals.GOALS:
        assert goal.peer in blocks[goal.block]
        assert set(goal.against) <= set(blocks[goal.block])
