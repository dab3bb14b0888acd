"""Cost of a step against one factor at a time, the others as in the headline; `neds-rt bench kernels` runs it."""

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


def sizes(around: Size, factors: dict[str, tuple[int, ...]]) -> list[Size]:
    """`around`, and every size that differs from it in one factor."""
    return list(dict.fromkeys([around, *(replace(around, **{f: v}) for f, values in factors.items() for v in values)]))


def points(rows: list[dict[str, Any]], around: dict[str, int], factor: str) -> list[tuple[int, dict[str, float]]]:
    """(value of a factor, its times in ms), in order, of the rows that differ from `around` in nothing else."""
    others = [f.name for f in fields(Size) if f.name != factor]
    found = [(row[factor], row["ms"]) for row in rows if all(row[name] == around[name] for name in others)]
    return sorted(found, key=lambda point: point[0])


def slopes(rows: list[dict[str, Any]], around: dict[str, int]) -> dict[str, float]:
    """Of log p50 against the log of each factor: 1 is linear, 0 is no dependence."""
    out = {}
    for f in fields(Size):
        found = points(rows, around, f.name)
        if len(found) > 1:
            x, y = np.log([value for value, _ in found]), np.log([ms["p50"] for _, ms in found])
            out[f.name] = round(float(np.polyfit(x, y, 1)[0]), 3)
    return out
