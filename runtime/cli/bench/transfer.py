"""`neds-rt bench transfer`: whether NEDS of other mice helps a new one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Folder, Json
from runtime.cli.options import taking
from runtime.cli.output import emit, note


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt bench transfer`."""

    folder: Folder = None
    quick: Annotated[bool, typer.Option(help="30 trials, one seed and short schedules, in a few minutes")] = False
    trials: Annotated[list[int] | None, typer.Option(min=0, help="training trials, 0: all of the first 70 %")] = None
    seeds: Annotated[int | None, typer.Option(min=1, help="training seeds at 30 trials; one elsewhere")] = None
    made_up: Annotated[bool, typer.Option("--made-up", help="synthetic animals that share their latents")] = False
    out: Annotated[
        Path | None, typer.Option(help="JSON-lines file of finished rows, trunks beside it; a later call goes on there")
    ] = None
    figure: Annotated[Path | None, typer.Option(help="PNG: pre-trained against scratch, a point a session")] = None
    json: Json = False


@taking(Options)
def transfer(given: Options) -> None:
    """Train NEDS on all mice but one, tune it on the first trials of that one, and compare with three controls."""
    from neds_core.errors import ConfigError

    with from_checkout():
        from benchmarks.studies import made_up, transfer as study, transfer_table
    from benchmarks.accuracy.mice import steinmetz

    if given.made_up and given.folder:
        raise ConfigError(f"--made-up and the folder {given.folder} were both given; leave one of them out")
    asked = study.sized(study.study(given.quick, given.made_up), given.trials, given.seeds)
    name = f"transfer{'-made-up' * given.made_up}{'-quick' * given.quick}.jsonl"
    if given.made_up:
        bundles = made_up.bundles(made_up.WORLD, asked.asked.outputs)
    else:
        bundles = steinmetz.read_folder(given.folder or steinmetz.FOLDER)
    rows = study.run(bundles, asked, given.out or Path("runs") / name, note)
    result = transfer_table.table(rows, asked)

    def lines() -> Iterator[str]:
        yield from transfer_table.lines(result)
        if given.figure:
            from benchmarks.studies.transfer_figures import scatter

            scatter(result["sessions"], asked.asked, given.figure)
            yield f"wrote {given.figure}"

    emit(result, lines, given.json)
