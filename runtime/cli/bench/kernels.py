"""`neds-rt bench kernels`: the cost of a decoding step."""

from __future__ import annotations

from typing import Annotated

import typer

from runtime.cli.bench.options import Json
from runtime.cli.output import emit


def kernels(
    quick: Annotated[bool, typer.Option(help="the headline size only, in under 45 s")] = False,
    ensembles: Annotated[bool, typer.Option(help="instead: means and blends of 1, 3, 5 and 8 networks")] = False,
    json: Json = False,
) -> None:
    """Cost of a decoding step against the published way and the floor, on one pinned thread.

    Exit 3: it is wrong, or at the headline's size less than 30 times faster than the best full forward, less than 3
    times faster than the step in torch, or longer than 3 times the floor.
    """
    from benchmarks.cost import ensembles as several, kernels as steps
    from benchmarks.cost.full_forward import WrongError

    try:
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
