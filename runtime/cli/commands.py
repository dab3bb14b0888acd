"""The commands of `neds-rt`: one a file beside this one; heavy imports happen inside the commands."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from neds_core.errors import ConfigError, NedsError
from neds_core.files import FULL, unwritten
from runtime.cli.bench.main import bench
from runtime.cli.calibrate import calibrate
from runtime.cli.certify import certify
from runtime.cli.check import check
from runtime.cli.client import client
from runtime.cli.collect import collect
from runtime.cli.doctor import doctor
from runtime.cli.ensemble import ensemble
from runtime.cli.evaluate import evaluate
from runtime.cli.export.main import export
from runtime.cli.import_decoder import import_decoder
from runtime.cli.import_official import import_official
from runtime.cli.import_session import import_session
from runtime.cli.init.main import init
from runtime.cli.output import note
from runtime.cli.ownership import refuse_foreign_packages
from runtime.cli.parity import parity
from runtime.cli.play import play
from runtime.cli.rehearse import rehearse
from runtime.cli.report import report
from runtime.cli.run import run
from runtime.cli.simulate import closed_loop, simulate
from runtime.cli.swap import freeze, rollback, swap
from runtime.cli.train import train
from runtime.cli.tune import tune
from runtime.cli.verify import verify
from runtime.console import open_console
from runtime.core.words import safe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [map] in a help text for a style
)


def _say_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"neds-rt {metadata.version('neds-rt')}")
        except metadata.PackageNotFoundError:
            print("neds-rt, not installed: a source tree")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Decode behaviour from spikes while the animal is still moving."""


COMMANDS = (
    run, play, report, init, doctor, check, client, certify, collect, calibrate, swap, rollback, freeze, rehearse,
    train, tune, ensemble, evaluate, verify, parity, import_official, import_decoder, export,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.command("import")(import_session)
app.add_typer(bench, name="bench")
simulate.command("closed-loop")(closed_loop)
app.add_typer(simulate, name="simulate")


def _leave_a_folder_that_is_gone() -> None:
    """Torch's libraries do not load where the current folder has been deleted."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")
        note("the current folder is gone: relative paths begin at /")


def run_command() -> None:
    """Run the command that `sys.argv` names; a `NedsError` is one sentence on stderr."""
    open_console()
    _leave_a_folder_that_is_gone()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        refuse_foreign_packages()
        _run()
    except NedsError as error:
        print(f"neds-rt: {safe(str(error))}", file=sys.stderr)
        sys.exit(2)


def _run() -> None:
    from kernels import KernelError  # not before its package is known to be ours

    try:
        with _printed():
            app()
    except KernelError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:  # a library of others that writes, such as one of figures
        if error.errno not in FULL | {errno.EROFS}:
            raise
        raise unwritten(error.filename or "a file of this command", error) from None


@contextmanager
def _printed() -> Iterator[None]:
    """What a command has printed is out at its end; where it cannot be, that is an error like any other."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else it is tried again, and told, at the very end
            raise unwritten("stdout", error) from None
