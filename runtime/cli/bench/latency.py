"""`neds-rt bench latency`: whether decoding is on time, every time."""

from __future__ import annotations

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
    from benchmarks.latency import bench, budget, figures, saturated, words

    limits = None if given.budget is None else budget.parse(given.budget)
    asking.check(given)
    if asking.several(given):
        _several(given)
        return
    asked = asking.asked(given)
    result = saturated.saturated(asked) if given.saturated else bench.paced(asked, note)
    if given.out is not None:
        report.write(result, words.lines(result), given.out, figures.draw(result, given.out.with_suffix("")))
    emit(result, None if given.json else lambda: words.lines(result), given.json)
    if limits is not None and (said := budget.broken(limits, result)):
        note(said)
        raise typer.Exit(3)


def _several(given: Options) -> None:
    from benchmarks import report
    from benchmarks.latency import conditions, figures, sweep
    from benchmarks.latency.two_hosts import measure

    out, lines = given.out, measure.lines if given.two_hosts else sweep.lines
    keep = sweep.nowhere if out is None else lambda found: report.save(found, out)
    if given.two_hosts:
        result = measure.run(asking.asked(given), note)
    elif given.sweep == conditions.TABLE:
        result = conditions.run(asking.asked(given), note, keep)
    else:
        swept = tuple(sweep.FACTORS) if given.sweep == asking.ALL else (str(given.sweep),)
        result = sweep.run(swept, asking.seconds(given), given.warm_up, note, keep)
    if out is not None:
        report.write(result, lines(result), out, figures.draw(result, out.with_suffix("")))
    emit(result, None if given.json else lambda: lines(result), given.json)
