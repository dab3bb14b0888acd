"""`RunLog`: the one record of a run. The loop writes it; summary, scores and figures read it and nothing else."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from msgspec import Struct

from neds_core.data.session import BehaviourSpec
from runtime.core.engine import Decoder
from runtime.core.exchange import Turn
from runtime.core.latency import Latency
from runtime.core.misses import CAUSES, Passage
from runtime.core.state import State
from runtime.core.values import NO_TIME, Decoded, Mark

STATES = tuple(State)
FORMAT = 1
LOG_FULL = "log_full"  # the event after which tokens were no longer logged
SENDER_ELSEWHERE = "sender_elsewhere"  # the event that the spikes' name has come back under another source_id
TOLD = (State.DEGRADED, State.FAULT, State.LOST)  # states that people are told of, with their reason


class Header(Struct, frozen=True, kw_only=True):
    """What a run was: known when it begins.

    checkpoint, recording: paths, '' = none. config: the rig's configuration. source: live | replay | synthetic.
    Of live streams, also: units, the rows of the stream's table (id, region, depth in um as text), and utc_ns, the UTC
    (ns since 1970) of the LSL clock's 0 when the run began, 0 = not known. Where a session is collected, streams, what
    each said of itself; specs are then the behaviours that are wanted.
    certificate: sha256, created, source, seconds and misses of the certificate that the run demanded, {} = none.
    """

    format: int = FORMAT
    rig: str
    source: str
    decoder: str
    engine: str
    model: str
    model_sha: str
    model_created: str
    unit_map_sha: str
    bin_ns: int
    budget_ms: float
    specs: tuple[BehaviourSpec, ...]
    checkpoint: str = ""
    recording: str = ""
    config: dict[str, Any] = {}
    scheduling: str = ""
    versions: dict[str, str] = {}
    units: tuple[tuple[str, str, str], ...] = ()
    streams: dict[str, dict[str, str]] = {}
    utc_ns: int = 0
    certificate: dict[str, str] = {}


class Exchange(Struct, frozen=True):
    """A decoder that took over within a run, from the bin `token` on.

    why: swap | rollback | fallback. primed: the first bin that its engine had taken in, from a cold start; -1 = it
    started cold with `token`. forced: its gate had not passed. path: of its checkpoint, '' = not known.
    """

    token: int
    decoder: str
    engine: str
    model: str
    model_sha: str
    model_created: str
    why: str = "swap"
    primed: int = -1
    forced: bool = False
    path: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a run: known when it has ended. counters by name, as in a status message.

    exchanges: the decoders that followed the header's, in order.
    """

    stopped_by: str
    refusal: str = ""  # why the spike stream may no longer be decoded, or ''
    counters: dict[str, int] = {}
    misses: dict[str, int] = {}  # cause -> tokens
    stolen_ms: float = 0.0  # CPU time that a hypervisor took while it ran
    exchanges: tuple[Exchange, ...] = ()


class LoggedEvent(Struct, frozen=True):
    """Something that happened: a change of state, a clock jump."""

    t_ns: int
    name: str
    detail: str


def told_as(name: str, detail: str) -> str:
    """What people are told an event is called: a change of state by the state, if that is one of `TOLD`, or ''."""
    if name != "state":
        return name
    state = detail.partition(":")[0].rpartition(" ")[2]
    return state if state in TOLD else ""


def describe(decoder: Decoder, **more: Any) -> Header:
    """The header of a run of one decoder; more: the other fields of `Header`."""
    return Header(
        decoder=decoder.name, engine=decoder.engine.name, model=decoder.model, model_sha=decoder.model_sha,
        model_created=decoder.model_created, unit_map_sha=decoder.unit_map_sha, bin_ns=decoder.bin_ns,
        specs=decoder.engine.layout.specs, **more,
    )  # fmt: skip


def exchanged(turn: Turn) -> Exchange:
    """What a log says of a decoder that took over."""
    who, decoder = turn.successor, turn.successor.decoder
    return Exchange(
        turn.token, decoder.name, decoder.engine.name, decoder.model, decoder.model_sha, decoder.model_created,
        who.why, who.primed, who.forced, who.path,
    )  # fmt: skip


