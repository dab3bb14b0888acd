"""`neds-rt bench ...`: measurements of accuracy and of cost, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(help="Measure: tables on real recordings, with JSON.", no_args_is_help=True)


@bench.command()
def accuracy(
    quick: Annotated[bool, typer.Option(help="the same rows with small grids, short training and one seed")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON-lines file of finished rows; a later call goes on there")
    ] = None,
) -> None:
    """Score NEDS and its peers on the example recordings: skill, paired intervals and cost side by side."""
    import sys
    import time

    import msgspec

    from benchmarks import accuracy as table, accuracy_table

    began, began_cpu = time.perf_counter(), time.process_time()
    path = out or Path("runs") / ("accuracy-quick.jsonl" if quick else "accuracy.jsonl")
    rows = table.run(path, quick, lambda what: print(what, file=sys.stderr, flush=True))
    pooled = accuracy_table.pooled(rows)
    print("\n".join(accuracy_table.lines(pooled)))
    if json:
        made_here = [r for r in pooled if not r["loaded"]]
        spent = sum(r["seconds_search"] + r["seeds"] * r["seconds_train"] for r in made_here)
        result = {
            "quick": quick,
            "minutes_of_this_call": (time.perf_counter() - began) / 60,
            "cpu_minutes_of_this_call": (time.process_time() - began_cpu) / 60,
            "minutes_of_all_rows": spent / 60,
            "machine": table.machine(),
            "table": pooled,
        }
        print(msgspec.json.encode(result).decode())
