"""What leaves the runtime: message types, flags and topics. Imports only msgspec, for small clients."""

from __future__ import annotations

from enum import IntFlag

import msgspec
from msgspec import Struct

SCHEMA = 1
DECODE_PORT, LATEST_PORT = 5571, 5572


class Flag(IntFlag):
    """Bits of `Decode.flags`."""

    GAP = 1  # the bin had no live data: values are null
    LATE = 2  # spikes arrived after the bin was closed
    STALE = 4  # published after its budget
    COARSE_STAMPS = 8  # many spikes shared one time stamp
    CLOCK_JUMP = 16  # the sender's clock stepped
    HOLD = 32  # the engine's output was not finite and was withheld: values are null
    FALLBACK = 64  # the run went back to this decoder by itself, because the one after it was unfit
    SWAP = 128  # first message of another decoder than the message before
    IDLE = 256  # between segments: values are null
    UNGATED = 512  # no gate has judged this checkpoint on this session, or it was overruled
    END = 1024  # last message of the run
    PARTIAL = 2048  # the bin closed by the clock before its sender said that it was complete: spikes may be missing
    MARKERS_LOST = 4096  # the sender of markers is gone: nothing says where segments start and end
    RESENT = 8192  # spikes were sent again and dropped


class Output(Struct, frozen=True, omit_defaults=True):
    """One decoded quantity: `value` in the output's unit, or `probs` in the order of its classes.

    lead_ms: the value is of so long after `Decode.t_end_ns`.
    """

    value: float | None = None
    probs: list[float] | None = None
    sd: float | None = None
    lead_ms: float | None = None  # None: 0


class Decode(Struct, frozen=True):
    """One published estimate. Times are ns of the LSL clock of the machine that decodes."""

    schema: int
    seq: int
    token: int
    t_end_ns: int
    t_pub_ns: int
    boot_id: str
    source: str  # live | replay | synthetic
    inputs: list[str]
    decoder: str
    engine: str
    outputs: dict[str, Output]
    age_ms: float | None
    infer_ms: float
    edge_to_pub_ms: float
    state: str
    flags: int
    valid_until_ns: int
    valid_for_ms: float
    model_sha: str
    unit_map_sha: str


class OutputInfo(Struct, frozen=True):
    """What an output is, sent with every status."""

    name: str
    kind: str
    unit: str
    sign: str
    filter: str
    filter_delay_ms: float
    labels: str  # measured | inferred: inferred labels make an output an exercise, not evidence
    classes: list[str]
    group: str = ""  # outputs of one group are coordinates of one point, or of one angle:
    angle: str = ""  # cos | sin: the output is that of the angle that `group` names, atan2(sin, cos)
    future_ms: float = 0.0  # how far `filter` reaches into the future, 0 = not stated
    lead_ms: float = 0.0


class Status(Struct, frozen=True):
    """Once a second, and where something goes wrong at once: counters, and the words that the numbers in `Decode` need.

    `measured` holds the newest behaviour received, for display and scores only; it never
    reaches the decoder.
    """

    schema: int
    rig: str
    boot_id: str
    source: str
    state: str
    t_pub_ns: int
    decoder: str
    engine: str
    model: str
    model_sha: str
    model_created: str
    unit_map_sha: str
    outputs: list[OutputInfo]
    flag_names: dict[str, int]
    counters: dict[str, int]
    edge_to_pub_ms: dict[str, float]  # p50, p99, max of the last minute
    misses_last_minute: int
    units_seen: int
    units_expected: int
    population_rate_hz: float
    segment: int | None
    last_marker: str
    measured: dict[str, float | None]
    budget_ms: float
    reason: str = ""  # why the state is not as it should be, in one sentence
    state_since_ns: int = 0  # since when the state holds, STALLED or LOST: the spikes' newest stamp; 0: not known


class Event(Struct, frozen=True):
    """Something that happened: a clock jump, a swap, an alarm."""

    schema: int
    name: str
    t_ns: int
    detail: str


def topic(kind: str, rig: str) -> bytes:
    """Topic frame of `decode`, `status` or `event`; it ends with / because prefixes match."""
    return f"neds/{SCHEMA}/{kind}/{rig}/".encode()


def decoder(kind: type, *, json: bool = False) -> msgspec.msgpack.Decoder | msgspec.json.Decoder:
    """A reader of one message type that tolerates fields it does not know."""
    return msgspec.json.Decoder(kind) if json else msgspec.msgpack.Decoder(kind)
