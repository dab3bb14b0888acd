"""Scores of outputs that belong together: the coordinates of a point, or the cosine and sine of an angle."""

from __future__ import annotations

from typing import Any

import numpy as np

from neds_core.scores import bootstrap, points as scores
from runtime.core.values import Layout
from runtime.scoring.truth import Truth

Row = dict[str, Any]  # one JSON object

MOVING_PX_S = 25.0  # slower than this over a second, a tracked animal counts as standing
TURNING_DEG_S = 25.0  # the same of an angle
GAINS = ("neds", "blend")  # decoders whose difference from the ridge is given


def errors(
    layout: Layout, said: dict[str, np.ndarray], truth: Truth, bin_ns: int
) -> dict[str, tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Of each group that was measured: its unit, the error (n,) of each decoder in `said`, and the bins (n,) of a part.

    said: decoder -> (n, V) in units, NaN = nothing was said. Parts: "all", and "moving" (of an angle: turning).
    """
    found = {}
    for group, members in scores.groups(layout.specs).items():
        if any(s.name not in truth.traces for s in members):
            continue
        target = np.stack([truth.traces[s.name] for s in members], axis=1)
        columns = [layout.columns[s.name].start for s in members]
        is_angle = bool(members[0].angle)
        between = scores.turn_deg if is_angle else scores.distance
        least = TURNING_DEG_S if is_angle else MOVING_PX_S
        half = max(1, round(0.5e9 / bin_ns))  # a pixel of jitter in one bin is no movement: displacement over 1 s
        speed = np.zeros(len(target))
        moved = between(target[: -2 * half], target[2 * half :])
        speed[half : half + len(moved)] = moved / (2 * half * bin_ns * 1e-9)
        parts = {"all": np.isfinite(target).all(1), "moving": speed > least}
        error = {name: between(target, values[:, columns].astype(np.float64)) for name, values in said.items()}
        found[group] = ("deg" if is_angle else members[0].unit, error, parts)
    return found


def score_points(layout: Layout, said: dict[str, np.ndarray], truth: Truth, trial: np.ndarray, bin_ns: int) -> Row:
    """Median error of each group and decoder, its interval over trials (n,) or blocks, and its paired differences from
    the ridge: below 0 where the decoder is nearer."""
    found: Row = {}
    for group, (unit, error, parts) in errors(layout, said, truth, bin_ns).items():
        row: Row = {"unit": unit}
        for label, mask in parts.items():
            row[f"n_{label}"] = int(mask.sum())
            enough = bootstrap.RULES.enough(trial[mask])
            each = {name: scores.median(e[mask], trial[mask]) for name, e in error.items()} if mask.any() else {}
            for name in error:
                known = name in each and bool(np.isfinite(each[name].value))
                row[f"{name}_median_error_{label}"] = each[name].value if known else None
                row[f"{name}_ci95_{label}"] = list(scores.pooled([each[name]])[1:]) if known and enough else None
            for name in GAINS:
                if name in each and "ridge" in each:
                    row[f"{name}_minus_ridge_{label}"] = _gain(each[name], each["ridge"], enough)
        found[group] = row
    return found


def _gain(ours: scores.Median, theirs: scores.Median, enough: bool) -> Row | None:
    """Difference of two medians with its paired interval, null where trials are too few."""
    value, low, high = scores.paired([ours], [theirs])
    if not np.isfinite(value):
        return None
    return {"value": value, "low": low if enough else None, "high": high if enough else None}
