"""`neds-rt bench train`: the cost of a training step."""

from __future__ import annotations

from typing import Annotated

import typer

from runtime.cli.bench.options import Json, Report
from runtime.cli.output import emit


def train(
    quick: Annotated[bool, typer.Option(help="a quarter of the batch and 3 steps instead of 4")] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    gpu: Annotated[bool, typer.Option(help="on the GPU instead of the CPU")] = False,
    json: Json = False,
    out: Report = None,
) -> None:
    """Samples a second and memory of a training step at the published sizes. Exit 3: its outputs are wrong."""
    import msgspec
    import torch

    from benchmarks import report
    from benchmarks.cost import train_throughput
    from neds_core.errors import ConfigError

    if gpu and not torch.cuda.is_available():
        raise ConfigError("--gpu was given, but torch finds no GPU here; leave it out")
    report.check_path("--out", out)
    result = train_throughput.run(quick, "cuda" if gpu else "cpu", threads)
    found = report.of("train", msgspec.to_builtins(result) | {"quick": quick})
    if out is not None:
        report.write(found, train_throughput.lines(result), out)
    emit(found, lambda: train_throughput.lines(result), json)
    if not result.gate:
        raise typer.Exit(3)
