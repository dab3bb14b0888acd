"""The units of several sources of one recording, such as a Phy folder for each probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neds_core.data.session import UnitTable
from neds_core.errors import DataError
from neds_core.io.importing.found import Found

APART = 1_000_000  # between the first ids of two sources


def joined(parts: Sequence[Found], names: Sequence[str]) -> Found:
    """Spikes of all, in time order; ids of the k-th source begin at k times a million. names: of the sources.

    Raises `DataError` for one that holds more than spikes, since nothing says whose behaviour counts; for one that is
    there twice, and for one whose spikes lie before or after all of the first.
    """
    for found, name in zip(parts, names, strict=True):
        if found.session is not None or found.traces or found.trials is not None or np.isfinite(found.observed_s).any():
            raise DataError(f"{name} holds more than spikes, and only spikes are joined; import it alone")
        if ((found.units.ids < 0) | (found.units.ids >= APART)).any():
            raise DataError(f"{name}: ids are not all from 0 to {APART - 1}; number its units anew to join it")
    _refuse_twice(parts, names)
    _refuse_apart(parts, names)
    units = UnitTable(
        np.concatenate([found.units.ids + k * APART for k, found in enumerate(parts)]),
        np.concatenate([found.units.region for found in parts]),
        np.concatenate([found.units.depth_um for found in parts]),
    )
    rows = np.cumsum([0, *(len(found.units) for found in parts)])
    t_s = np.concatenate([found.t_s for found in parts])
    unit = np.concatenate([found.unit + np.int32(row) for found, row in zip(parts, rows, strict=False)])
    order = np.argsort(t_s, kind="stable")
    quality: dict[str, int] = {}
    for found in parts:
        for label, n in found.quality.items():
            quality[label] = quality.get(label, 0) + n
    ids = ", ".join(f"{name} from {k * APART}" for k, name in enumerate(names))
    notes = (
        f"units of {len(parts)} sources are joined, and their ids counted apart: {ids}",
        "their times are taken as those of one clock, unchecked; put them on one before where each probe has its own",
        *(note for found in parts for note in found.notes),
    )
    sources = tuple((name, len(found.units)) for found, name in zip(parts, names, strict=True))
    return replace(parts[0], t_s=t_s[order], unit=unit[order], units=units, quality=quality, notes=notes, parts=sources)


def refuse_silent(found: Found, unit: np.ndarray) -> None:
    """Raise `DataError` for a joined source of which no spike is in the session. unit (n,): rows of those that are."""
    rows = np.cumsum([0, *(n for _, n in found.parts)])
    for (name, _), low, high in zip(found.parts, rows, rows[1:], strict=False):
        if not ((unit >= low) & (unit < high)).any():
            raise DataError(
                f"{name} has no spike in the session; put its times on the clock of the others or leave it out"
            )


def _refuse_twice(parts: Sequence[Found], names: Sequence[str]) -> None:
    for k, found in enumerate(parts):
        for other, name in zip(parts[:k], names, strict=False):
            if len(found.t_s) and np.array_equal(found.t_s, other.t_s) and np.array_equal(found.unit, other.unit):
                raise DataError(f"{names[k]} holds the spikes of {name}, each a second time; give every probe once")


def _refuse_apart(parts: Sequence[Found], names: Sequence[str]) -> None:
    """Raise `DataError` for sources that share no time with the first."""
    spans = [(found.t_s[0], found.t_s[-1], name) for found, name in zip(parts, names, strict=True) if len(found.t_s)]
    for begin, end, name in spans[1:]:
        low, high, first = spans[0]
        if end < low or begin > high:
            raise DataError(
                f"spikes of {name} last from {begin:.6g} to {end:.6g} s and those of {first} from {low:.6g} to "
                f"{high:.6g} s, apart; put the times of all probes on one clock"
            )
