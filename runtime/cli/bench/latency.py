"""`neds-rt bench latency`: whether decoding is on time, every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from runtime.cli.bench import asking
from runtime.cli.bench.asking import Options
from runtime.cli.options import taking
from runtime.cli.output import emit, note


@taking(Options)
def latency(given: Options) -> None:
    """Bin edge to published, over real LSL and ZeroMQ: percentiles, missed deadlines and their causes.

    Exit 3: --budget is broken.
    """
    from benchmarks import report
    from benchmarks.latency import bench, budget, saturated, words

    limits = None if given.budget is None else budget.parse(given.budget)
    asking.check(given)
    if given.sweep is not None:
        _sweep(given)
        return
    asked = asking.asked(given)
    result = saturated.saturated(asked) if given.saturated else bench.paced(asked, note)
    if given.out is not None:
        report.save(result, given.out)
        _page(result, words.lines(result), given.out)
    emit(result, None if given.json else lambda: words.lines(result), given.json)
    if limits is not None and (said := budget.broken(limits, result)):
        note(said)
        raise typer.Exit(3)


def _page(result: dict[str, Any], lines: Iterable[str], out: Path) -> None:
    """The pictures and the page of a report beside its JSON."""
    from benchmarks import report
    from benchmarks.latency import figures

    stem = out.with_suffix("")
    pictures = figures.draw(result, stem)
    report.page(result, lines, pictures, stem.with_name(f"{stem.name}.html"))


def _sweep(given: Options) -> None:
    from benchmarks import report
    from benchmarks.latency import conditions, sweep

    assert given.sweep is not None
    if given.sweep == conditions.TABLE:
        result = conditions.run(asking.asked(given), note)
    else:
        swept = tuple(sweep.FACTORS) if given.sweep == asking.ALL else (given.sweep,)
        result = sweep.run(swept, asking.seconds(given), given.warm_up, note)
    if given.out is not None:
        report.save(result, given.out)
        _page(result, sweep.lines(result), given.out)
    emit(result, None if given.json else lambda: sweep.lines(result), given.json)
