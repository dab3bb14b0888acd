"""Files that are whole or not there: how everything here is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it becomes `path` at the end; after an error or a crash `path` is as it was."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
