"""The blocks of a run on disk, one after the other in one file: what was written before a crash is there after it.

The file begins with `MAGIC`. A block is its length and CRC-32 (little-endian, 8 and 4 bytes), then a log as
`log_file.write` writes it. A block counts once it is whole, so that a torn one at the end is all that can be lost.
"""

from __future__ import annotations

import io
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from neds_core.errors import DataError
from runtime.core.run_log import RunLog
from runtime.io import log_file

MAGIC = b"neds-rt blocks 1\n"
HEAD = struct.Struct("<QI")


def packed(log: RunLog) -> bytes:
    """One block as it lies in the file."""
    body = io.BytesIO()
    log_file.write(log, body)
    data = body.getvalue()
    return HEAD.pack(len(data), zlib.crc32(data)) + data


def unpack(data: bytes, path: Path) -> tuple[list[RunLog], int]:
    """The whole blocks at the start of a file's bytes, and how many bytes follow them. path: as errors call it.

    Raises `DataError` where the bytes are of another file, or of another version's log.
    """
    start = data[: len(MAGIC)]
    if not MAGIC.startswith(start):
        raise DataError(f"{path} is no file of collected blocks; remove it from its folder")
    if start != MAGIC:
        return [], len(data)
    found, at = [], len(MAGIC)
    while at + HEAD.size <= len(data):
        length, crc = HEAD.unpack_from(data, at)
        body = data[at + HEAD.size : at + HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != crc:
            break
        found.append(log_file.read(io.BytesIO(body), path))
        at += HEAD.size + length
    return found, len(data) - at


def load(path: Path) -> tuple[list[RunLog], int]:
    """The whole blocks of a file, and how many bytes of a torn one follow them. Raises `DataError` (see `unpack`)."""
    try:
        return unpack(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); look at its disk") from None


class Keeper:
    """Writes blocks to a new file in a thread of its own, opened with `with`; each is on the disk before it counts."""

    def __init__(self, path: Path, kept: Callable[[RunLog], None] = lambda block: None) -> None:
        """kept: is told of each block, in the thread, once it is on the disk."""
        self.path, self._kept = path, kept
        self.error: Exception | None = None  # the disk took no more: what came since is not written
        self._blocks: queue.SimpleQueue[RunLog | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        self._file = self.path.open("xb")
        self._append(MAGIC)
        _sync_folder(self.path.parent)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.put(None)
        self._thread.join()
        self._file.close()

    def put(self, block: RunLog) -> None:
        """Have a block written; returns at once."""
        self._blocks.put(block)

    def _write(self) -> None:
        while (block := self._blocks.get()) is not None:
            if self.error is not None:
                continue
            try:
                self._append(packed(block))
                self._kept(block)
            except Exception as error:  # whoever collects ends the run and says why
                self.error = error

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make sure that a new file's name survives a power cut too, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
