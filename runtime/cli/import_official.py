"""`neds-rt import-official`: a checkpoint of the published training as one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_official(
    checkpoint: Annotated[Path, typer.Argument(help="a .pt of the published training")],
    out: Annotated[Path, typer.Option(help="checkpoint to write (.safetensors)")],
    sizes: Annotated[
        Path | None, typer.Option(help="JSON with heads, modalities, sessions, session_rows; default: beside the .pt")
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="heads, where there is no JSON of sizes")] = None,
    session: Annotated[str, typer.Option(help="import this session alone")] = "",
    units: Annotated[Path | None, typer.Option(help="Session.npz with the session's units, in its order")] = None,
    range_: Annotated[
        list[str] | None, typer.Option("--range", help="NAME=MIN:MAX a behaviour was scaled by; repeat for each")
    ] = None,
) -> None:
    """Convert published weights. What the file does not say and no option supplies is printed and recorded."""
    from neds_core import checkpoint as checkpoints, official
    from neds_core.checkpoint.tensors import refuse_foreign
    from neds_core.data import session_file
    from neds_core.errors import ConfigError
    from neds_core.io import official_checkpoint as converter

    refuse_foreign(out)
    beside = checkpoint.with_suffix(".json")
    told = sizes or (beside if beside.is_file() else None)
    if heads and told:
        raise ConfigError(f"--heads {heads}: {told} also says how many there are; leave one of them out")
    supplied = converter.Supplied(
        sizes=official.read_sizes(told) if told else None,
        heads=heads,
        session=session,
        units=session_file.load(units).units if units else None,
        ranges=dict(_range(text) for text in range_ or []),
    )
    made = converter.convert(checkpoint, supplied)
    checkpoints.save(made, out)
    taken = made.header.imported
    assert taken is not None
    outputs = ", ".join(made.header.config.outputs)
    print(f"{out}: {len(taken.sessions)} sessions, {len(made.units)} units, outputs {outputs}")
    for sentence in taken.assumed:
        print(f"assumed: {sentence}")


def _range(text: str) -> tuple[str, tuple[float, float]]:
    """NAME=MIN:MAX."""
    from neds_core.errors import ConfigError

    name, _, limits = text.partition("=")
    low, _, high = limits.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--range {text!r} is not NAME=MIN:MAX; write for example wheel_speed=0:12.5") from None
    if not found[0] < found[1] < float("inf"):
        raise ConfigError(f"--range {text!r}: the minimum is not below the maximum; correct it")
    return name, found
