"""`neds-rt`: one command a file beside this one; heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from neds_core.errors import ConfigError, NedsError
from runtime.cli.bench.main import bench
from runtime.cli.check import check
from runtime.cli.ensemble import ensemble
from runtime.cli.evaluate import evaluate
from runtime.cli.import_official import import_official
from runtime.cli.output import note
from runtime.cli.ownership import refuse_foreign_packages
from runtime.cli.parity import parity
from runtime.cli.play import play
from runtime.cli.report import report
from runtime.cli.run import run
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


for command in (run, play, report, check, train, tune, ensemble, evaluate, verify, parity, import_official):
    app.command()(command)
app.add_typer(bench, name="bench")


def _leave_a_folder_that_is_gone() -> None:
    """Torch's libraries do not load where the current folder has been deleted."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")
        note("the current folder is gone: relative paths begin at /")


def main() -> None:
    """Exit 0 done, 1 bug (traceback), 2 user error (one sentence on stderr), 3 a gate or budget failed.

    130: a signal ended it before decoding began.
    """
    open_console()
    _leave_a_folder_that_is_gone()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        refuse_foreign_packages()
        _run()
    except NedsError as error:
        print(f"neds-rt: {safe(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    from kernels import KernelError  # not before its package is known to be ours

    try:
        app()
    except KernelError as error:
        raise ConfigError(str(error)) from None
