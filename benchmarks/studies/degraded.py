"""What NEDS and the ridge keep when the held-out spikes are sorted worse than the training spikes were.

The decoders stay as they were trained; nothing is chosen here. Each condition is drawn several times
and scored on the same trials for all decoders.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.intervals import words
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import degrade, lead, session as sessions, session_file
from neds_core.data.session import Session, part
from neds_core.errors import CheckpointError, DataError
from neds_core.linear import baseline
from neds_core.model.directions import bins_of, spans_of
from neds_core.scores import bootstrap, judging, r2 as scores, tasks
from neds_core.train import loop

DECODERS = ("neds", "ridge", "blend")
NOTE = "offline sorting made worse by a seed; no claim about online-sorted spikes"
Values = dict[str, dict[str, np.ndarray]]  # output -> decoder -> (n,) in the output's unit


def decode(made: Checkpoint, held_out: Session) -> Values:
    """Continuous outputs of every decoder on all bins of the session's segments."""
    each = [loop.decode(network, held_out) for network in made.networks]
    found: Values = {}
    for spec in made.specs:
        if spec.kind == "continuous":
            name, mean, sd = spec.name, made.header.mean[spec.name], made.header.sd[spec.name]
            ridge = baseline.predict(made.linear[name], held_out, made.scalers.kept, spec.kind)
            ours = np.stack([one[name] * sd + mean for one in each])
            said = judging.mixed(ours, ridge, judging.shares_of(made, name))
            found[name] = {str(decoder): values for decoder, values in said.items()}
    return found


def bench(recording: Path, files: list[Path], draws: int = 5) -> dict[str, Any]:
    """R2 of each decoder on the test part, intact and degraded, over training seeds and draws.

    Returns one JSON object; rows are outputs, in them conditions. `neds_minus_ridge` is paired by trial (by
    10 s of a continuous recording) and pooled over draws. Raises `DataError` where a checkpoint is of other units, and
    `CheckpointError` where it holds no linear decoder.
    """
    began = time.monotonic()
    session = session_file.load(recording)
    parts = sessions.split(session)
    seeds = [_fitting(checkpoints.load(path), session, path) for path in files]
    test = lead.ahead(parts.test, lead.of(seeds[0].specs))
    rate = parts.train.counts[bins_of(spans_of(parts.train))].mean(0)
    intact: dict[str, degrade.Degrade] = {"intact": lambda one, seed: one}
    outputs: dict[str, dict[str, Any]] = {}
    for condition, worsen in (intact | degrade.conditions(rate)).items():
        versions = [_held_out(worsen(session, draw)) for draw in range(1 if condition == "intact" else draws)]
        decoded = [[decode(made, one) for one in versions] for made in seeds]
        for name in decoded[0][0]:
            outputs.setdefault(name, {})[condition] = _row(test, name, decoded)
    if not outputs:
        raise DataError(f"{files[0]} decodes no continuous output; give a checkpoint that decodes a trace")
    for rows in outputs.values():
        for row in rows.values():
            for decoder in DECODERS:
                row[decoder]["lost_r2"] = rows["intact"][decoder]["r2"] - row[decoder]["r2"]
    return {
        "recording": session.name,
        "checkpoints": [path.name for path in files],
        "held_out_segments": len(parts.test.segments),
        "draws": draws,
        "note": NOTE,
        "outputs": outputs,
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine.describe(),
    }


def _fitting(made: Checkpoint, session: Session, path: Path) -> Checkpoint:
    tasks.refuse_other_units(made, session)
    if not made.linear:
        raise CheckpointError(f"{path} holds no ridge to compare with; train one with neds-rt train")
    return made


def _held_out(session: Session) -> Session:
    return part(session, 0.8, 1.0)


def _row(test: Session, name: str, decoded: list[list[Values]]) -> dict[str, Any]:
    """Mean R2 and its range over seeds and draws, and NEDS minus ridge with a paired interval."""
    bins = bins_of(spans_of(test))
    target = test.values[name][bins].astype(np.float64)
    known = np.isfinite(target) & test.valid[bins]
    n_draws = len(decoded[0])
    y = np.tile(target[known], n_draws)
    group = bootstrap.RULES.groups(test.segment_of(bins), test.bin_ns)
    trial = np.tile(group[known], n_draws)
    row: dict[str, Any] = {}
    for decoder in DECODERS:
        each = [scores.r2(target[known], v[name][decoder][known]) for seed in decoded for v in seed]
        row[decoder] = {"r2": float(np.mean(each)), "range": [min(each), max(each)]}
    pooled = {d: [np.concatenate([v[name][d][known] for v in seed]) for seed in decoded] for d in ("neds", "ridge")}
    value, low, high = scores.paired_interval(y, pooled["neds"], pooled["ridge"][0], trial)
    row["neds_minus_ridge"] = {"value": value, "low": low, "high": high}
    return row


def lines(result: dict[str, Any]) -> list[str]:
    """The table for a terminal."""
    text = [f"{result['recording']}: R2 on {result['held_out_segments']} held-out segments ({result['note']})"]
    for name, rows in result["outputs"].items():
        text.append(f"{name:<24}{'NEDS':>8}{'ridge':>8}{'blend':>8}   NEDS - ridge [95 %]")
        for condition, row in rows.items():
            text.append(
                f"  {condition:<22}"
                + "".join(f"{row[d]['r2']:>8.3f}" for d in DECODERS)
                + f"   {words(row['neds_minus_ridge'], '+')}"
            )
    return text
