"""`neds-rt evaluate`: the real pipeline over a recording's held-out part, one row for each decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    checkpoints: Annotated[list[Path], typer.Argument(help="one checkpoint for each training seed")],
    record: Annotated[bool, typer.Option(help="write the scores and one more look into the headers")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Score neds, ridge and blend on the held-out part over training seeds, with intervals paired by trial."""
    import msgspec
    import torch

    from neds_core import checkpoint as files, session as sessions
    from runtime import report, seeds

    torch.set_num_threads(1)
    session = sessions.load(recording)
    part = sessions.split(session).test
    rows = [_one(files.load(path), part) for path in checkpoints]
    result: dict[str, Any] = {
        "recording": session.name, "checkpoints": [p.name for p in checkpoints], **seeds.pool(rows)
    }  # fmt: skip
    if record:
        for path, row in zip(checkpoints, rows, strict=True):
            made = files.load(path)
            taken = made.header.record
            new = msgspec.structs.replace(taken, test_looks=taken.test_looks + 1, test_scores=row.scalars())
            header = msgspec.structs.replace(made.header, record=new)
            files.save(files.Checkpoint(header, made.model, made.units, made.scalers, made.linear), path)
    if json:
        print(msgspec.json.encode(result).decode())
    else:
        print("\n".join(report.pooled_lines(result)))


def _one(checkpoint: Any, part: Any) -> Any:
    """One checkpoint, streamed."""
    import numpy as np

    from neds_core.errors import DataError
    from runtime import replayed, scoring, seeds
    from runtime.layout import layout

    if checkpoint.header.unit_map_sha != part.units.sha256:
        raise DataError(
            f"checkpoint {checkpoint.header.name!r} was trained on other units than this recording; give its own"
        )
    log = replayed.stream(checkpoint, part, "neds")
    rows = np.flatnonzero(~log.idle[: log.n])
    found = scoring.all_decoders(checkpoint, log, rows)
    truth = replayed.truth(part, log, rows)
    outputs, _ = scoring.score(checkpoint, layout(checkpoint), log, rows, found, truth)
    exact = scoring.exactness(layout(checkpoint), log.values[rows], found["neds"], log.valid[rows])
    return seeds.SeedScores(checkpoint, found, truth, log.segment[rows], outputs, exact)
