"""The chain of decoders of a rig: one JSON line for each step of an exchange, added and never changed."""

from __future__ import annotations

import errno
import os
import time
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from neds_core.errors import ConfigError, DataError


class Link(Struct, frozen=True):
    """One step. why: swap | rollback | fallback | freeze | thaw. outcome: accepted, taken, kept (its probation is
    over) or dropped.

    time: ISO 8601, UTC. token: the first bin that it decodes, -1 = not known yet. gate: output -> word; session: that
    the gate judged on. parents: SHA-256 of the checkpoints that it was made from, the newest first.
    """

    time: str
    rig: str
    why: str
    outcome: str
    from_sha: str
    to_sha: str
    model: str
    said: str
    token: int = -1
    path: str = ""
    session: str = ""
    gate: dict[str, str] = {}
    parents: tuple[str, ...] = ()
    forced: bool = False


class Chain:
    """The file of a chain, opened with `with`. Every line is on the disk before `add` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        """Raises `ConfigError` where it cannot be written."""
        try:
            self._file = self.path.open("ab+", buffering=0)
            cut_torn(self._file.fileno())
        except OSError as error:
            raise ConfigError(
                f"control.log: {self.path} cannot be written ({error.strerror}); name another file or make its folder"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, link: Link) -> None:
        """Add a step. Raises `OSError` where the disk does not take it."""
        add_line(self._file, msgspec.json.encode(link))
        os.fsync(self._file.fileno())


def add_line(file: FileIO, line: bytes) -> None:
    """Add a line to the end of an unbuffered file, all of it or nothing: in one call, of which a disk that is nearly
    full may take a part. Raises `OSError`."""
    if file.write(line + b"\n") != len(line) + 1:
        cut_torn(file.fileno())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cut_torn(file: int) -> None:
    """Remove a last line that was not written whole, so that the next one begins a line; file: a descriptor."""
    size = os.fstat(file).st_size
    data = os.pread(file, size, 0) if size else b""
    if not data.endswith(b"\n") and size:
        os.ftruncate(file, data.rfind(b"\n") + 1)


def now() -> str:
    """The time of a step."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(path: Path) -> list[Link]:
    """The steps of a chain, in order; a last line that was not written whole is left out.

    Raises `DataError` where another line is none.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from None
    try:
        return [msgspec.json.decode(line, type=Link) for line in lines]
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is no chain of decoders ({error}); give the file of control.log") from None
