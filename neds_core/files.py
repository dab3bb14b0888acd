"""Files that are whole or not there: how everything here is written."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neds_core.errors import ConfigError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a disk, a quota, a limit of the size of files
CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
REMEDY = dict.fromkeys(FULL, "make room or name another folder") | dict.fromkeys(CLOSED, "name another folder")


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_ending(path: Path, ending: str = ".safetensors") -> Path:
    """The path without `ending`, where it has it; what follows another dot is part of the name (mouse7.day1)."""
    return path.with_name(path.name.removesuffix(ending) or path.name)


def beside(path: Path, ending: str) -> Path:
    """The file that belongs to a checkpoint: mouse7.day1.jsonl of mouse7.day1 and of mouse7.day1.safetensors."""
    own = without_ending(path)
    return own.with_name(f"{own.name}{ending}")


def unwritten(path: object, error: OSError) -> ConfigError:
    """What to raise where `path` cannot be written: one sentence with the remedy."""
    remedy = REMEDY.get(error.errno or 0, "look at its folder and disk, or name another")
    return ConfigError(f"{path} cannot be written ({error.strerror or error}); {remedy}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises `ConfigError` where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from None


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it becomes `path` at the end; after an error or a crash `path` is as it was.

    Raises `ConfigError` where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise unwritten(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
