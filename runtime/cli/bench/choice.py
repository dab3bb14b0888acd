"""`neds-rt bench choice`: what spikes say of a choice beyond the contrasts."""

from __future__ import annotations

from runtime.cli.bench.checkout import from_checkout
from runtime.cli.bench.options import Folder, Json
from runtime.cli.output import emit, note


def choice(folder: Folder = None, json: Json = False) -> None:
    """Tell a choice from contrasts, spikes and both: on all trials, at equal contrasts, before the first movement."""
    import torch

    with from_checkout():
        from benchmarks.studies import choice as study
    from benchmarks.accuracy.mice import steinmetz

    torch.set_num_threads(1)
    result = study.bench(steinmetz.read_folder(folder or steinmetz.FOLDER), note)
    emit(result, lambda: study.lines(result), json)
