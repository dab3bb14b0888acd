"""What a task's marker says: JSON that may hold anything."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from runtime.core.values import Label

LONGEST_MARKER = 65_536  # bytes


class Marker(Struct, frozen=True):
    """What a marker's JSON may say; fields that we do not know are passed over."""

    event: str
    segment: Annotated[int, Meta(ge=-1, le=2**62)] | Annotated[float, Meta(ge=-1, le=2**53)] = -1
    labels: Any = None
    stands: Any = None
    bin: Annotated[int, Meta(ge=0, le=2**62)] | Annotated[float, Meta(ge=0, le=2**53)] | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are not whole: {"segment": 3.0} is segment 3."""
        if self.segment != int(self.segment) or (self.bin is not None and self.bin != int(self.bin)):
            raise ValueError("segment and bin have to be whole numbers")


MARKERS = msgspec.json.Decoder(Marker)


def read_marker(text: bytes) -> Marker | None:
    """What a marker says, None where it cannot be read."""
    if len(text) > LONGEST_MARKER:
        return None
    try:
        if b"NaN" in text or b"Infinity" in text:  # no JSON, but what Python's json.dumps writes
            text = json.dumps(json.loads(text.decode(), parse_constant=lambda _: None)).encode()
        return MARKERS.decode(text)
    except (ValueError, RecursionError):  # msgspec's errors and bad UTF-8 are ValueErrors
        return None


def usable(value: object) -> bool:
    """Whether a value can be a label: one that a log can hold, too."""
    return isinstance(value, Label) and not (isinstance(value, int) and abs(value) >= 2**63)


def is_number(value: object) -> bool:
    """Whether a value can say where an output stands; a truth is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and usable(value) and math.isfinite(value)
