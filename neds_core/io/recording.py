"""One recording, whatever its file: `Session.npz`, or the NWB that is written beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.files import sha256

KINDS = (".npz", ".nwb")  # how the files end


def load(path: Path) -> Session:
    """Read and check a recording; its ending says which kind it is. Raises `DataError` with the remedy."""
    if path.suffix.lower() == ".nwb":
        from neds_core.io import nwb

        return replace(nwb.load(path), file_sha=sha256(path))
    return session_file.load(path)
