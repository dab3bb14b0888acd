"""The picture of `neds-rt bench transfer`: pre-trained against from scratch, a point a session, by training trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, canvas
from benchmarks.studies.transfer_judge import ENCODE, Asked
from neds_core.data.synthetic import SAYS

STYLES = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (SKY, "v"), (RED, "P"), (BLACK, "X"))


def scatter(sessions: list[dict[str, Any]], asked: Asked, out: Path) -> None:
    """sessions: as in `transfer_table.table`. A row of panels a target, a column a number of trials."""
    columns = list(dict.fromkeys(one["trials"] for one in sessions))
    targets = list(dict.fromkeys(one["target"] for one in sessions))
    mice = list(dict.fromkeys(one["mouse"] for one in sessions))
    size = {"nrows": len(targets), "ncols": len(columns), "squeeze": False}
    with canvas(out, 1.0 + 2.4 * len(columns), 2.5 * len(targets), **size) as (figure, axes):
        for row, target in enumerate(targets):
            mine = [one for one in sessions if one["target"] == target]
            both = np.array([[one["scratch"], one["pretrained"]] for one in mine])
            low, high = np.nanmin(both), np.nanmax(both)
            room = 0.05 * max(high - low, 0.01)
            limits = (low - room, high + room)
            for column, trials in enumerate(columns):
                each = axes[row, column]
                each.axline((limits[0], limits[0]), slope=1, color="0.7", lw=0.8, zorder=0)
                if target in asked.classes:
                    each.axhline(0.5, color="0.85", lw=0.8, zorder=0)
                    each.axvline(0.5, color="0.85", lw=0.8, zorder=0)
                for mouse, (colour, marker) in zip(mice, STYLES, strict=False):
                    points = [one for one in mine if (one["trials"], one["mouse"]) == (trials, mouse)]
                    x, y = [one["scratch"] for one in points], [one["pretrained"] for one in points]
                    each.plot(x, y, marker, color=colour, ms=5, alpha=0.85, label=mouse)
                each.set(xlim=limits, ylim=limits, aspect="equal")
                if row == 0:
                    each.set_title(f"{trials} trials" if trials else "all of the first 70 %", fontsize="medium")
            score = "R2" if target in asked.traces else "balanced accuracy"
            unit = "bits/spike" if target == ENCODE else f"{target.replace('_', ' ')}\n{score}"
            axes[row, 0].set_ylabel(f"{unit}\npre-trained")
        axes[0, 0].legend(frameon=False, fontsize="x-small", loc="upper left")
        made_up = f" ({SAYS} animals)" if all(one["session"].startswith(SAYS) for one in sessions) else ""
        figure.supxlabel(f"the same network from scratch{made_up}", fontsize="medium")
