"""`neds-rt bench compare`: what changed between two reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.options import Json
from runtime.cli.output import emit

Report = Annotated[Path, typer.Argument(help="what neds-rt bench latency --out wrote")]


def compare(
    a: Report,
    b: Report,
    force: Annotated[bool, typer.Option("--force", help="also where the two are unlike")] = False,
    json: Json = False,
) -> None:
    """What changed from A.json to B.json beyond noise: a bootstrap over paired seconds. Exit 3: B is worse."""
    from benchmarks import report
    from benchmarks.latency import compare as judge

    before, after = report.load(a), report.load(b)
    changes = judge.compare(before, after, force)
    found = {"changes": changes, "unlike": judge.unlike(before, after), "worse": [c.name for c in judge.worse(changes)]}
    emit(found, None if json else lambda: judge.lines(before, after, changes), json)
    if found["worse"]:
        raise typer.Exit(3)
