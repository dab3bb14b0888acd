"""`neds-rt bench train`: the cost of a training step."""

from __future__ import annotations

from typing import Annotated

import typer

from runtime.cli.bench.options import Json
from runtime.cli.output import emit


def train(
    quick: Annotated[bool, typer.Option(help="a quarter of the batch and 3 steps instead of 4")] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    gpu: Annotated[bool, typer.Option(help="on the GPU instead of the CPU")] = False,
    json: Json = False,
) -> None:
    """Samples a second and memory of a training step at the published sizes. Exit 3: its outputs are wrong."""
    import torch

    from benchmarks.cost import train_throughput
    from neds_core.errors import ConfigError

    if gpu and not torch.cuda.is_available():
        raise ConfigError("--gpu was given, but torch finds no GPU here; leave it out")
    result = train_throughput.run(quick, "cuda" if gpu else "cpu", threads)
    emit(result, lambda: train_throughput.lines(result), json)
    if not result.gate:
        raise typer.Exit(3)
