"""The table of `neds-rt bench accuracy`: seeds pooled, each peer beside the one it is compared with."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from benchmarks.accuracy.compare import STATISTICS, Row
from benchmarks.intervals import words
from neds_core.scores import bootstrap
from neds_core.scores.bootstrap import Interval

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
    if name not in seeds[0]["sums"]:
        return {"value": float(np.mean(values)), "each_seed": values}
    value, low, high = interval(seeds, name, task)
    row: dict[str, Any] = {"value": value, "ci95": [low, high], "each_seed": values}
    if reference and reference is not seeds:
        row["minus_reference"] = minus(seeds, reference, name, task)._asdict()
    return row


def interval(seeds: list[Row], name: str, task: str) -> Interval:
    """Mean score over training seeds; of many sessions, mice, sessions and trials are drawn, else trials and seeds."""
    ours, statistic = _sums(seeds, name), STATISTICS[task]
    if name not in seeds[0]["sessions"]:
        return bootstrap.pooled(ours, statistic)
    mouse, session = np.array(seeds[0]["sessions"][name]).T
    return bootstrap.hierarchical(np.mean(ours, 0), session, mouse, statistic)


def minus(seeds: list[Row], others: list[Row], name: str, task: str) -> Interval:
    """Mean score over training seeds minus that of the others, paired by trial (see `interval`)."""
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
        head = f"{'peer':35}{'uses':14}" + "".join(f"{n:>40}" if "median" not in n else f"{n:>38}" for n in names)
        out.append(head + f"{'parameters':>12}{'ms/step':>9}{'train s':>9}{'search s':>9}{'seeds':>6}")
        for row in rows:
            mark = "*" if row["budget"] == "quick" else ""
            cells = "".join(_cell(row["scores"][n], 40 if "median" not in n else 38) for n in names)
            step = "-" if row["step_ms"] is None else f"{row['step_ms']:.3f}"
            out.append(
                f"{row['peer'] + mark:35}{row['uses']:14}{cells}{row['parameters']:12,d}{step:>9}"
                f"{row['seconds_train']:9.1f}{row['seconds_search']:9.1f}{row['seeds']:6d}"
            )
    if any(r["budget"] == "quick" for r in table):
        out += ["", "* small grid, short training, one seed: what --quick pays for; it ranks nothing"]
    return out


def _cell(score: dict[str, Any], width: int) -> str:
    text = f"{score['value']:.1f}" if "ci95" not in score else f"{score['value']:.3f}"
    gain = score.get("minus_reference")
    if gain is not None:
        text += f"  {words(gain, '+')}"
    return f"{text:>{width}}"
