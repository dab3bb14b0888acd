"""`neds-rt simulate ...`: made-up animals, so that what a decoder does has consequences. No figure is of a real one."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli.options import taking
from runtime.cli.output import emit, note
from runtime.cli.processes import Stop

simulate = typer.Typer(
    help="Simulate an animal in a closed loop; every figure says so.", no_args_is_help=True, rich_markup_mode=None
)


@dataclass(frozen=True)
class Options:
    """What `neds-rt simulate closed-loop` can be told; an option that is not given is as in `Order`."""

    decoder: Annotated[list[str] | None, typer.Option(help="ridge, neds or oracle; several times: all of these")] = None
    delay_ms: Annotated[list[int] | None, typer.Option(help="added to the run's own; several times")] = None
    seeds: Annotated[list[int] | None, typer.Option(help="animals; several times")] = None
    trials: Annotated[int | None, typer.Option(help="for each seed, decoder and delay")] = None
    open_trials: Annotated[int | None, typer.Option(help="to calibrate on")] = None
    effector: Annotated[str | None, typer.Option(help="cursor (two axes) or wheel (one)")] = None
    adapt: Annotated[bool, typer.Option(help="the animal learns to correct its aim")] = True
    refit: Annotated[bool, typer.Option(help="relabel what was intended, calibrate and play again")] = True
    out: Annotated[Path | None, typer.Option(help="JSON-lines file of finished blocks; a later call goes on there")] = (
        None
    )
    work: Annotated[Path | None, typer.Option(help="folder of sessions and checkpoints; none: beside --out")] = None
    quick: Annotated[bool, typer.Option(help="one animal, two delays, a small network: a few minutes")] = False
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False


@taking(Options)
def closed_loop(given: Options) -> None:
    """A simulated animal whose cursor or wheel moves by what `neds-rt run` decodes from its spikes, in real time.

    Success, time to target and path efficiency for each decoder and added delay, before and after ReFIT.
    """
    stop = Stop()
    from calibration.simulating import study as studies, table
    from runtime.io.lsl_resolve import REPLAY_SESSION, configure

    order = studies.ordered(
        given.quick, decoders=given.decoder, delays_ms=given.delay_ms, seeds=given.seeds, trials=given.trials,
        open_trials=given.open_trials, effector=given.effector, adapts=given.adapt, refit=given.refit,
    )  # fmt: skip
    with ExitStack() as stack:
        work = given.work or (given.out.with_suffix(".work") if given.out else None)
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="neds-rt-")))
        study = studies.Study(order, folder, given.out, note, stop.check)
        configure(REPLAY_SESSION, "machine")
        found = table.build(study.run())
    emit(found, None if given.json else lambda: table.lines(found), given.json)
    os._exit(0)  # liblsl destroys each outlet for a while
