"""Pictures of `neds-rt bench accuracy`: every peer with its interval, and NEDS against single peers trial by trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.compare import Row
from benchmarks.figures import BLACK, BLUE, ORANGE, RED, SKY, canvas
from neds_core.files import make_folder

OURS = "NEDS multi-task"
UNITS = {"decode": "R2", "encode": "bits/spike", "classify": "balanced accuracy"}
RIVALS = ("POYO", "NDT2")  # beginnings of the peers' names; NEDS is drawn against each trial by trial


def forest(table: list[Row], output: str, x_label: str, out: Path) -> None:
    """A score and its 95 % interval for each row of a pooled table, NEDS and its blend in another colour."""
    names = [row["peer"] + (f" ({row['uses']})" if row["uses"] else "") for row in table]
    with canvas(out, 6.5, 0.9 + 0.24 * len(table)) as (_, axes):
        for y, row in enumerate(reversed(table)):
            score = row["scores"][output]
            low, high = score["ci95"]
            colour = RED if "NEDS" in row["peer"] else BLUE
            axes.plot([low, high], [y, y], color=colour, lw=1.2)
            axes.plot(score["value"], y, "o" if "NEDS" in row["peer"] else "s", color=colour, ms=4)
        axes.axvline(table[0]["scores"][output]["value"], color="0.75", lw=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names[::-1], fontsize="small")
        axes.set_xlabel(x_label)


def trial_shares(seeds: list[Row], output: str) -> np.ndarray:
    """(trials,) what each trial adds to the pooled R2, so that their mean is that R2; mean over seeds.

    1 - a trial's squared error over the mean trial's spread about the mean of all.
    """
    sums = np.array([row["sums"][output] for row in seeds])  # (seeds, trials, 4): n, sum y, sum y^2, SSE
    n, total, square, error = np.moveaxis(sums, -1, 0)
    spread = square.sum(1) - total.sum(1) ** 2 / n.sum(1)
    return (1.0 - error / (spread[:, None] / n.shape[1])).mean(0)


def bit_shares(seeds: list[Row], output: str) -> np.ndarray:
    """(trials,) bits/spike of each trial, NaN for one without spikes; mean over seeds."""
    bits, spikes = np.moveaxis(np.array([row["sums"][output] for row in seeds]), -1, 0)
    return np.where(spikes > 0, bits / np.maximum(spikes, 1.0), np.nan).mean(0)


def scatter(ours: np.ndarray, theirs: np.ndarray, names: tuple[str, str], what: str, out: Path) -> None:
    """A point a trial; above the diagonal ours is better. Points beyond the 2nd percentile stand at the edge."""
    known = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[known], theirs[known]
    low = float(np.percentile(np.r_[ours, theirs], 2))
    edges = (low, float(max(ours.max(), theirs.max())))
    margin = 0.04 * (edges[1] - edges[0])
    with canvas(out, 3.6, 3.6) as (_, axes):
        axes.plot(edges, edges, color="0.7", lw=0.8)
        axes.scatter(theirs.clip(low), ours.clip(low), s=14, color=ORANGE, edgecolor=BLACK, lw=0.4)
        axes.plot(theirs.mean(), ours.mean(), "D", color=SKY, mec=BLACK, ms=7, label="mean of trials")
        axes.set(xlim=(edges[0] - margin, edges[1] + margin), ylim=(edges[0] - margin, edges[1] + margin))
        axes.set_xlabel(f"{names[1]}: {what}", fontsize="small")
        axes.set_ylabel(f"{names[0]}: {what}", fontsize="small")
        axes.set_title(f"better in {int((ours > theirs).sum())} of {len(ours)} trials", fontsize="small")
        axes.legend(frameon=False, fontsize="small", loc="lower right")


def draw(folder: Path, rows: list[Row], table: list[Row]) -> list[Path]:
    """Draw rows of one seed each and their pooled table (`accuracy_table.pooled`); returns the files."""
    make_folder(folder)
    written: list[Path] = []
    blocks = list(dict.fromkeys((r["recording"], r["task"], r["split"]) for r in table))
    for block in blocks:
        pooled = [r for r in table if _block(r) == block]
        single = [r for r in rows if _block(r) == block]
        task, unit = block[1], UNITS[block[1]]
        for output, first in pooled[0]["scores"].items():
            if "ci95" not in first:
                continue  # of an older version
            name = "-".join((*block, output)).replace("/", "-per-").replace(",", "").replace(" ", "-")
            median = output not in single[0]["sums"]
            x_label = unit if task == "encode" else f"{unit}, {output.replace('_', ' ')}"
            x_label = output.replace("_", " ") if median else x_label
            written.append(folder / f"{name}.png")
            forest(pooled, output, x_label, written[-1])
            if median or task == "classify":
                continue  # a trial is right or wrong: no scatter
            shares = trial_shares if task == "decode" else bit_shares
            ours = [r for r in single if r["peer"] == OURS]
            for peer in dict.fromkeys(r["peer"] for r in single if r["peer"].startswith(RIVALS)):
                theirs = [r for r in single if r["peer"] == peer]
                if ours:
                    written.append(folder / f"{name}-{peer.split()[0].lower().replace('+', '-plus')}.png")
                    pair = shares(ours, output), shares(theirs, output)
                    scatter(*pair, (OURS, peer), f"{unit} of a trial, {output.replace('_', ' ')}", written[-1])
    return written


def _block(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["recording"], row["task"], row["split"]
