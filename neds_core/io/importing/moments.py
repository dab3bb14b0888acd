"""Columns of trials that are times, as moments of the segments: when in each something happened."""

from __future__ import annotations

import re

import numpy as np

from neds_core.data.checks.session import BEYOND_MS
from neds_core.io.importing.found import Trials
from neds_core.io.importing.outputs import plain

NAMED = re.compile(r"(?P<name>.+)_times?$")  # as NWB and ALF name them


def of_trials(
    trials: Trials | None, rows: np.ndarray, begin_s: np.ndarray, notes: list[str]
) -> dict[str, np.ndarray]:  # fmt: skip
    """name -> (S,) float64 ms from the start of each segment, NaN = it did not happen.

    rows (S,): the trial of each segment; begin_s (S,): when it starts. Most times of a column on the trials' clock lie
    between the start of the trial before and the end of the one after; a column of others (durations, say) is no
    moment, and is noted.
    """
    found: dict[str, np.ndarray] = {}
    if trials is None or not len(trials.start_s):
        return found
    for column, values in trials.columns.items():
        match = NAMED.fullmatch(column)
        if match is None or values.dtype.kind != "f":
            continue
        t_s, start_s, stop_s = values[rows], trials.start_s[rows], trials.stop_s[rows]
        known = np.isfinite(t_s)
        near = known & (t_s >= np.r_[start_s[0], start_s[:-1]]) & (t_s <= np.r_[stop_s[1:], stop_s[-1]])
        if not known.any():
            continue
        if 2 * near.sum() < known.sum():
            notes.append(
                f"{column}: {near.sum()} of {known.sum()} lie near their trial, so it is no time and no moment"
            )
            continue
        far = known & ((t_s < start_s - BEYOND_MS * 1e-3) | (t_s > stop_s + BEYOND_MS * 1e-3))
        if far.any():
            notes.append(f"{column}: {far.sum()} of {known.sum()} lie a minute from their trial, and are left out")
        found[plain(match["name"])] = np.where(known & ~far, (t_s - begin_s) * 1e3, np.nan)
    return found
