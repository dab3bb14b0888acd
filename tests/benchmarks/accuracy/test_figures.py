"""Pictures of the accuracy table: what they show adds up to the table's own scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import figures, table
from benchmarks.accuracy.compare import Row
from neds_core.scores import bits as encoding_scores, r2 as scores


def made(peer: str, task: str, seed: int) -> Row:
    """A row as the table's runner writes it, of 12 trials of 30 bins."""
    rng = np.random.default_rng([seed, len(peer), len(task)])
    trial = np.arange(360) // 30
    if task == "decode":
        y = rng.normal(size=360)
        sums = scores.r2_sums(y, y + 0.5 * rng.normal(size=360), trial)
        name, score = "wheel_speed", float(scores.r2_of_sums(sums.sum(0)))
    elif task == "classify":
        label = rng.integers(0, 2, 40)
        guess = np.where(rng.random(40) < 0.8, label, 1 - label)
        sums = scores.recall_sums(label, guess, 2)
        name, score = "go", scores.balanced_accuracy(label, guess, 2)
    else:
        counts = rng.poisson(0.5, (360, 8)).astype(float)
        sums = encoding_scores.bits_sums(counts, np.full((360, 8), 0.6), np.full(8, 0.4), trial)
        name, score = "bits/spike", float(encoding_scores.bits_of_sums(sums.sum(0)))
    return {
        "peer": peer, "recording": "planted", "task": task, "split": "chronological", "seed": seed, "uses": "",
        "budget": "full", "loaded": False, "reference": "causal ridge", "scores": {name: score}, "parameters": 1,
        "step_ms": None, "seconds_train": 1.0, "seconds_search": 1.0, "searched": "", "setting": {},
        "sums": {name: sums.tolist()}, "sessions": {},
    }  # fmt: skip


def test_points_of_a_scatter_average_to_the_score() -> None:
    """Shares of trials of equal length have the pooled R2 as their mean."""
    row = made("NDT2-style", "decode", 0)

    shares = figures.trial_shares([row], "wheel_speed")

    assert len(shares) == 12
    assert shares.mean() == pytest.approx(row["scores"]["wheel_speed"], abs=1e-12)


def test_a_trial_without_spikes_has_no_bits_per_spike() -> None:
    """It is left out of the picture, not drawn at 0."""
    row = {"sums": {"bits/spike": [[2.0, 4.0], [-1.0, 0.0]]}}

    shares = figures.bit_shares([row], "bits/spike")

    assert shares[0] == 0.5
    assert np.isnan(shares[1])


def test_every_block_is_drawn_and_rivals_trial_by_trial(tmp_path: Path) -> None:
    """One picture an output, one scatter a rival that has rows; none of classes."""
    peers = ("causal ridge", "NDT2-style", "POYO+", "NEDS multi-task")
    rows = [made(p, t, s) for t in ("decode", "encode", "classify") for p in peers for s in range(2)]
    rows = [{**r, "reference": "causal ridge"} for r in rows]

    written = figures.draw(tmp_path, rows, table.pooled(rows))

    assert {f.name for f in written} == {
        "planted-decode-chronological-wheel_speed.png",
        "planted-decode-chronological-wheel_speed-ndt2-style.png",
        "planted-decode-chronological-wheel_speed-poyo-plus.png",
        "planted-classify-chronological-go.png",
        "planted-encode-chronological-bits-per-spike.png",
        "planted-encode-chronological-bits-per-spike-ndt2-style.png",
        "planted-encode-chronological-bits-per-spike-poyo-plus.png",
    }
    assert all(f.stat().st_size > 5000 for f in written)


def test_a_median_error_is_drawn_with_its_interval(tmp_path: Path) -> None:
    """And has no scatter: it is none of trials."""
    name, rows = "position median error all, px", []
    for peer in ("causal ridge", "NDT2-style", "NEDS multi-task"):
        row = made(peer, "decode", 0)
        blocks = np.random.default_rng(len(peer)).exponential(10.0, (12, 30))
        rows.append(row | {"errors": {name: blocks.tolist()}})
        row["scores"][name] = float(np.median(blocks))

    written = figures.draw(tmp_path, rows, table.pooled(rows))

    assert "planted-decode-chronological-position-median-error-all-px.png" in {f.name for f in written}
    assert len([f for f in written if "median" in f.name]) == 1
    gain = table.pooled(rows)[1]["scores"][name]["minus_reference"]
    assert gain["low"] < gain["value"] < gain["high"]
