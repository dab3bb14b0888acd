"""`neds-rt bench degraded`: what decoders keep when spikes are sorted worse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def degraded(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    checkpoints: Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")],
    draws: Annotated[int, typer.Option(min=1, help="random draws of each condition")] = 5,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Score neds, ridge and blend on held-out spikes that were deleted, merged, lost or left unsorted."""
    import msgspec
    import torch

    from benchmarks import degraded as bench

    torch.set_num_threads(1)
    result = bench.bench(recording, checkpoints, draws)
    print(msgspec.json.encode(result).decode() if json else "\n".join(bench.lines(result)))
