"""The pictures of `neds-rt train` and `evaluate`: traces, tracks, angles, curves, rates and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import figures
from benchmarks.accuracy.shown import MOST_SEGMENTS, Shown
from benchmarks.figures import Out, labelled
from neds_core.data.session import BehaviourSpec
from neds_core.files import make_folder
from neds_core.scores import bits
from neds_core.scores.points import angle_deg, distance, groups
from neds_core.scores.tasks import HeldOut
from runtime.core.engine import DECODERS

LINEAR = {"ridge": "logistic"}  # what the linear decoder of classes is called
UNITS = 12  # that have a panel of their own


class Picture(NamedTuple):
    """One picture: the name of its file, whether it is as wide as a page, and what draws it."""

    name: str
    wide: bool
    draw: Callable[[Out], None]

    @property
    def png(self) -> bytes:
        """As bytes."""
        out = BytesIO()
        self.draw(out)
        return out.getvalue()


def save(pictures: Iterable[Picture], folder: Path) -> None:
    """Write each as NAME.png."""
    make_folder(folder)
    for each in pictures:
        each.draw(folder / f"{each.name}.png")


def decoding(shown: Shown, found: dict[str, Any]) -> Iterator[Picture]:
    """What decoders said of a part. found: `runtime.scoring.curves.curves` of it, {} = none."""
    rows = shown.stretch()
    t_s, starts = shown.t_s(rows), shown.starts(rows)
    for group, members in groups(shown.specs).items():
        if all(spec.name in shown.measured for spec in members):
            yield _group(shown, group, rows)
    for spec in shown.specs:
        if spec.name in shown.measured and not spec.angle:
            title = f"{spec.name}: R2 {_said(shown, spec.name, shown.r2.get(spec.name, {}), 3)} ({shown.part})"
            draw = partial(figures.traces, t_s, shown.lines(spec.name, rows), starts, title, labelled(spec))
            yield Picture(f"{spec.name}-traces", True, draw)
        if spec.name in shown.guesses:
            guesses = shown.guesses[spec.name]
            decoders = {LINEAR.get(d, d): d for d in shown.drawn(spec.name) if d in guesses.said}
            tables = {name: guesses.table(d, len(spec.classes)) for name, d in decoders.items()}
            missing = {name: guesses.missing(d) for name, d in decoders.items()}
            draw = partial(figures.confusion, tables, spec.classes, spec.name, missing=missing)
            yield Picture(f"{spec.name}-confusion", False, draw)
        if spec.name in found and not spec.angle:
            yield from _class(found[spec.name], spec) if spec.kind == "class" else _curves(found[spec.name], spec)


def _said(shown: Shown, output: str, each: Mapping[str, float | None], digits: int, unit: str = "") -> str:
    """Numbers of the decoders that are drawn of an output, as a title has them."""
    known = {figures.NAMES.get(d, d): v for d in shown.drawn(output) if (v := each.get(d)) is not None}
    return ", ".join(f"{name} {value:.{digits}f}{unit}" for name, value in known.items()) or "not scored"


def _group(shown: Shown, group: str, rows: np.ndarray) -> Picture:
    """An angle in degrees; a point's path and how far decoders are off it; of another group, how far they are off."""
    members, points, row = groups(shown.specs)[group], shown.points_of(group, rows), shown.points.get(group, {})
    medians, unit = {d: row.get(f"{d}_median_error_all") for d in shown.said}, members[0].unit
    of = f" {row['unit']}" if row.get("unit") else ""
    title = f"{group}: median error {_said(shown, members[0].name, medians, 1, of)} ({shown.part})"
    t_s, starts = shown.t_s(rows), shown.starts(rows)
    if members[0].angle:
        degrees = {name: _degrees(xy) for name, xy in points.items()}
        label = labelled(BehaviourSpec(group, "continuous", "degrees"))
        return Picture(f"{group}-traces", True, partial(figures.traces, t_s, degrees, starts, title, label))
    errors = {d: distance(points["measured"], xy) for d, xy in points.items() if d != "measured"}
    label = f"distance ({unit})" if unit else "distance"
    if len(members) != 2 or "/" in unit:  # of velocities, say, there is no path
        return Picture(f"{group}-distance", True, partial(figures.traces, t_s, errors, starts, title, label))
    path, labels = (
        dict(list(points.items())[:2]),  # measured, and the main line
        (labelled(members[0]), labelled(members[1]), label),
    )
    return Picture(f"{group}-track", True, partial(figures.track, t_s, path, errors, starts, title, labels))


def _degrees(cos_sin: np.ndarray) -> np.ndarray:
    """(n,) angles of (n, 2), 0 to 360 degrees; NaN where it goes round, so that no line is drawn across."""
    degrees = angle_deg(cos_sin) % 360.0
    degrees[1:][np.abs(np.diff(degrees)) > 180.0] = np.nan
    return degrees


def _curves(row: dict[str, Any], spec: BehaviourSpec) -> Iterator[Picture]:
    """R2 of a trace against the read-out delay, and against the time in the trial."""
    each = {"delay": ("delay_ms", "r2", "read-out delay (ms)")}
    each |= {"position": ("bin_in_trial_ms", "r2_by_bin", "time in the trial (ms)")} if "bin_in_trial_ms" in row else {}
    for name, (x, y, label) in each.items():
        series = {decoder: row[f"{decoder}_{y}"] for decoder in DECODERS}
        yield Picture(f"{spec.name}-{name}", False, partial(figures.curve, row[x], series, label, f"R2, {spec.name}"))


def _class(row: dict[str, Any], spec: BehaviourSpec) -> Iterator[Picture]:
    """How a class is known against the time from events, and its reliability."""
    for question, events in row["against_time"].items():
        for event, scored in events.items():
            series = {n: scored[n] for n in ("accuracy", "balanced_accuracy", "auc")}
            label = f"{question}: time {event}".replace("_", " ") + " (ms)"
            y_label = "share of trials, or area under ROC"
            draw = partial(figures.curve, scored["offset_ms"], series, label, y_label, level=0.5)
            yield Picture(f"{question}-{event}", False, draw)
    if row["calibration"] is not None:
        yield Picture(f"{spec.name}-reliability", False, partial(figures.reliability, row["calibration"], spec.name))


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
    shown = np.isin(goal.trial, np.unique(goal.trial)[:MOST_SEGMENTS])
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
