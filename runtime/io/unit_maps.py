"""How a stream's units differ from those that a checkpoint was trained on, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neds_core.data.session import UnitTable
from runtime.core.words import quoted
from runtime.io.lsl_description import Unit, unit_rows

DEPTHS = "ids and regions are the same in the same order, so depths differ, or how the lines are written (docs/lsl.md)"


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
