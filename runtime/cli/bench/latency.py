"""`neds-rt bench latency`: whether decoding is on time, every time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.bench.options import Json
from runtime.cli.options import taking
from runtime.cli.output import emit, note


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt bench latency`."""

    rig: Annotated[Path | None, typer.Argument(help="RIG.toml; none: the demo")] = None
    seconds: Annotated[float, typer.Option(help="length of the measurement, after the warm-up")] = 60.0
    warm_up: Annotated[float, typer.Option(min=0.0, max=600.0, help="seconds at the start that count apart")] = 5.0
    saturated: Annotated[
        bool, typer.Option("--saturated", help="instead: one bin after the other, as fast as it goes, without LSL")
    ] = False
    checkpoint: Annotated[Path | None, typer.Option(help="another checkpoint than the rig's")] = None
    decoder: Annotated[str | None, typer.Option(help="neds, ridge, blend or recommended")] = None
    weights: Annotated[str | None, typer.Option(help="float32, bfloat16 or int8")] = None
    units: Annotated[
        int | None, typer.Option(min=1, max=5000, help="a model with random weights for so many units; needs --rate")
    ] = None
    rate: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="made-up spikes a second; 0: the rig's recording is played")
    ] = 0.0
    burst: Annotated[int, typer.Option(min=0, max=100_000, help="more spikes within 2 ms, once a second")] = 0
    push_ms: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="ms between two chunks of the sender, 0: a quarter of a bin")
    ] = 0.0
    streams: Annotated[
        int, typer.Option(min=0, max=4, help="1: spikes, 2: and markers, 3 and 4: and behaviours; 0: as the rig has")
    ] = 0
    budget: Annotated[
        str | None, typer.Option(help="a gate, such as p99=10ms,miss=1e-4: exit 3 where it is broken")
    ] = None
    sweep: Annotated[str | None, typer.Option(help="instead: short runs over units, rate or bins")] = None
    out: Annotated[
        Path | None, typer.Option(help="FILE.json; beside it FILE.html, FILE.cdf.png and FILE.timeline.png")
    ] = None
    json: Json = False


@taking(Options)
def latency(given: Options) -> None:
    """Bin edge to published, over real LSL and ZeroMQ: percentiles, missed deadlines and their causes.

    Exit 3: --budget is broken.
    """
    from benchmarks import report
    from benchmarks.latency import bench, budget, saturated, words
    from runtime.cli.bench import asking

    limits = None if given.budget is None else budget.parse(given.budget)
    asking.check(given)
    if given.sweep is not None:
        _sweep(given)
        return
    asked = asking.asked(given)
    result = saturated.saturated(asked) if given.saturated else bench.paced(asked, note)
    if given.out is not None:
        report.save(result, given.out)
        _page(result, given.out)
    emit(result, None if given.json else lambda: words.lines(result), given.json)
    if limits is not None and (said := budget.broken(limits, result)):
        note(said)
        raise typer.Exit(3)


def _page(result: dict[str, Any], out: Path) -> None:
    """The pictures and the page of a report beside its JSON."""
    from benchmarks import report
    from benchmarks.latency import figures, words

    stem = out.with_suffix("")
    pictures = figures.draw(result, stem)
    report.page(result, words.lines(result), pictures, stem.with_name(f"{stem.name}.html"))


def _sweep(given: Options) -> None:
    from benchmarks import report
    from benchmarks.latency import sweep

    assert given.sweep is not None
    result = sweep.run(given.sweep, given.seconds, given.warm_up, note)
    if given.out is not None:
        report.save(result, given.out)
    emit(result, None if given.json else lambda: sweep.lines(result), given.json)
