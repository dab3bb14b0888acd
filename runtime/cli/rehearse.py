"""`neds-rt rehearse`: a calibration from its first trial to the swap, with a recording in place of the animal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.output import emit, note


def rehearse(
    trials: Annotated[int, typer.Option(help="to collect; 29 at least")] = 75,
    out: Annotated[Path | None, typer.Option(help="folder to write; none: a new one in runs/")] = None,
    config: Annotated[Path | None, typer.Option(help="CALIBRATE.toml; none: defaults")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Play units that the base has never seen, calibrate on them beside a decoding run, judge, and swap in.

    Takes minutes. Exit code 0: every message across the swap was of the decoder that it named and fresh, and the new
    decoder decodes as it does offline; 3: not so. Whether its gate passes is reported and does not matter here.
    """
    began = time.monotonic()
    from calibration.rehearsal import found as finding, rehearse as rehearsing
    from runtime.cli.demo import demo

    folder = out or Path("runs") / time.strftime("rehearsal-%Y%m%d-%H%M%S")
    found = rehearsing.rehearse(rehearsing.Asked(demo(), folder, trials, config), began, note)
    emit(found, lambda: finding.lines(found), json)
    if not found.ok:
        raise typer.Exit(3)
