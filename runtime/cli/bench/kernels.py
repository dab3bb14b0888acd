"""`neds-rt bench kernels`: the cost of a decoding step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.bench.options import Json, Report
from runtime.cli.output import emit


def kernels(
    quick: Annotated[bool, typer.Option(help="the headline size only, in under 45 s")] = False,
    ensembles: Annotated[bool, typer.Option(help="instead: means and blends of 1, 3, 5 and 8 networks")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="instead: a step every 20 ms, and what makes its caches warm; under 4 min")
    ] = False,
    json: Json = False,
    out: Report = None,
) -> None:
    """Cost of a decoding step against the published way and the floor, on one pinned thread.

    Exit 3: it is wrong, or at the headline's size less than 30 times faster than the best full forward, less than 3
    times faster than the step in torch, or longer than 3 times the floor.
    """
    from benchmarks import report
    from benchmarks.cost import cold as paced, ensembles as several, kernels as steps
    from benchmarks.cost.full_forward import WrongError

    report.check_path("--out", out)
    try:
        if cold:
            result, lines = report.of("kernels-cold", paced.run(quick)), paced.lines
        elif ensembles:
            result, lines = report.of("kernels-ensembles", several.run()), several.lines
        else:
            result, lines = report.of("kernels", steps.run(quick)), steps.lines
    except WrongError as error:
        print(error)
        raise typer.Exit(3) from None
    if out is not None:
        report.write(result, lines(result), out, _pictures(result, out))
    emit(result, lambda: lines(result), json)
    if "gate" in result and not result["gate"]["passed"]:
        raise typer.Exit(3)


def _pictures(result: dict[str, Any], out: Path) -> dict[str, Path]:
    """Cost against size, where that was swept."""
    from benchmarks.cost import kernel_figures

    if not result.get("sweep"):
        return {}
    png = out.with_suffix(".png")
    kernel_figures.draw(result, png)
    return {"Cost of a step": png}
