"""`neds-rt bench kernels`: the cost of a decoding step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neds_core.errors import ConfigError
from runtime.cli.bench.options import Json
from runtime.cli.output import emit


def kernels(
    quick: Annotated[bool, typer.Option(help="the headline size only, in under 45 s")] = False,
    ensembles: Annotated[bool, typer.Option(help="instead: means and blends of 1, 3, 5 and 8 networks")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="instead: a step every 20 ms, and what makes its caches warm; under 4 min")
    ] = False,
    json: Json = False,
    out: Annotated[Path | None, typer.Option(help="with --cold: FILE.json of the report")] = None,
) -> None:
    """Cost of a decoding step against the published way and the floor, on one pinned thread.

    Exit 3: it is wrong, or at the headline's size less than 30 times faster than the best full forward, less than 3
    times faster than the step in torch, or longer than 3 times the floor.
    """
    from benchmarks import report
    from benchmarks.cost import cold as paced, ensembles as several, kernels as steps
    from benchmarks.cost.full_forward import WrongError

    if out is not None and not cold:
        raise ConfigError(f"--out {out}: is for --cold; add that, or leave it out")
    try:
        if cold:
            found = report.begun("kernels-cold") | paced.run(quick)
            if out is not None:
                report.save(found, out)
            emit(found, lambda: paced.lines(found), json)
            return
        if ensembles:
            found = several.run()
            emit(found, lambda: several.lines(found), json)
            return
        result = steps.run(quick)
    except WrongError as error:
        print(error)
        raise typer.Exit(3) from None
    emit(result, lambda: steps.lines(result), json)
    if not result["gate"]["passed"]:
        raise typer.Exit(3)
