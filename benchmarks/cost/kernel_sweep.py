"""Cost against one factor at a time, the others as in the headline; `neds-rt bench kernels` runs it.

Of the whole step in every factor; of its token ingest alone in units and spikes; and of the floor in layers, where
what the processor's cache does to weights and what the step adds to it come apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Size:
    """Units, layers, width and band of a streaming step, and the mean spikes of a bin."""

    units: int = 449
    layers: int = 5
    width: int = 256
    band: int = 100
    spikes: int = 45  # 5 Hz a unit in bins of 20 ms


FACTORS: dict[str, tuple[int, ...]] = {
    "units": (100, 449, 1500),
    "layers": (2, 5, 16, 22),
    "width": (64, 128, 256, 512),
    "band": (50, 100, 250),
    "spikes": (5, 45, 450),
}
STEP, INGEST, FLOOR = "stream-numba-cpu", "token ingest", "floor"  # how the names of rows begin
SWEPT = {STEP: tuple(FACTORS), INGEST: ("units", "spikes"), FLOOR: ("layers",)}


def sizes(around: Size, factors: dict[str, tuple[int, ...]], name: str = STEP) -> list[Size]:
    """`around`, and every size that differs from it in one of the factors of what is swept."""
    varied = [replace(around, **{f: v}) for f in SWEPT[name] for v in factors[f]]
    return list(dict.fromkeys([around, *varied]))


def points(
    rows: list[dict[str, Any]], around: dict[str, int], factor: str, name: str = STEP
) -> list[tuple[int, dict[str, float]]]:
    """(value of a factor, times in ms) of what is swept, in order, where all else is as in `around`."""
    others = [f.name for f in fields(Size) if f.name != factor]
    mine = [row for row in rows if row["name"].startswith(name) and all(row[o] == around[o] for o in others)]
    return sorted(((row[factor], row["ms"]) for row in mine), key=lambda point: point[0])


def slopes(rows: list[dict[str, Any]], around: dict[str, int]) -> dict[str, dict[str, float]]:
    """Name -> factor -> slope of log p50 against the log of the factor: 1 is linear, 0 is no dependence."""

    def slope(name: str, factor: str) -> float:
        found = points(rows, around, factor, name)
        x, y = np.log([value for value, _ in found]), np.log([ms["p50"] for _, ms in found])
        return round(float(np.polyfit(x, y, 1)[0]), 3)

    return {name: {factor: slope(name, factor) for factor in factors} for name, factors in SWEPT.items()}
