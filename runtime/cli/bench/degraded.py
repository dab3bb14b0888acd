"""`neds-rt bench degraded`: what the decoders keep when spikes are sorted worse."""

from __future__ import annotations

from typing import Annotated

import typer

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Checkpoints, Json, Recording
from runtime.cli.output import emit


def degraded(
    recording: Recording,
    checkpoints: Checkpoints,
    draws: Annotated[int, typer.Option(min=1, help="random draws of each condition")] = 5,
    json: Json = False,
) -> None:
    """Score neds, ridge and blend on held-out spikes that were deleted, merged, lost or left unsorted."""
    import torch

    with from_checkout():
        from benchmarks.studies import degraded as study

    torch.set_num_threads(1)
    result = study.bench(recording, checkpoints, draws)
    emit(result, None if json else lambda: study.lines(result), json)
