"""Finished rows of a long measurement: a line of JSON each, appended as they are done, read again by a later call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neds_core.files import make_folder, unwritten

Row = dict[str, Any]


def read(path: Path) -> Iterator[Row]:
    """The rows of a file, none where there is no file; a line cut short by a stop is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield row


def ready(path: Path) -> None:
    """Make its folder, and end a line that a stop cut short: it must not swallow the next."""
    make_folder(path.parent)
    try:
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
    except OSError as error:
        raise unwritten(path, error) from None


def append(path: Path, row: Row) -> Row:
    """Write a row, and return it as a later call will read it."""
    line = json.dumps(row)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise unwritten(path, error) from None
    return json.loads(line)
