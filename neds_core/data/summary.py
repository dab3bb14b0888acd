"""A recording in a few lines: what `Session.summary` says, and what an import says of what it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from neds_core.data.columns import BehaviourSpec

MANY = 12  # names that are said one by one
RARE_HZ = 0.05  # what a training leaves out unless `min_rate_hz` says otherwise
UNKNOWN = "?"  # the region of a unit that has none


def size(n_units: int, n_bins: int, bin_ns: int, n_segments: int) -> str:
    """Units, bins, duration and segments."""
    return (
        f"{n_units} units, {n_bins} bins of {bin_ns * 1e-6:g} ms ({duration(n_bins * bin_ns * 1e-9)}), "
        f"{n_segments or 'no'} {'segment' if n_segments == 1 else 'segments'}"
    )


def rates(hz: np.ndarray) -> str:
    """Rates (U,) of units: median, quartiles, range, and how many are rare."""
    if not len(hz):
        return ""
    low, middle, high = np.percentile(hz, [25, 50, 75])
    return (
        f"median {middle:.2f} Hz (quartiles {low:.3g} to {high:.3g}), {hz.min():.3g} to {hz.max():.3g} Hz; "
        f"{int((hz < RARE_HZ).sum())} units below {RARE_HZ:g} Hz"
    )


def regions(names: np.ndarray) -> str:
    """Regions (U,) with their numbers of units; '' where none is known."""
    found, n = np.unique(names, return_counts=True)
    each = (f"{name} ({k})" for name, k in zip(found, n, strict=True))
    return some(each) if set(found.tolist()) - {UNKNOWN} else ""


def trace(spec: BehaviourSpec, values: np.ndarray) -> str:
    """A trace from its values (n,), NaN = undefined."""
    known = values[np.isfinite(values)]
    if not len(known):
        return f"{spec.name}: NaN throughout"
    return (
        f"{spec.name}: {known.min():.4g} to {known.max():.4g} {spec.unit}".rstrip()
        + f", {1 - len(known) / len(values):.1%} NaN"
    )


def classes(spec: BehaviourSpec, labels: np.ndarray) -> str:
    """A class from the labels (S,) int of the segments, -1 = undefined."""
    each = some(f"{name} ({int((labels == c).sum())})" for c, name in enumerate(spec.classes))
    share = float((labels < 0).mean()) if len(labels) else 1.0
    inferred = f"; labels are inferred{f': {spec.labels_note}' if spec.labels_note else ''}"
    return f"{spec.name}: classes {each}, {share:.1%} undefined{inferred if spec.labels == 'inferred' else ''}"


def moments(each: Mapping[str, np.ndarray]) -> str:
    """Moments of the segments by name, (S,) ms, NaN = it did not happen: in how many it did."""
    return some(f"{name} (in {np.isfinite(ms).sum()} of {len(ms)} segments)" for name, ms in each.items())


def duration(seconds: float) -> str:
    """A time in s, from two minutes on in min."""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def some(names: Iterable[str]) -> str:
    """Names as a list, the first `MANY` of them."""
    found = list(names)
    return ", ".join(found[:MANY]) + (f" and {len(found) - MANY} more" if len(found) > MANY else "")


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """HTML of a title and rows of a label and a text; nothing in them is taken as HTML."""
    style = "text-align:left;vertical-align:top"
    each = "".join(
        f'<tr><th style="{style}">{escape(label)}</th><td style="{style}">{escape(text)}</td></tr>'
        for label, text in rows
    )
    return f'<table><caption style="text-align:left">{escape(title)}</caption>{each}</table>'
