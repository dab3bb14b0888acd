"""The bytes of an XDF file: opened, unpacked where it is packed, and how many of them are whole chunks."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from neds_core.errors import DataError

MAGIC = b"XDF:"
LENGTHS = (1, 4, 8)  # bytes of a chunk's length
PACKED = ".xdfz"  # by gzip


def opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The file's own bytes."""
    return gzip.open(path) if path.suffix.lower() == PACKED else path.open("rb")


def whole(path: Path) -> tuple[int, int]:
    """How many bytes are whole chunks, and how many there are. Raises `DataError` for what is no XDF."""
    with opened(path) as file:
        try:
            size = file.seek(0, io.SEEK_END)
        except (OSError, EOFError, zlib.error) as error:  # gzip's
            raise DataError(f"{path} is no whole gzip file ({error}); copy it again") from None
        file.seek(0)
        if file.read(4) != MAGIC:
            raise DataError(f"{path} does not begin as XDF does ({MAGIC.decode()!r}); give the file of LabRecorder")
        at = 4
        while at < size:
            n = file.read(1)[0]
            if n not in LENGTHS:
                raise DataError(f"{path} is damaged at byte {at}; copy it again from the recorder")
            length = int.from_bytes(file.read(n), "little")
            end = at + 1 + n + length
            if end > size:
                break
            at = file.seek(end)
    return at, size
