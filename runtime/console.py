"""Stdout and stderr of a process of ours take whatever is printed, to the end."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Any, TextIO

ESCAPE = "neds-rt-escape"


def open_console(cannot_show: str = ESCAPE) -> None:
    """Drop what nobody reads any more. cannot_show: what is done with characters that the console does not have.

    A reader that has gone (`| head`, a closed terminal) and a stream that was never open end nothing; nor does a disk
    that is full, for stderr.
    """
    codecs.register_error(ESCAPE, _escaped)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8", cannot_show))
        elif stream is getattr(sys, f"__{name}__"):  # not where a test has put its own
            setattr(sys, name, _lasting(stream, number, cannot_show))


class _Lasting(io.FileIO):
    """A file descriptor that takes what is written after its reader has gone."""

    gone: tuple[int, ...] = (errno.EPIPE,)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self.gone:
                error.filename = "stdout" if self.fileno() == 1 else "stderr"
                raise
            return memoryview(data).nbytes


def _lasting(stream: TextIO, number: int, cannot_show: str) -> TextIO:
    stream.flush()
    raw = _Lasting(number, "wb", closefd=False)
    if stream.isatty():
        raw.gone = (errno.EPIPE, errno.EIO)  # so answers a terminal that was closed; a file: a broken disk
    elif number == 2:
        raw.gone = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)  # what is lost are words, the work goes on
    live = stream.isatty() or stream is sys.stderr
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, cannot_show, line_buffering=live)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""As \uXXXX, which JSON reads too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wide = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{wide[i : i + 2].hex()}" for i in range(0, len(wide), 2)), error.end
