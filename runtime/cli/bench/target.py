"""`neds-rt bench target`: how soon a trial's class is known."""

from __future__ import annotations

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Checkpoints, Json, Recording
from runtime.cli.output import emit


def target(recording: Recording, checkpoints: Checkpoints, json: Json = False) -> None:
    """How soon a trial's class is known: neds, blend, logistic and LDA against time since the trial's start."""
    import torch

    with from_checkout():
        from benchmarks.studies import target as study

    torch.set_num_threads(1)
    result = study.bench(recording, checkpoints)
    emit(result, lambda: study.lines(result), json)
