"""What the public calls take: a recording or a checkpoint in memory, or the path of its file."""

from __future__ import annotations

from pathlib import Path

from neds_core import checkpoint as files
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.checks.session import check
from neds_core.data.session import Session
from neds_core.io import recording


def session_of(given: Session | str | Path) -> Session:
    """The recording itself, or that of a file (`neds_core.io.recording`). Raises `DataError`."""
    return given if isinstance(given, Session) else recording.load(Path(given))


def checkpoint_of(given: Checkpoint | str | Path) -> Checkpoint:
    """The checkpoint itself, or that of a file. Raises `CheckpointError`."""
    return given if isinstance(given, Checkpoint) else files.load(Path(given))


def file_of(given: Session | str | Path, folder: Path) -> Path:
    """The recording's file: one in memory is written to `folder`. Raises `DataError` where it cannot be a file."""
    if not isinstance(given, Session):
        return Path(given)
    check(given, f"recording {given.name!r}")  # before the file does, which nobody knows by its name
    session_file.save(given, folder / "session.npz")
    return folder / "session.npz"
