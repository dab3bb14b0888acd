"""`neds-rt bench soak`: hours of a rig, and whether anything grows, breaks or does not come back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.options import Json
from runtime.cli.options import taking
from runtime.cli.output import emit, note

MOST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt bench soak`."""

    rig: Annotated[Path | None, typer.Argument(help="RIG.toml; none: the demo")] = None
    hours: Annotated[float | None, typer.Option(help="length of the soak, after the warm-up")] = None
    seconds: Annotated[float | None, typer.Option(help="the same in seconds")] = None
    every: Annotated[float, typer.Option(min=0.0, help="seconds of a row; 0: an hour, or a twelfth of the soak")] = 0.0
    warm_up: Annotated[float, typer.Option(min=1.0, max=3600.0, help="seconds at the start that do not count")] = 60.0
    faults: Annotated[
        bool, typer.Option("--faults", help="stop or restart sender, loop and subscriber at random moments")
    ] = False
    seed: Annotated[int | None, typer.Option(min=0, help="of the faults; none: a new one, which is printed")] = None
    out: Annotated[Path | None, typer.Option(help="FILE.json; beside it FILE.html and FILE.soak.png")] = None
    json: Json = False


@taking(Options)
def soak(given: Options) -> None:
    """Run a rig for hours through the real path: tails, misses, memory, threads, files and conservation, row by row.

    Its recording is played again and again. Exit 3: it leaks, conservation breaks, or it does not come back.
    """
    import secrets

    from benchmarks import report
    from benchmarks.latency import soak as soaking
    from benchmarks.latency.load import Load
    from neds_core.errors import ConfigError
    from runtime import config as rigs
    from runtime.cli.demo import demo

    if (given.hours is None) == (given.seconds is None):
        raise ConfigError("bench soak needs --hours or --seconds, and not both")
    rigs.check_seconds("--seconds", given.seconds)
    rigs.check_seconds("--hours", given.hours)
    if given.out is not None and (given.out.suffix != ".json" or not given.out.absolute().parent.is_dir()):
        raise ConfigError(f"--out {given.out}: give FILE.json in a folder that exists; its page lies beside it")
    seconds = given.seconds if given.seconds is not None else 3600.0 * (given.hours or 0.0)
    config = rigs.load(given.rig if given.rig is not None else demo() / "rig.toml")
    row_s = given.every or (3600.0 if seconds >= 3 * 3600.0 else seconds / MOST_ROWS)
    seed = (given.seed if given.seed is not None else secrets.randbelow(10**6)) if given.faults else None
    found = soaking.run(soaking.Asked(config, Load(), seconds, row_s, given.warm_up, seed), note)
    if given.out is not None:
        report.save(found, given.out)
        stem = given.out.with_suffix("")
        report.page(found, soaking.lines(found), soaking.draw(found, stem), stem.with_name(f"{stem.name}.html"))
    emit(found, None if given.json else lambda: soaking.lines(found), given.json)
    if found["broken"]:
        raise typer.Exit(3)
