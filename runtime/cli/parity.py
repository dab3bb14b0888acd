"""`neds-rt parity GOLDEN.npz`: our outputs against those of the published model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def parity(
    golden: Annotated[Path, typer.Argument(help="weights, inputs and outputs (.npz), a .json of sizes beside it")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Compare NEDS with the published model on its own weights; exit 3 where an output is off by over 1e-5."""
    import msgspec
    import torch

    from neds_core import parity as comparison

    torch.set_num_threads(1)
    found = comparison.compare(golden)
    worst = max((d.relative, case, m) for case, row in found.items() for m, d in row.items())
    within = all(d.within for row in found.values() for d in row.values())
    if json:
        cases = {case: {m: d.error for m, d in row.items()} for case, row in found.items()}
        print(msgspec.json.encode({"cases": cases, "worst_relative": worst[0], "within": within}).decode())
    else:
        for case, row in found.items():
            print(case, *(f"{m} {d.error:.1e}" for m, d in row.items()), sep="  ")
        print(f"worst: {worst[0]:.1e} of the largest output ({worst[1]}, {worst[2]}); limit {comparison.LIMIT:.0e}")
    if not within:
        raise typer.Exit(3)
