"""`neds-rt import-decoder`: a linear decoder of another lab, or of your own, as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_decoder(
    decoder: Annotated[Path, typer.Argument(help="an .npz with A, B, b and what they are of (docs/training.md)")],
    out: Annotated[Path, typer.Option(help="checkpoint to write (.safetensors)")],
) -> None:
    """Convert a decoder y_t = A y_(t-1) + B counts_t + b, such as a velocity Kalman filter, so that it runs here."""
    from neds_core import checkpoint
    from neds_core.checkpoint.tensors import refuse_foreign
    from neds_core.errors import ConfigError
    from neds_core.io import state_space

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out} does not end in .safetensors; give a name that does")
    refuse_foreign(out)
    made = state_space.read(decoder)
    checkpoint.save(made, out)
    space, header = made.state_space, made.header
    assert space is not None
    outputs = ", ".join(f"{spec.name} ({spec.unit or 'no unit'})" for spec in header.specs)
    print(f"{out}: {len(made.units)} units, bins of {header.bin_ns * 1e-6:g} ms, outputs {outputs}")
    print(f"a state falls to {space.radius:.3f} of itself in a bin; no gate has judged it, so messages say UNGATED")
