"""`neds-rt bench train`: what a training step costs, beside the plain torch modules it is made of."""

from __future__ import annotations

from typing import Annotated

import typer


def bench_train(
    quick: Annotated[bool, typer.Option(help="batch 2 and 2 steps a row instead of 16 and 5")] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
    gpu: Annotated[bool, typer.Option(help="on the GPU instead of the CPU")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Samples a second and memory of a training step at the published sizes. Exit 3: its outputs are wrong."""
    import msgspec
    import torch

    from benchmarks import train_throughput
    from neds_core.errors import ConfigError

    if gpu and not torch.cuda.is_available():
        raise ConfigError("--gpu was given, but torch finds no GPU here; leave it out")
    result = train_throughput.run(quick, "cuda" if gpu else "cpu", threads)
    print("\n".join(train_throughput.lines(result.rows)))
    if json:
        print(msgspec.json.encode(result).decode())
    if not result.gate:
        print(f"outputs differ from the dense evaluation by {result.gate_error:.1e}; nothing was timed")
        raise typer.Exit(3)
