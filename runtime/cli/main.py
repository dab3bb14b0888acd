"""`neds-rt`: one command a file beside this one; heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import sys

import typer

from neds_core.errors import NedsError
from runtime.cli.bench.main import bench
from runtime.cli.check import check
from runtime.cli.evaluate import evaluate
from runtime.cli.import_official import import_official
from runtime.cli.ownership import refuse_foreign_packages
from runtime.cli.parity import parity
from runtime.cli.play import play
from runtime.cli.report import report
from runtime.cli.run import run
from runtime.cli.train import train
from runtime.cli.tune import tune
from runtime.cli.verify import verify

app = typer.Typer(
    help="Decode behaviour from spikes while the animal is still moving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [map] in a help text for a style
)
for command in (run, play, report, check, train, tune, evaluate, verify, parity, import_official):
    app.command()(command)
app.add_typer(bench, name="bench")


def main() -> None:
    """Exit 0 done, 1 bug (traceback), 2 user error (one sentence on stderr), 3 a gate or budget failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        refuse_foreign_packages()
        app()
    except NedsError as error:
        print(f"neds-rt: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
