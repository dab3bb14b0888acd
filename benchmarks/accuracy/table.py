"""The table of `neds-rt bench accuracy`: seeds pooled, each peer beside the one it is compared with."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from benchmarks.accuracy.compare import STATISTICS, Row
from benchmarks.intervals import words
from neds_core.scores import bootstrap, points
from neds_core.scores.bootstrap import Interval
from neds_core.scores.points import Median

WIDTH = 40  # of a score's column
UNITS = {"decode": "R2", "encode": "bits/spike", "classify": "balanced accuracy"}


def pooled(rows: list[Row]) -> list[Row]:
    """One row for each peer, recording, task and split: seeds pooled, intervals over trials and seeds."""
    found: list[Row] = []

    def block_of(row: Row) -> tuple[str, str, str]:
        return row["recording"], row["task"], row["split"]

    for (recording, task, split), in_block in groupby(rows, block_of):
        reference: list[Row] = []
        for peer, group in groupby(in_block, lambda r: r["peer"]):
            seeds = list(group)
            first = seeds[0]
            reference = seeds if peer == first["reference"] else reference
            scores = {name: _score(seeds, reference, name, task) for name in first["scores"]}
            found.append(
                {
                    "peer": peer,
                    "recording": recording,
                    "task": task,
                    "split": split,
                    "uses": first["uses"],
                    "budget": first["budget"],
                    "loaded": first["loaded"],
                    "seeds": len(seeds),
                    "reference": first["reference"],
                    "scores": scores,
                    "parameters": first["parameters"],
                    "step_ms": first["step_ms"],
                    "seconds_train": float(np.mean([r["seconds_train"] for r in seeds])),
                    "seconds_search": first["seconds_search"],
                    "searched": first["searched"],
                    "setting": first["setting"],
                }
            )
    return found


def _score(seeds: list[Row], reference: list[Row], name: str, task: str) -> dict[str, Any]:
    """Mean over seeds, its interval, and its difference from the reference's with a paired interval."""
    values = [r["scores"][name] for r in seeds]
    if name not in seeds[0]["sums"] and name not in seeds[0].get("errors", {}):  # of an older version
        return {"value": float(np.mean(values)), "each_seed": values}
    value, low, high = interval(seeds, name, task)
    row: dict[str, Any] = {"value": value, "ci95": [low, high], "each_seed": values}
    if reference and reference is not seeds:
        row["minus_reference"] = minus(seeds, reference, name, task)._asdict()
    return row


def _medians(seeds: list[Row], name: str) -> list[Median]:
    """Of the errors of each training seed, resampled alike."""
    blocks = [r["errors"][name] for r in seeds]
    group = [np.repeat(np.arange(len(each)), [len(block) for block in each]) for each in blocks]
    return [points.median(np.concatenate(each), g) for each, g in zip(blocks, group, strict=True)]


def interval(seeds: list[Row], name: str, task: str) -> Interval:
    """Mean score over training seeds; of many sessions, mice, sessions and trials are drawn, else trials and seeds."""
    if name in seeds[0].get("errors", {}):
        return points.pooled(_medians(seeds, name))
    ours, statistic = _sums(seeds, name), STATISTICS[task]
    if name not in seeds[0]["sessions"]:
        return bootstrap.pooled(ours, statistic)
    mouse, session = np.array(seeds[0]["sessions"][name]).T
    return bootstrap.hierarchical(np.mean(ours, 0), session, mouse, statistic)


def minus(seeds: list[Row], others: list[Row], name: str, task: str) -> Interval:
    """Mean score over training seeds minus that of the others, paired by trial (see `interval`)."""
    if name in seeds[0].get("errors", {}):
        return points.paired(_medians(seeds, name), _medians(others, name))
    ours, theirs, statistic = _sums(seeds, name), _sums(others, name), STATISTICS[task]
    if name not in seeds[0]["sessions"]:
        return bootstrap.paired(ours, theirs, statistic)
    mouse, session = np.array(seeds[0]["sessions"][name]).T
    return bootstrap.hierarchical_paired(np.mean(ours, 0), np.mean(theirs, 0), session, mouse, statistic)


def _sums(seeds: list[Row], name: str) -> list[np.ndarray]:
    return [np.array(r["sums"][name]) for r in seeds]


def cpu_minutes(table: list[Row]) -> float:
    """Of search and training of all rows that were not loaded."""
    made_here = [row for row in table if not row["loaded"]]
    return sum(row["seconds_search"] + row["seeds"] * row["seconds_train"] for row in made_here) / 60


def lines(table: list[Row]) -> list[str]:
    """The table for people: losing rows like winning ones."""
    out = []
    for (recording, task, split), group in groupby(table, lambda r: (r["recording"], r["task"], r["split"])):
        rows = list(group)
        head = f"{recording}, {task}, {split} split: {UNITS[task]} of what was held out"
        out += ["", f"{head}, and minus {rows[0]['reference']}"]
        names = list(rows[0]["scores"])
        head = f"{'peer':35}{'uses':14}" + "".join(f"{n:>{WIDTH}}" for n in names)
        out.append(head + f"{'parameters':>12}{'ms/step':>9}{'train s':>9}{'search s':>9}{'seeds':>6}")
        for row in rows:
            mark = "*" if row["budget"] == "quick" else ""
            cells = "".join(_cell(row["scores"][n], 1 if "median" in n else 3) for n in names)
            step = "-" if row["step_ms"] is None else f"{row['step_ms']:.3f}"
            out.append(
                f"{row['peer'] + mark:35}{row['uses']:14}{cells}{row['parameters']:12,d}{step:>9}"
                f"{row['seconds_train']:9.1f}{row['seconds_search']:9.1f}{row['seeds']:6d}"
            )
    if any(r["budget"] == "quick" for r in table):
        out += ["", "* small grid, short training, one seed: what --quick pays for; it ranks nothing"]
    return out


def _cell(score: dict[str, Any], digits: int) -> str:
    text = f"{score['value']:.{digits}f}"
    gain = score.get("minus_reference")
    if gain is not None:
        text += f"  {words(gain, '+', digits)}"
    return f"{text:>{WIDTH}}"
