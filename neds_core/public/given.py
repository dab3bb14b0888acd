"""What the public calls take: a recording or a checkpoint in memory, or the path of its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neds_core.data import session_file
from neds_core.data.checks.session import check
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.io import recording

if TYPE_CHECKING:
    from neds_core.checkpoint import Checkpoint


def refuse_other(what: str, given: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Raise `DataError` for what is neither of a kind nor a path."""
    if not isinstance(given, (str, Path)) and not isinstance(given, kind):
        shown = " ".join(repr(given).split())  # an array has lines
        raise DataError(f"{what}: given {type(given).__name__} {shown:.60}; give {wanted}")


def session_of(given: Session | str | Path) -> Session:
    """The recording itself, or that of a file (`neds_core.io.recording`). Raises `DataError`."""
    refuse_other("recording", given, Session, "a Session, or the path of a Session.npz")
    return given if isinstance(given, Session) else recording.load(Path(given))


def checkpoint_of(given: Checkpoint | str | Path) -> Checkpoint:
    """The checkpoint itself, or that of a file. Raises `CheckpointError`, and `DataError` for what is neither."""
    from neds_core import checkpoint as files  # torch: `load` does without

    refuse_other("checkpoint", given, files.Checkpoint, "what fit returned, or the path of a checkpoint")
    return given if isinstance(given, files.Checkpoint) else files.load(Path(given))


def file_of(given: Session | str | Path, folder: Path) -> Path:
    """The recording's file: one in memory is written to `folder`. Raises `DataError` where it cannot be a file."""
    if not isinstance(given, Session):
        return Path(given)
    check(given, f"recording {given.name!r}")  # before the file does, which nobody knows by its name
    session_file.save(given, folder / "session.npz")
    return folder / "session.npz"


def sha_of(session: Session) -> str:
    """SHA-256 of the file that a recording is of, or would be saved as, by which `fit` names it; "" = it has none."""
    try:
        return session.of_file() or session_file.sha256(session)
    except DataError:
        return ""
