"""Where the demo lies: package data of an installed wheel, or `examples/` of a checkout."""

from __future__ import annotations

from pathlib import Path

from neds_core.errors import DataError

RUNTIME = Path(__file__).resolve().parents[1]


def demo() -> Path:
    """Folder of the demo's session.npz, ensemble.safetensors and rig.toml."""
    for folder in (RUNTIME / "demo", RUNTIME.parent / "examples" / "ibl-dy016"):
        if (folder / "rig.toml").is_file():
            return folder
    raise DataError("the demo recording is not installed; reinstall neds-rt or give a RIG.toml")
