"""Finished rows of a long measurement: a line of JSON each, appended as they are done, read again by a later call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def append(path: Path, row: Row) -> Row:
    """Write a row, and return it as a later call will read it."""
    line = json.dumps(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return json.loads(line)
