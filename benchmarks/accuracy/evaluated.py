"""The figures of `neds-rt evaluate`: traces, curves, rates and scores of a checkpoint on what it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figures
from benchmarks.accuracy.traces import TRIALS
from neds_core.data.session import BehaviourSpec
from neds_core.files import make_folder
from neds_core.scores import bits
from neds_core.scores.tasks import HeldOut
from runtime.scoring.points import angles

UNITS = 12  # that have a panel of their own


def decoding(
    found: dict[str, Any], values: dict[str, np.ndarray], measured: dict[str, np.ndarray], segment: np.ndarray,
    specs: tuple[BehaviourSpec, ...], bin_ns: int, folder: Path,
) -> None:  # fmt: skip
    """What `neds-rt evaluate --task decode` draws. found: `runtime.scoring.curves.curves`; values and measured (n,)."""
    make_folder(folder)
    shown = np.isin(segment, np.unique(segment)[:TRIALS]) & (np.arange(len(segment)) < 60e9 / bin_ns)
    for spec in specs:
        row = found.get(spec.name)
        if row is None:
            continue
        if spec.kind == "class":
            _decisions(row, spec.name, folder)
            continue
        name = folder / spec.name
        figures.traces(
            measured[spec.name][shown], values[spec.name][shown], segment[shown], bin_ns * 1e-9, spec,
            name.with_name(f"{spec.name}-traces.png"),
        )  # fmt: skip
        decoders = {n: row[f"{n}_r2"] for n in figures.SERIES}
        figures.curve(
            row["delay_ms"], decoders, "read-out delay (ms)", f"R2, {spec.name}",
            name.with_name(f"{spec.name}-delay.png"),
        )  # fmt: skip
        if "bin_in_trial_ms" in row:
            by_bin = {n: row[f"{n}_r2_by_bin"] for n in figures.SERIES}
            out = name.with_name(f"{spec.name}-position.png")
            figures.curve(row["bin_in_trial_ms"], by_bin, "time in the trial (ms)", f"R2, {spec.name}", out)
    for group, (cos, sin) in angles(specs).items():
        if cos.name in measured and sin.name in measured:
            seen, ours = (_degrees(t[cos.name][shown], t[sin.name][shown]) for t in (measured, values))
            spec, out = BehaviourSpec(group, "continuous", "degrees"), folder / f"{group}-traces.png"
            figures.traces(seen, ours, segment[shown], bin_ns * 1e-9, spec, out)


def _degrees(cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """(n,) angle, 0 to 360 degrees; NaN where it goes round, so that no line is drawn across."""
    degrees = np.degrees(np.arctan2(sin, cos)) % 360.0
    degrees[1:][np.abs(np.diff(degrees)) > 180.0] = np.nan
    return degrees


def _decisions(row: dict[str, Any], name: str, folder: Path) -> None:
    for question, events in row["against_time"].items():
        for event, scored in events.items():
            series = {n: scored[n] for n in ("accuracy", "balanced_accuracy", "auc")}
            label = f"time {event.replace('_', ' ')} (ms)"
            figures.curve(
                scored["offset_ms"],
                series,
                label,
                "share of trials, or area under ROC",
                folder / f"{question}-{event}.png",
                0.5,
            )
    if row["calibration"] is not None:
        figures.reliability(row["calibration"], name, folder / f"{name}-reliability.png")


def encoding(
    held: HeldOut, rates: np.ndarray, rows: dict[str, list[dict[str, Any]]], specs: tuple[BehaviourSpec, ...],
    folder: Path,
) -> None:  # fmt: skip
    """What `neds-rt evaluate --task encode` draws: rates (n, U') from all behaviours, rows of `tasks.encode`.

    Bars are of the first checkpoint; panels of the units that spike most.
    """
    make_folder(folder)
    goal = held.target
    bin_ms = held.session.bin_ns * 1e-6
    figures.bars(
        {name: (r[0]["bits_per_spike"], *r[0]["ci95"]) for name, r in rows.items()},
        "bits/spike above the training mean",
        folder / "encoding-by-behaviour.png",
    )
    busiest = np.argsort(-goal.mean)[: 5 * UNITS]
    shown = np.isin(goal.trial, np.unique(goal.trial)[:TRIALS])
    starts = np.flatnonzero(np.diff(goal.trial[shown])) + 1
    figures.raster(
        goal.counts[shown][:, busiest], rates[shown][:, busiest], bin_ms, starts, folder / "raster-and-rates.png"
    )
    bins = held.bins[goal.rows]
    for spec in specs:
        value = held.session.values[spec.name][bins].astype(float)
        value = np.where(value < 0, np.nan, value) if spec.kind == "class" else value
        some = busiest[:UNITS]
        found = bits.tuning(value, goal.counts[:, some], rates[:, some])
        figures.tuning(found, spec, bin_ms, folder / f"tuning-{spec.name}.png")


def predictions(task: str, rows: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """What `neds-rt evaluate --task within` and `cross` draw: scores of the first checkpoint, a picture a unit."""
    make_folder(folder)
    for key, unit in (("bits_per_spike", "bits/spike above the training mean"), ("r2", "R2")):
        found = {name: (row[0][key], *row[0]["ci95"]) for name, row in rows.items() if key in row[0]}
        if found:
            figures.bars(found, unit, folder / f"{task}-{key.replace('_', '-')}.png")
