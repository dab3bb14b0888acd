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
KEPT_NS = 10_000_000_000  # the longest time that a view draws
TRACE_POINTS = 10_000  # of bins of 1 ms
SILENT = ("STALLED", "LOST")  # one silence, which becomes longer

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
    bin_ns: int = 0  # 0 = not known yet
    since_ns: int = 0  # of the publisher's clock: the first message in this state that came here
    decoded: dict[str, Points] = field(default_factory=dict)
    lower: dict[str, Points] = field(default_factory=dict)  # one sd below and above what is decoded
    upper: dict[str, Points] = field(default_factory=dict)
    measured: dict[str, Points] = field(default_factory=dict)

    def take_decode(self, message: Decode) -> None:
        before = self.decode
        if before is not None and message.t_end_ns <= before.t_end_ns:  # another clock
            before, self.bin_ns = None, 0
            for traces in (self.decoded, self.lower, self.upper, self.measured):
                traces.clear()
        if before is None or not same(before.state, message.state):
            self.since_ns = message.t_end_ns
        if before is not None and message.token > before.token:
            self.bin_ns = (message.t_end_ns - before.t_end_ns) // (message.token - before.token)
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


def same(state: str, other: str) -> bool:
    """Whether a run that was in one of these states and is in the other has been in one all the time."""
    return state == other or (state in SILENT and other in SILENT)


def add(traces: dict[str, Points], name: str, t_ns: int, value: float | None) -> None:
    trace = traces.setdefault(name, deque(maxlen=TRACE_POINTS))
    trace.append((t_ns, value if value is not None and math.isfinite(value) else None))
    while trace[0][0] < t_ns - KEPT_NS:
        trace.popleft()
