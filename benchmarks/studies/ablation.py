"""`neds-rt bench ablation`: what each part of the shipped configuration is worth, one change at a time.

Scored inside the training part of a recording: fitted before an origin, scored on the stretch after it; the
test part is never read. Every training runs the same number of steps to its end: nothing is chosen or stopped
on what is scored, so no row is favoured. Finished rows are lines of a JSON-lines file; a later call goes on there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec.structs import replace as but

from benchmarks import machine, recordings, rows as finished
from benchmarks.accuracy import compare
from benchmarks.accuracy.masks import DECODING, ENCODING
from benchmarks.intervals import words
from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session
from neds_core.model import directions
from neds_core.scores import bits, bootstrap, encoding, r2 as scores, tasks
from neds_core.train import loop
from neds_core.train.sources import Source
from neds_core.train.windows import Windows

Row = dict[str, Any]
EXAMPLE = recordings.EXAMPLES / "ibl-dy016"
BEFORE, AFTER = (0.0, 0.6), (0.6, 0.8)  # shares of the recording; the last fifth is its test part
STEPS, BATCH, SEEDS = 120, 16, 3
QUICK_STEPS, QUICK_BATCH = 4, 4
BITS = "bits/spike"
VERSION = 1  # of a row's meaning: raise it where the stretch or the scores change
BASE, CLOCKED = "base", "clocked"


@dataclass(frozen=True, slots=True)
class Variant:
    """A configuration with fields of its model or masks replaced; `against` is the row it is compared with."""

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)
    config: str = "train.toml"
    against: str = BASE


VARIANTS = (
    Variant(BASE),
    *(
        Variant(f"without {name} masks", masks={name: 0.0})
        for name in ("encoding", "decoding", "within_spikes", "within_behaviour", "cross_modal")
    ),
    *(
        Variant(f"with {name} masks", masks={name: weight})
        for name, weight in (
            ("single_behaviour", 1.0),
            ("causal_suffix", 1.0),
            ("spans", 1.0),
            ("modality_dropout", 0.1),
        )
    ),
    Variant("decoding masks only", masks=msgspec.structs.asdict(DECODING)),
    Variant("encoding masks only", masks=msgspec.structs.asdict(ENCODING)),
    Variant("without modality embedding", {"without": ("modality",)}),
    Variant("without session embedding", {"without": ("session",)}),
    Variant("without registers", {"registers": 0}),
    Variant(CLOCKED, config="train-clocked.toml"),
    Variant("clocked, without temporal embedding", {"without": ("temporal",)}, {}, "train-clocked.toml", CLOCKED),
    *(Variant(f"unit dropout {share}", {"unit_dropout": share}) for share in (0.0, 0.3)),
    *(Variant(f"band of {bins} bins", {"band": bins}) for bins in (5, 10, 25, 50)),
    *(Variant(f"{n} layer{'s' if n > 1 else ''}", {"layers": n}) for n in (1, 3)),
)


def settings(variant: Variant, quick: bool, folder: Path = EXAMPLE) -> TrainConfig:
    """The whole configuration of a variant. The learning rate follows the square root of the batch."""
    base = toml.load(folder / variant.config, TrainConfig)
    steps, batch = (QUICK_STEPS, QUICK_BATCH) if quick else (STEPS, BATCH)
    rate = base.fit.learning_rate * (batch / base.fit.batch) ** 0.5
    return but(
        base,
        model=but(base.model, **variant.model),
        masks=but(base.masks, **variant.masks),
        fit=but(base.fit, steps=steps, batch=batch, learning_rate=rate, threads=1),
    )


def identity(variant: Variant, config: TrainConfig, seed: int, quick: bool, folder: Path = EXAMPLE) -> Row:
    """What makes a row the same row: the fields of `compare.KEY`."""
    sha = hashlib.sha256((folder / config.recording).read_bytes() + msgspec.json.encode(config, order="sorted"))
    return {
        "recording": folder.name,
        "task": "ablation",
        "split": f"fit {BEFORE[0]}-{BEFORE[1]}, scored {AFTER[0]}-{AFTER[1]}",
        "peer": variant.name,
        "seed": seed,
        "quick": quick,
        "version": VERSION,
        "inputs_sha256": sha.hexdigest(),
    }


def run(
    out: Path,
    quick: bool,
    say: Callable[[str], None],
    variants: tuple[Variant, ...] = VARIANTS,
    folder: Path = EXAMPLE,
) -> list[Row]:
    """Compute the rows that `out` lacks, seed by seed, append each as it is done, and return all by variant."""
    recordings.refuse_missing(folder / variant.config for variant in variants)
    torch.set_num_threads(1)
    done = compare.read(out)
    finished.ready(out)
    rows: dict[str, list[Row]] = {variant.name: [] for variant in variants}
    for seed in range(1 if quick else SEEDS):
        for variant in variants:
            config = settings(variant, quick, folder)
            mine = identity(variant, config, seed, quick, folder)
            key = tuple(mine.get(k) for k in compare.KEY)
            if key not in done:
                say(f"{variant.name}, seed {seed}")
                session = session_file.load(folder / config.recording)
                done[key] = finished.append(out, mine | _row(config, session, seed))
            rows[variant.name].append(done[key] | {"against": variant.against})
    return [row for group in rows.values() for row in group]


def _row(config: TrainConfig, session: Session, seed: int) -> Row:
    """Train before the origin, score after it."""
    before, after = sessions.part(session, *BEFORE), sessions.part(session, *AFTER)
    specs = tuple(before.spec(name) for name in config.outputs)
    scale = scalers.fit(before, specs, config.min_rate_hz, config.model.filter_taus_ms)
    wall, cpu = time.perf_counter(), time.process_time()
    fit = loop.fit(loop.Plan(config, (Source(before, None, scale),), seed))
    took = {"seconds_train": time.perf_counter() - wall, "cpu_seconds_train": time.process_time() - cpu}
    sums = scored(fit, before, after, scale)
    return {
        "steps": config.fit.steps,
        "batch": config.fit.batch,
        "learning_rate": config.fit.learning_rate,
        "receptive_field_bins": config.model.receptive_field,
        "parameters": sum(p.numel() for p in fit.model.parameters()),
        "scores": {name: float(statistic(name)(s.sum(0))) for name, s in sums.items()},
        **took,
        "sums": {name: s.tolist() for name, s in sums.items()},
    }


def scored(fit: loop.Fit, before: Session, after: Session, scale: Scalers) -> dict[str, np.ndarray]:
    """Sums of each scored trial: every continuous behaviour from spikes, and spikes from measured behaviour."""
    model = fit.model
    spans = directions.spans_of(after)
    bins = directions.bins_of(spans)
    trial = np.searchsorted(after.segments[:, 0], bins, side="right")
    decoded, found = loop.decode(model, after), {}
    for spec in model.specs:
        if spec.kind == "continuous":
            target = after.values[spec.name][bins].astype(np.float64)
            known = np.isfinite(target) & after.valid[bins]
            value = decoded[spec.name][known] * scale.sd[spec.name] + scale.mean[spec.name]
            found[spec.name] = scores.r2_sums(target[known], value, trial[known])
    goal = encoding.target(before, after, bins, trial)
    rates = directions.encode(model, Windows(after, model.specs, scale), spans, tasks.shown(model.specs))
    return found | {BITS: goal.sums(goal.of(rates))}


def statistic(name: str) -> bootstrap.Statistic:
    """The score of summed rows: bits/spike, or R2."""
    return bits.bits_of_sums if name == BITS else scores.r2_of_sums


def pooled(rows: list[Row]) -> list[Row]:
    """One row a variant: mean over seeds, and its difference with a paired interval over trials and seeds."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["peer"], []).append(row)
    table = []
    for variant, mine in by_name.items():
        against = mine[0]["against"]
        theirs = by_name[against]
        found = {}
        for name in mine[0]["scores"]:
            ours, other = ([np.array(row["sums"][name]) for row in group] for group in (mine, theirs))
            value, low, high = bootstrap.pooled(ours, statistic(name))
            each = [row["scores"][name] for row in mine]
            found[name] = {"value": value, "ci95": [low, high], "each_seed": each}
            if mine is not theirs:
                found[name]["minus"] = encoding.as_row(bootstrap.paired(ours, other, statistic(name)))
        shared = ("steps", "batch", "learning_rate", "receptive_field_bins", "parameters")
        table.append(
            {
                "row": variant,
                "against": against,
                "scores": found,
                "seeds": len(mine),
                **{name: mine[0][name] for name in shared},
                "cpu_seconds_train": float(np.mean([row["cpu_seconds_train"] for row in mine])),
            }
        )
    return table


def result(rows: list[Row], quick: bool) -> Row:
    """The table as one JSON object."""
    return {
        "recording": rows[0]["recording"],
        "split": rows[0]["split"],
        "trials_scored": len(rows[0]["sums"][BITS]),
        "quick": quick,
        "cpu_minutes_of_all_rows": sum(row["cpu_seconds_train"] for row in rows) / 60,
        "machine": machine.describe(),
        "table": pooled(rows),
    }


def lines(table: list[Row]) -> list[str]:
    """The table for people: value, and minus the row it is compared with [95 %]."""
    names = list(table[0]["scores"])
    out = [f"{'row':38}" + "".join(f"{name:>34}" for name in names) + f"{'field':>7}{'cpu s':>7}"]
    for row in table:
        cells = ""
        for name in names:
            score = row["scores"][name]
            text = f"{score['value']:.3f}"
            if gap := score.get("minus"):
                text += f" {words(gap, '+')}"
            cells += f"{text:>34}"
        out.append(f"{row['row']:38}{cells}{row['receptive_field_bins']:7}{row['cpu_seconds_train']:7.0f}")
    return out
