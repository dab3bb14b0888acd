"""`neds-rt bench peers`: latency and skill of what one would use instead, beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.options import Json
from runtime.cli.output import emit, note

QUICK_ROUNDS, QUICK_TRIALS = 1, 2


def peers(
    rounds: Annotated[int, typer.Option(min=1, max=20, help="launches of each row, all rows in turn")] = 2,
    trials: Annotated[int, typer.Option(min=1, max=20, help="held-out trials measured in each launch")] = 5,
    only: Annotated[str, typer.Option(help="a regular expression: rows whose 'size name' it matches")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="one launch of each row, two trials")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON of the report; PNG and HTML beside it")] = None,
    json: Json = False,
) -> None:
    """The published loop, a KV cache in torch, GRU, Kalman filter, ridge and ezmsg on the same streams as neds-rt run.

    Exit 3: a row that has to equal ours does not, or a ratio to ours or the count of wrong ages breaks its gate.
    A gate that lacks a row is incomplete: it neither holds nor is broken.
    """
    from benchmarks import report
    from benchmarks.latency.peers import bench, table

    if quick:
        result = bench.run(QUICK_ROUNDS, QUICK_TRIALS, only, note, tails=1)
    else:
        result = bench.run(rounds, trials, only, note)
    if out is not None:
        report.save(result, out)
        stem = out.with_suffix("")
        report.page(result, table.lines(result), table.draw(result, stem), stem.with_name(f"{stem.name}.html"))
    emit(result, None if json else lambda: table.lines(result), json)
    if result["gate"]["broken"]:
        raise typer.Exit(3)
