"""`neds-rt verify`: every engine of this machine over a recording, against the offline reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint")],
    recording: Annotated[Path, typer.Argument(help="a Session.npz, or an NWB file of neds-rt")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Stream a recording through every engine and compare each with the offline forward of the same bins.

    A causal model also streams the encoding direction (rates from behaviour, compared as log-rates) and decodes
    beside behaviour of which half is observed; compact weights may change the held-out R2 by 0.002 at most.
    """
    import msgspec
    import torch

    from benchmarks import machine
    from neds_core import checkpoint as checkpoints
    from neds_core.io import recording as recordings
    from neds_core.scores import tasks as evaluation
    from runtime.io import system as priority
    from runtime.scoring import verify as verifying

    torch.set_num_threads(1)
    made, session = checkpoints.load(checkpoint), recordings.load(recording)
    evaluation.refuse_other_units(made, session)
    with priority.pinned() as pinned:
        rows, failed = verifying.verify(made, session)
    for name, row in rows.items():
        print(
            f"{name:44} largest difference {row['max_abs']:.2e} (bound {row['bound']:g}), "
            f"step p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms"
        )
        for output, change in row.get("r2_minus_float32", {}).items():
            print(f"  held-out R2 of {output}, minus that of float32: {change:+.5f} (bound {verifying.R2_BOUND:g})")
    if failed:
        print(f"outside of a bound: {', '.join(failed)}")
    if json:
        result = {
            "checkpoint": checkpoint.name, "recording": session.name, "engines": rows, "failed": failed,
            "pinned": pinned, "machine": machine.describe(),
        }  # fmt: skip
        print(msgspec.json.encode(result).decode())
    if failed:
        raise typer.Exit(3)
