"""Learning curves of arms: `python -m benchmarks.studies.calibration.figures RESULT.json ... --out FILE.png`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes

from benchmarks.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, canvas
from benchmarks.studies.calibration.arms import ROWS_KEPT
from benchmarks.studies.calibration.cells import RIDGE

LINES = {
    "offered": (GREEN, "-"), "calibrated": (RED, "-"), RIDGE: (BLUE, "-"), "scratch": (ORANGE, "--"),
    "random trunk": (SKY, "--"), "shuffled trunk": (PURPLE, "--"), ROWS_KEPT: (BLACK, ":"),
}  # fmt: skip
LOWEST = -0.6  # an R2 below it says no more than that nothing was learned


def curves(results: list[dict[str, Any]], out: Path) -> None:
    """A column an arm, a row an output: scores against the first n trials or minutes, with intervals of what is
    offered and of NEDS alone."""
    with canvas(out, 3.0 * len(results), 5.6, nrows=2, ncols=len(results), squeeze=False) as (figure, axes):
        for column, found in enumerate(results):
            for k, output in enumerate(found["outputs"]):
                some = len(found["sessions"]) / 2  # a row of fewer sessions is another mean
                own = [row for row in found["rows"] if row["output"] == output and row["sessions"] >= some]
                _panel(axes[k, column], own)
                axes[k, column].set_ylabel(output.replace("_", " "), fontsize="small")
            axes[0, column].set_title(f"{found['arm']} {found['title']}", fontsize="medium")
            axes[1, column].set_xlabel("first n minutes" if found["arm"] == 4 else "first n trials", fontsize="small")
        known = {name: line for each in axes.flat for line, name in zip(*each.get_legend_handles_labels(), strict=True)}
        figure.legend(
            list(known.values()),
            list(known),
            loc="outside lower center",
            ncols=len(LINES),
            frameon=False,
            fontsize="small",
        )


def _panel(axes: Axes, rows: list[dict[str, Any]]) -> None:
    rows = sorted((row for row in rows if row["mode"] == "first" and row["n"]), key=lambda row: row["n"])
    lowest = 1.0
    for name, (colour, style) in LINES.items():
        known = [(_place(row), *row["scores"][name]) for row in rows if row["scores"][name]]
        if not known:
            continue
        x, y, low, high = zip(*known, strict=True)
        axes.plot(
            x, y, style, color=colour, marker="o", ms=3, lw=1.4, label={"calibrated": "NEDS alone"}.get(name, name)
        )
        if name in ("offered", "calibrated"):
            axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        lowest = min(lowest, *y)
    axes.set_xscale("log")
    ticks = [_place(row) for row in rows]
    crowded = [n > 1 and any(n < m < 1.3 * n for m in ticks) for n in ticks]
    axes.set_xticks(ticks, ["" if c else f"{n:g}" for n, c in zip(ticks, crowded, strict=True)], fontsize="small")
    axes.minorticks_off()
    if lowest < LOWEST:
        axes.set_ylim(bottom=LOWEST)
    axes.tick_params(labelsize="small")


def _place(row: dict[str, Any]) -> float:
    """Trials, or minutes where they are true ones."""
    return float(row["minutes"]) if "-" not in row["minutes"] else row["n"]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON of arms")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    given = parser.parse_args()
    found = [msgspec.json.decode(path.read_bytes()) for path in given.results]
    curves(sorted(found, key=lambda one: one["arm"]), given.out)


if __name__ == "__main__":
    main()
