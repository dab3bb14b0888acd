"""What a view knows of a run: the messages that it received, and the traces made of them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from runtime.client import WITHHELD, moment_of
from runtime.wire import Decode, Status

EPOCH = datetime.fromtimestamp(0, UTC)
TRACE_POINTS = 2000  # more than a view draws

Points = deque[tuple[int, float | None]]  # (t_ns on the publisher's clock, value)


class Measured(msgspec.Struct, frozen=True):
    """Newest behaviour received, published beside every decode."""

    t_ns: int
    values: dict[str, float | None]


@dataclass(slots=True)
class Shown:
    """All that a picture needs. now_ns, decode_at_ns and status_at_ns are on this machine's clock."""

    address: str
    rig: str
    now_ns: int = 0
    now: datetime = EPOCH
    decode: Decode | None = None
    decode_at_ns: int = 0
    status: Status | None = None
    status_at_ns: int = 0
    refused: int = 0  # messages too old for this view
    missed: int = 0
    decoded: dict[str, Points] = field(default_factory=dict)
    lower: dict[str, Points] = field(default_factory=dict)  # one sd below and above what is decoded
    upper: dict[str, Points] = field(default_factory=dict)
    measured: dict[str, Points] = field(default_factory=dict)

    def take_decode(self, message: Decode) -> None:
        if self.decode is not None and message.t_end_ns <= self.decode.t_end_ns:  # another clock
            for traces in (self.decoded, self.lower, self.upper, self.measured):
                traces.clear()
        self.decode, self.decode_at_ns = message, self.now_ns
        for name, output in message.outputs.items():
            if output.probs is not None:
                continue
            value = None if message.flags & WITHHELD else output.value
            at_ns = moment_of(message, name)
            add(self.decoded, name, at_ns, value)
            if value is not None and output.sd is not None:
                add(self.lower, name, at_ns, value - output.sd)
                add(self.upper, name, at_ns, value + output.sd)

    def take_measured(self, measured: Measured) -> None:
        for name, value in measured.values.items():
            add(self.measured, name, measured.t_ns, value)


def add(traces: dict[str, Points], name: str, t_ns: int, value: float | None) -> None:
    known = value is not None and math.isfinite(value)
    traces.setdefault(name, deque(maxlen=TRACE_POINTS)).append((t_ns, value if known else None))
