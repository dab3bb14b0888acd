"""Text that came from outside, made fit for a terminal and a message."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 200  # characters of a name, a marker or a label that are shown


def plain(text: str, longest: int | None = None) -> str:
    """The text without control characters, escape sequences and line ends; longer than `longest`, cut and marked."""
    kept = text if text.isprintable() else "".join(c for c in text if c.isprintable())
    return kept if longest is None or len(kept) <= longest else f"{kept[:longest]}..."


def safe(text: str) -> str:
    """Lines of text, each `plain`."""
    return "\n".join(plain(line) for line in text.split("\n"))


def quoted(text: str) -> str:
    """A name as a sentence shows it."""
    return repr(plain(text, LONGEST))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as a sentence shows them, at most so many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(quoted(name) for name in names[:most]) + more
