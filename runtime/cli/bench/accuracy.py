"""`neds-rt bench accuracy`: NEDS and its peers on the example recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.options import Json, Out, Report
from runtime.cli.output import emit, note


def accuracy(
    quick: Annotated[bool, typer.Option(help="the same rows with small grids, short training and one seed")] = False,
    json: Json = False,
    out: Out = None,
    only: Annotated[
        str, typer.Option(help="a regular expression of 'recording task split peer'; join files of rows with cat")
    ] = "",
    figures: Annotated[Path | None, typer.Option(help="folder for bars and for scatters trial by trial")] = None,
    report: Report = None,
) -> None:
    """Score NEDS and its peers on the example recordings: skill, paired intervals and cost side by side."""
    import time

    from benchmarks import report as reports
    from benchmarks.accuracy import compare, goals, table

    reports.check_path("--report", report)
    began, began_cpu = time.perf_counter(), time.process_time()
    path = out or Path("runs") / ("accuracy-quick.jsonl" if quick else "accuracy.jsonl")
    rows = compare.run(path, quick, note, only=only)
    pooled, judged = table.pooled(rows), goals.judge(rows)
    where, minutes = compare.conditions(), table.cpu_minutes(pooled)
    found = {
        "quick": quick,
        "minutes_of_this_call": (time.perf_counter() - began) / 60,
        "cpu_minutes_of_this_call": (time.process_time() - began_cpu) / 60,
        "cpu_minutes_of_all_rows": minutes,
        "machine": where,
        "goals": judged,
        "table": pooled,
    }
    result = reports.of("accuracy", found)
    machine = f"{where['cpu']}, one thread, torch {where['versions']['torch']}"
    words = [*table.lines(pooled), "", *goals.lines(judged), ""]
    words.append(f"{minutes:.0f} CPU minutes of search and training; {machine}")
    if report is not None:
        reports.write(result, words, report)

    def lines() -> Iterator[str]:
        yield from words
        if figures:
            from benchmarks.accuracy.figures import draw

            yield from (f"wrote {file}" for file in draw(figures, rows, pooled))

    emit(result, lines, json)
