"""`neds-rt calibrate RIG.toml` or `--session FILE`: a judged decoder of today's session, fitted in its own process."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.collect import Wanted, gather
from runtime.cli.options import taking
from runtime.cli.output import emit, note
from runtime.cli.processes import Stop
from runtime.cli.swap import address_of
from runtime.cli.train import Bar
from runtime.start import called

ALSO_RECORDED = ("base", "json")  # options of a collection that a recorded session takes too


@dataclass(frozen=True, kw_only=True)
class Options(Wanted):
    """What `neds-rt calibrate` can be told."""

    rig: Annotated[Path | None, typer.Argument(help="RIG.toml to collect from; or give --session")] = None
    session: Annotated[Path | None, typer.Option(help="recorded session (.npz, or .nwb of neds-rt collect)")] = None
    out: Annotated[Path, typer.Option(help="checkpoint to write (.safetensors)")]
    config: Annotated[Path | None, typer.Option(help="CALIBRATE.toml; none: defaults")] = None
    update: Annotated[bool, typer.Option("--update", help="from what the rig's run decodes with; then ask to swap")] = (
        False
    )
    yes: Annotated[bool, typer.Option("--yes", help="with --update: swap without asking, if nothing is worse")] = False
    address: Annotated[str, typer.Option(help="with --update: the run's control address")] = ""
    resume: Annotated[bool, typer.Option("--resume", help="go on with a collection of another day")] = False


class Timed(Bar):
    """The bar, or a line a stage where there is no terminal; and when each stage began, ns of the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[str, int] = {}

    def stage(self, name: str) -> None:
        """A new stage."""
        self.began[name] = time.monotonic_ns()
        super().stage(name)
        if not self.bar.console.is_terminal:  # no bar is seen
            note(f"stage: {name}")


@taking(Options)
def calibrate(given: Options) -> None:
    """Collect a session from a rig, or read one; fit a decoder in stages, judge it, and write it with its gate.

    Exit code 0: every judged output passed (NEDS or the linear decoder); 3: one did not, and the file says so; 2: the
    session cannot be calibrated on. While it collects, Ctrl-C ends the collection early, and what has come is fitted;
    later it ends the command with nothing written. What was collected stays: the same command goes on with it.
    """
    import msgspec

    from calibration import command
    from neds_core.files import beside

    _refuse(given)
    rig, running = given.rig, None
    address = address_of(rig, given.address) if rig and given.update else ""
    if given.update:
        running = _running(address)
        given = replace(given, base=running.path)
    order = _order(given, running)
    command.refuse(order)
    command.prepared(order)
    if rig is None:
        raise typer.Exit(0 if _fit(given, order, None, {}).passed else 3)
    stop, began, folder = Stop(), time.monotonic_ns(), beside(given.out, "-session")
    collected = gather(given, rig, folder, stop, lambda kept: _looked(given, kept))
    times = {"collect": (began, time.monotonic_ns())}
    _say(collected)
    if stop.first not in (0, signal.SIGINT):
        stop.check()
    found = _fit(given, msgspec.structs.replace(order, session=collected.session), collected, times)
    code = 0 if found.passed else 3
    if found.passed and running is not None:
        code = propose(given, found, address, running)
    sys.stdout.flush()
    os._exit(code)  # liblsl destroys each inlet for 0.5 s