class Trace:
    """The samples of one measured behaviour, in the order in which they came, of its first `keep_ns`."""

    def __init__(self, keep_ns: int = 2**62) -> None:
        self.keep_ns = keep_ns
        self.t_ns: array[int] = array("q")
        self.values: array[float] = array("d")

    def add(self, t_ns: int, value: float) -> None:
        """One sample stamped t_ns."""
        if not self.t_ns or t_ns - self.t_ns[0] <= self.keep_ns:
            self.t_ns.append(t_ns)
            self.values.append(value)

    def at(self, t_end_ns: np.ndarray, bin_ns: int) -> np.ndarray:
        """Last sample at or before each right edge (n,), NaN where it is older than one bin."""
        t = np.array(self.t_ns)
        if len(t) == 0:
            return np.full(len(t_end_ns), np.nan)
        order = np.argsort(t, kind="stable")
        last = np.searchsorted(t[order], t_end_ns, side="right") - 1
        found = np.array(self.values)[order][np.maximum(last, 0)]
        fresh = (last >= 0) & (t_end_ns - t[order][np.maximum(last, 0)] <= bin_ns)
        return np.where(fresh, found, np.nan)


COLUMNS = (
    "counts", "values", "t_end_ns", "sent_ns", "clock", "segment", "infer_ns", "wait_ns", "flags", "state", "valid",
    "reset", "idle", "in_time", "sd", "stands", "newest_ns", "began_ns", "before_ns", "after_ns", "cpu_ns", "gc_ns",
    "faults", "miss", "busy_ns", "warm_ns",
)  # fmt: skip
OF_PASS = (
    "sent_ns", "wait_ns", "began_ns", "busy_ns", "warm_ns", "before_ns", "after_ns", "cpu_ns", "gc_ns", "faults",
    "miss", "in_time",
)  # fmt: skip


