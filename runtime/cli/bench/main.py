"""`neds-rt bench ...`: measurements of accuracy and of cost, one command a file; the work is done in `benchmarks`."""

from __future__ import annotations

import typer

from runtime.cli.bench.ablation import ablation
from runtime.cli.bench.accuracy import accuracy
from runtime.cli.bench.choice import choice
from runtime.cli.bench.compare import compare
from runtime.cli.bench.degraded import degraded
from runtime.cli.bench.kernels import kernels
from runtime.cli.bench.latency import latency
from runtime.cli.bench.peers import peers
from runtime.cli.bench.regions import regions
from runtime.cli.bench.soak import soak
from runtime.cli.bench.target import target
from runtime.cli.bench.train import train
from runtime.cli.bench.transfer import transfer

bench = typer.Typer(help="Measure: tables on real recordings, with JSON.", no_args_is_help=True, rich_markup_mode=None)
COMMANDS = (
    latency, peers, soak, compare, accuracy, kernels, train, ablation, degraded, regions, target, transfer, choice,
)  # fmt: skip
for command in COMMANDS:
    bench.command()(command)
