"""`neds-rt calibrate --session FILE.npz`: a judged decoder of a session, fitted in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.options import taking
from runtime.cli.output import emit
from runtime.cli.train import Bar


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt calibrate`."""

    session: Annotated[Path, typer.Option(help="recorded session (Session.npz)")]
    out: Annotated[Path, typer.Option(help="checkpoint to write (.safetensors)")]
    base: Annotated[
        Path | None, typer.Option("--from", help="checkpoint or trunk to start from; none: a first day, from scratch")
    ] = None
    config: Annotated[Path | None, typer.Option(help="CALIBRATE.toml; none: defaults")] = None
    json: Annotated[bool, typer.Option("--json", help="print the report as JSON, last")] = False


@taking(Options)
def calibrate(given: Options) -> None:
    """Fit a decoder to a session in stages, judge it on a part of its own, and write it with its gate.

    Exit code 0: every judged output passed (NEDS or the linear decoder); 3: one did not, and the file says so; 2: the
    session cannot be calibrated on. Ctrl-C ends it with nothing written.
    """
    from calibration import command, process, report as reports
    from neds_core.files import beside

    order = command.Order(str(given.session), str(given.base or ""), str(given.config or ""), str(given.out))
    command.refuse(order)
    bar = Bar()
    with bar.bar:
        found = process.run(order, bar)

    def lines() -> list[str]:
        ending = "its gate passed" if found.passed else "its gate did not pass, so it stays UNGATED"
        page = beside(given.out, ".html")
        return [*reports.lines(found), f"{given.out}: written; {ending}", f"{page}: the report as a page"]

    emit(found, lines, given.json)
    if not found.passed:
        raise typer.Exit(3)
