"""`neds-rt ensemble`: checkpoints of one configuration and several seeds, joined in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ensemble(
    checkpoints: Annotated[list[Path], typer.Argument(help="two checkpoints or more, one for each seed")],
    out: Annotated[Path, typer.Option(help="checkpoint to write (.safetensors)")],
) -> None:
    """Join checkpoints: "neds" is then their mean, and "blend" has the linear decoder beside them.

    They were trained to one configuration on one recording, so that they share units, scales and linear decoders.
    """
    from neds_core import checkpoint as files, ensemble as joining
    from neds_core.checkpoint.tensors import refuse_foreign
    from neds_core.files import without_ending
    from neds_core.scores import judging
    from runtime.start import called

    refuse_foreign(out)
    made = joining.join([files.load(path) for path in checkpoints], without_ending(out).name)
    files.save(made, out)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in made.header.blend.items())
    print(f"{out}: {len(made.networks)} networks, share of NEDS in the blend: {shares}")
    print("\n".join(judging.outcome(made)))
    print(f"next: {called('neds-rt')} evaluate SESSION.npz {out}")
