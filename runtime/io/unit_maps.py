"""A stream's unit table, and how it differs from that of a checkpoint, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from neds_core.data.session import UnitTable
from neds_core.errors import DataError, StreamError
from runtime.core.words import quoted
from runtime.io.lsl_description import Description, Unit, unit_rows

JUST = float(np.finfo(np.float32).tiny)
DEPTHS = "ids and regions are the same in the same order, so depths differ, or how the lines are written (docs/lsl.md)"


def table(name: str, description: Description) -> UnitTable:
    """The units of the stream `name`, which no checkpoint knows. Raises `StreamError` where it does not tell them."""
    if not description.units:
        raise StreamError(
            f"stream {quoted(name)} sends no unit table, so its units have no identity; send source_id, region and "
            "depth_um of each (docs/lsl.md)"
        )
    try:
        units = of_rows([Unit(uid, region, depth or "nan") for uid, region, depth in description.units])
    except (ValueError, DataError) as error:
        raise StreamError(
            f"stream {quoted(name)} has a unit table that cannot be read ({error}); send whole numbers as source_id "
            "and micrometres, or nan, as depth_um"
        ) from None
    if len(np.unique(units.ids)) < len(units):
        raise StreamError(f"stream {quoted(name)} sends a source_id twice; number the units of all probes through")
    if units.sha256 != description.unit_map_sha:
        raise StreamError(
            f"stream {quoted(name)} sends a unit table that does not give its unit_map_sha256; send depth_um of each "
            "unit, and the hash of these lines (docs/lsl.md)"
        )
    return units


def of_rows(rows: Sequence[tuple[str, str, str]]) -> UnitTable:
    """A unit table from rows of text (id, region, depth in um). Raises `ValueError` or `DataError`."""
    return UnitTable(
        np.array([int(row[0]) for row in rows], np.int64),
        np.array([row[1] for row in rows], np.str_),
        np.array([_depth(row[2]) for row in rows], np.float32),
    )


def _depth(text: str) -> float:
    """A depth; one just above the reference is written -0.0, and stays below 0, so that the table has the same hash."""
    value = float(text)
    return -JUST if value == 0.0 and text.lstrip().startswith("-") else value


def difference(sent: Sequence[Unit], trained: UnitTable) -> tuple[str, str]:
    """What differs, and the remedy. sent: the stream's table, empty where it has none."""
    wanted = unit_rows(trained)
    if not sent:
        return "it sends no unit table to compare", "send the checkpoint's units in its order, or train on these units"
    with_depth = all(unit.depth_um for unit in sent)
    ours, theirs = ([unit if with_depth else unit[:2] for unit in table] for table in (wanted, sent))
    rows = [k for k, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
    missing, extra = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
    if not missing and not extra and not rows:
        return DEPTHS, "send the lines that the checkpoint was trained on"
    first = _row(rows[0], sent, wanted, with_depth) if rows else f"first row {min(len(sent), len(wanted))}"
    if not missing and not extra:
        what = f"the same {len(wanted)} units in another order, {len(rows)} rows differ, {first}"
        return what, "send them in the checkpoint's order, or train on this order"
    shared = len(wanted) - missing.total()
    sizes = f"{len(sent)} units, the checkpoint has {len(wanted)}; " if len(sent) != len(wanted) else ""
    what = f"{sizes}{extra.total()} of its units are not the checkpoint's, {shared} are, {first}"
    return what, "train a checkpoint on these units"


def _row(row: int, sent: Sequence[Unit], wanted: Sequence[Unit], with_depth: bool) -> str:
    """The first row that differs."""
    there, here = (_unit(table[row], with_depth) for table in (sent, wanted))
    return f"first row {row}: {there} instead of {here}"


def _unit(unit: Unit, with_depth: bool) -> str:
    depth = f" at {unit.depth_um} um" if with_depth and unit.depth_um != "nan" else ""
    return f"unit {quoted(unit.source_id)} in {quoted(unit.region)}{depth}"