def _refuse(given: Options) -> None:
    """Raise `ConfigError` where it is not clear what to calibrate on."""
    from neds_core.errors import ConfigError

    if (given.rig is None) is (given.session is None):
        both = "a RIG.toml and --session" if given.rig else "neither a RIG.toml nor --session"
        raise ConfigError(f"calibrate: {both} given; give a RIG.toml to collect from, or --session FILE of a recording")
    if not given.update and (given.yes or given.address):
        option = "yes" if given.yes else "address"
        raise ConfigError(f"--{option} is for an update; give --update too, or leave it out")
    if given.rig is not None:
        if given.trials is None and given.minutes is None:
            raise ConfigError("calibrate RIG.toml: nothing says when enough has come; give --trials N or --minutes M")
        if given.update and given.resume:
            raise ConfigError("--resume is for data of another day, and an update takes none; leave it out")
        if given.update and given.base is not None:
            raise ConfigError("--update starts from what the rig's run decodes with; leave --from out")
        return
    if given.update:
        raise ConfigError("--update collects from a rig whose run decodes; give its RIG.toml, and no --session")
    for field in (*fields(Wanted), *(each for each in fields(Options) if each.name == "resume")):
        if field.name not in ALSO_RECORDED and getattr(given, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise ConfigError(f"--{option} is for a collection; leave it out, or give a RIG.toml and no --session")


def _order(given: Options, running: Any) -> Any:
    """What to calibrate, from what a run decodes with (`update.Running`, None = no update). Without --session it has
    none yet."""
    import msgspec

    from calibration.command import Order

    session, base, config = (str(each or "") for each in (given.session, given.base, given.config))
    order = Order(session, base, config, str(given.out))
    if running is None:
        return order
    return msgspec.structs.replace(order, update=True, base_sha=running.sha, decoder=running.decoder)


def _looked(given: Options, kept: Any) -> None:
    """Say how old the data are that a collection holds already. Raises `DataError` where they are too old."""
    from calibration.collecting import folder

    if said := folder.refuse_old(kept, time.time_ns(), update=given.update, resume=given.resume):
        note(said)


def _running(address: str) -> Any:
    """What an update starts from: the decoder of the run."""
    from calibration.update import running_of

    running = running_of(address)
    note(f"an update of {running.model} ({running.sha[:12]}), which goes on decoding")
    return running


def propose(given: Options, found: Any, address: str, running: Any) -> int:
    """Swap an update that has passed into the run, on the operator's word; returns the exit code.

    found: its report; running: what it is an update of. Raises `ConfigError` where the run decodes another by now.
    """
    from calibration.swap import swap
    from calibration.update import refuse_changed, unknown, worse

    refuse_changed(address, running)
    loses, open_ = worse(found.compared), unknown(found.compared, found.offers)
    for names, what in ((loses, "worse than what runs"), (open_, "whether it is worse than what runs is not known")):
        if names:
            note(f"{', '.join(names)}: {what}")
    if given.yes and (loses or open_ or not found.compared):
        note(f"{given.out} is not swapped in")
        return 3
    if not given.yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            note(f"to let it decode: {called('neds-rt')} swap {given.rig} {given.out}")
            return 0
        if not typer.confirm("let it decode in the run?", err=True):
            return 0
    answer = swap(address, given.out, waits=note, expect=running.sha)
    note(answer.said)
    return 0 if answer.ok else 3 if answer.by_gate else 2


def _say(collected: Any) -> None:
    """How the collection went (its `Report`). Raises `DataError` where it cannot be calibrated on."""
    from calibration.collecting import words
    from neds_core.errors import DataError

    emit(collected, lambda: words.summary(collected), False)
    if collected.unwritten:
        raise DataError(f"no session is written: {collected.unwritten}")
    if collected.failed:
        raise DataError(
            f"the collection ended because of an error: {collected.notes[-1]}; the same command goes on with "
            f"{collected.folder}, and --session {collected.session} calibrates on what has come"
        )


def _fit(given: Options, order: Any, collected: Any, times: dict[str, tuple[int, int]]) -> Any:
    """Fit, judge and print; returns the `Report`. collected: the report of a collection, None = there was none."""
    import msgspec

    from calibration import process, report as reports
    from neds_core.errors import NedsError
    from neds_core.files import beside

    began, bar = time.monotonic_ns(), Timed()
    try:
        with bar.bar:
            found = process.run(order, bar)
    except NedsError:
        if collected is not None:
            note(f"what was collected is kept in {collected.folder}; the same command goes on with it")
        raise
    judged, over = bar.began.get("judge", began), time.monotonic_ns()
    times = times | {"fit": (began, judged), "judge": (judged, over)}

    def lines() -> list[str]:
        ending = "its gate passed" if found.passed else "its gate did not pass, so it stays UNGATED"
        page = f"{beside(given.out, '.html')}: the report as a page"
        if found.page_unwritten:
            page = f"no report as a page: {found.page_unwritten}"
        said = [*reports.lines(found), f"{given.out}: written; {ending}", page]
        swap = f"{called('neds-rt')} swap {given.rig} {given.out} has a run go on with it"
        return [*said, swap] if given.rig and found.passed and not given.update else said

    more = {"collection": collected, "monotonic_ns": times} if collected is not None else {}
    emit(msgspec.structs.asdict(found) | more, lines, given.json)
    return found