class RunLog:
    """One run: header, a row a token, markers, measured behaviour, events, latencies and, at its end, the outcome.

    Rows are tokens in order from token 0, the first n of at most `capacity`: counts (T, U) uint16; values (T, V)
    float32, NaN where null; sd (T, V) float32, NaN where not known; stands (T, V) float64, NaN where a marker said
    nothing; t_end_ns, clock, segment, infer_ns, wait_ns,
    sent_ns (0 = not published) (T,) int64; flags (T,) int32; state (T,) uint8 into `STATES`; valid, reset, idle,
    in_time (T,) bool. kept: chunks (n,) `SPIKES` of the spikes that were binned, where the run keeps them.
    newest_ns (T,) int64, stamp of the newest spike, `NO_TIME` = none. Of the pass that published a token, 0 elsewhere:
    wait_ns, began_ns, busy_ns, warm_ns, before_ns, cpu_ns, gc_ns, faults (T,) int64 as in `Passage`; after_ns (T,)
    int64, from the send to the next wait; miss (T,) uint8, 1 + the place in `CAUSES` of why it
    or one that it superseded was late, 0 = none was.
    """

    def __init__(self, header: Header, capacity: int, n_units: int, n_values: int, keep_ns: int = 2**62) -> None:
        """keep_ns: of measured behaviour, from its first sample on."""
        self.header, self.capacity, self.keep_ns = header, capacity, keep_ns
        self.n = 0
        self.counts = np.zeros((capacity, n_units), np.uint16)
        self.values, self.sd = (np.full((capacity, n_values), np.nan, np.float32) for _ in range(2))
        self.stands = np.full((capacity, n_values), np.nan)
        self.t_end_ns, self.sent_ns = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.clock, self.segment = np.full(capacity, -1, np.int64), np.full(capacity, -1, np.int64)
        self.infer_ns, self.wait_ns = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.flags, self.state = np.zeros(capacity, np.int32), np.zeros(capacity, np.uint8)
        self.valid, self.reset = np.zeros(capacity, bool), np.zeros(capacity, bool)
        self.idle, self.in_time = np.zeros(capacity, bool), np.zeros(capacity, bool)
        self.newest_ns = np.full(capacity, NO_TIME, np.int64)
        self.began_ns, self.busy_ns, self.before_ns, self.after_ns = (np.zeros(capacity, np.int64) for _ in range(4))
        self.cpu_ns, self.gc_ns, self.faults, self.warm_ns = (np.zeros(capacity, np.int64) for _ in range(4))
        self.miss = np.zeros(capacity, np.uint8)
        self._awake = -1  # the row whose pass goes on, -1 = none
        self.outcome = Outcome(stopped_by="")
        self.marks: list[Mark] = []
        self.behaviours: dict[str, Trace] = {}
        self.events: list[LoggedEvent] = []
        self.latency: dict[str, Latency] = {}
        self.source_delay_ms = np.zeros(0, np.float32)
        self.kept: list[np.ndarray] = []

    def decoded_rows(self) -> np.ndarray:
        """(n,) the tokens inside segments: those that were to be decoded."""
        return np.flatnonzero(~self.idle[: self.n])

    def of_header(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the tokens `rows` the header's decoder decoded, and not one that took over."""
        ours, found = (self.header.decoder, self.header.model_sha), np.ones(len(rows), bool)
        for each in self.outcome.exchanges:
            found[rows >= each.token] = (each.decoder, each.model_sha) == ours
        return found

    def of_exchange(self, k: int, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the tokens `rows` the decoder of the k-th exchange decoded."""
        turns = self.outcome.exchanges
        return (rows >= turns[k].token) & (rows < (turns[k + 1].token if k + 1 < len(turns) else self.n))

    def told(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the engines took in that decoded the tokens `rows` (n,), sorted: rows (m,) of the log; (m,) bool, cold
        starts; (m,) bool, those of `rows`. The others are what an engine was primed with before it took over."""
        parts = [(rows[:0], np.zeros(0, bool), True)]
        edges = [0, *(each.token for each in self.outcome.exchanges), self.capacity]
        for k, primed in enumerate([-1, *(each.primed for each in self.outcome.exchanges)]):
            own = rows[(rows >= edges[k]) & (rows < edges[k + 1])]
            if len(own) and primed >= 0:
                before = np.arange(primed, edges[k])
                parts.append((before, before == primed, False))
            parts.append((own, self.reset[own], True))
        index, cold, kept = zip(*((at, cold, np.full(len(at), mine)) for at, cold, mine in parts), strict=True)
        return np.concatenate(index), np.concatenate(cold), np.concatenate(kept)

    def add(self, decoded: Decoded) -> bool:
        """Copy one closed token; beyond the capacity nothing is kept. Returns whether it was."""
        if self.n == self.capacity:
            return False
        n, token = self.n, decoded.token
        self.counts[n] = token.counts
        if decoded.values is not None:
            self.values[n] = decoded.values
        if decoded.sd is not None:
            self.sd[n] = decoded.sd
        if token.stands is not None:
            self.stands[n] = token.stands
        self.t_end_ns[n], self.clock[n], self.segment[n] = token.t_end_ns, token.clock, token.segment
        self.valid[n], self.reset[n], self.idle[n] = token.valid, token.reset, token.idle
        self.infer_ns[n], self.flags[n], self.newest_ns[n] = decoded.infer_ns, decoded.flags, token.newest_ns
        self.state[n] = STATES.index(decoded.state)
        self.n = n + 1
        return True

    def published(self, token: int, passage: Passage, in_time: bool, cause: str = "") -> None:
        """A token has left. in_time: with values, within its budget. cause: one of `CAUSES`, '' = nothing was late."""
        if token < self.n:
            p, row = passage, token
            self.wait_ns[row], self.sent_ns[row], self.in_time[row] = p.woke_ns - p.edge_ns, p.sent_ns, in_time
            self.began_ns[row], self.busy_ns[row], self.before_ns[row] = p.began_ns, p.busy_ns, p.before_ns
            self.cpu_ns[row], self.gc_ns[row], self.faults[row] = p.cpu_ns, p.gc_ns, p.faults
            self.warm_ns[row] = p.warm_ns
            self.miss[row] = 1 + CAUSES.index(cause) if cause else 0
            self._awake = row

    def rests(self, now_ns: int) -> None:
        """The loop waits again: the pass before is over."""
        if self._awake >= 0:
            self.after_ns[self._awake] = now_ns - self.sent_ns[self._awake]
            self._awake = -1

    def expect(self, name: str) -> None:
        """A behaviour that may be measured."""
        self.behaviours[name] = Trace(self.keep_ns)

    def measured(self, name: str, t_ns: int, value: float) -> None:
        """One sample of a measured behaviour."""
        if name not in self.behaviours:
            self.expect(name)
        self.behaviours[name].add(t_ns, value)

    def happened(self, t_ns: int, name: str, detail: str) -> None:
        """One event."""
        self.events.append(LoggedEvent(t_ns, name, detail))
