"""What a command prints: text for people, or one JSON object as the last line of stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from runtime.core.words import safe


def emit(result: Any, lines: Callable[[], Iterable[str]] | None, as_json: bool) -> None:
    """Print lines() (None = no text), then result as one JSON object if as_json."""
    import msgspec

    if lines is not None:
        for line in lines():
            print(safe(line))
    if as_json:
        print(msgspec.json.encode(result).decode())
    sys.stdout.flush()


def note(text: str) -> None:
    """Progress of a command: a line on stderr."""
    print(safe(text), file=sys.stderr, flush=True)
