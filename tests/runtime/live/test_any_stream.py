"""Any stream: every spike is accounted for, no bin is published twice or with another one's data, the log replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.checkpoint import Checkpoint
from runtime.config import InputConfig, RigConfig
from runtime.core.binning import COUNTERS, Binner
from runtime.core.engine import DECODERS, Engine
from runtime.core.health import Limits
from runtime.core.pipeline import TOKENS, Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.state import State
from runtime.core.values import NO_TIME, SENT_AGAIN, SPIKES, Mark, Token
from runtime.engines import create as engines
from runtime.io import log_file
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages
from runtime.live.offline import SteppedClock
from runtime.scoring import report, summary
from runtime.wire import Decode, Flag

MS = 1_000_000
BIN = 20 * MS
START = 5_000 * BIN
U = 12
MAX_AGE, FUTURE = 10**10, 2 * MS
INT32, INT64 = np.iinfo(np.int32), np.iinfo(np.int64)

near = st.integers(-60 * MS, 5 * MS)
far = st.sampled_from([-(10**9), -(10**10) - 1, 10**9, 10**15, -(10**15), -(10**18), 10**18])
absurd = st.sampled_from([NO_TIME, INT64.max, INT64.min + 1])
unit = st.one_of(st.integers(0, U - 1), st.sampled_from([-1, U, 10**9, INT32.min, INT32.max]))
text = st.text(max_size=5)
finite = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no others
label = st.one_of(st.sampled_from(["left", "right"]), text, st.integers(), finite, st.booleans(), st.none())
marks = st.builds(
    Mark,
    st.one_of(near, far),  # from now
    st.sampled_from(["segment_start", "segment_start", "segment_end"]),
    st.one_of(st.integers(-1, 4), st.sampled_from([2**53, 2**62])),
    st.dictionaries(st.one_of(st.just("choice"), text), label, max_size=2),
    st.one_of(st.none(), st.integers(0, 50), st.just(2**62)),
)


@dataclass
class Pass:
    """What one pass of the loop finds. Times of spikes, keep-alive and marks are from now; absolute: stamps that are
    not; again: the spikes of the pass before come once more; burst: spikes of one unit at once."""

    dt_ns: int
    spikes: list[tuple[int, int]]
    absolute: list[int]
    alive: int | None
    marks: list[Mark]
    again: bool
    burst: int
    withheld: str
    jumps: int
    samples: list[tuple[int, float]]


passes = st.builds(
    Pass,
    dt_ns=st.sampled_from([0, MS, 5 * MS, 5 * MS, BIN, BIN, BIN, BIN + 1, 90 * MS, 700 * MS, 4_000 * MS, 20_000 * MS]),
    spikes=st.lists(st.tuples(st.one_of(near, near, near, far), unit), max_size=12),
    absolute=st.lists(st.one_of(absurd, st.integers(INT64.min, INT64.max)), max_size=2),
    alive=st.one_of(st.none(), st.just(0), near, far),
    marks=st.lists(marks, max_size=2),
    again=st.sampled_from([False, False, True]),
    burst=st.sampled_from([0, 0, 0, 0, 40, 70_000]),
    withheld=st.sampled_from(["", "", "", "held"]),
    jumps=st.sampled_from([0, 0, 0, 1]),
    samples=st.lists(st.tuples(near, st.floats(allow_nan=True)), max_size=3),
)


@dataclass
class Script:
    """A source of those passes, one at each call of `wait`."""

    clock: SteppedClock
    plan: list[Pass]
    alive_ns: int = NO_TIME
    last_marker: str = "\x1b[2J"
    clock_jumps: int = 0
    withheld: str = ""
    flags: int = 0
    fed: list[tuple[int, int]] = field(default_factory=list)
    now: Pass | None = None
    before: list[tuple[int, int]] = field(default_factory=list)

    def wait(self, timeout_s: float) -> np.ndarray:
        p = self.now = self.plan.pop(0)
        self.clock.t_ns += p.dt_ns
        now = self.clock.t_ns
        spikes = [(now + t, u) for t, u in p.spikes] + [(t, 0) for t in p.absolute] + [(now - MS, 3)] * p.burst
        spikes = self.before + spikes if p.again else spikes
        self.before = spikes[:40]
        self.fed += spikes
        self.alive_ns = NO_TIME if p.alive is None else now + p.alive
        self.withheld, self.clock_jumps = p.withheld, self.clock_jumps + p.jumps
        return np.array(spikes, SPIKES)

    def marks(self) -> list[Mark]:
        assert self.now is not None
        return [replace(mark, t_ns=self.clock.t_ns + mark.t_ns) for mark in self.now.marks]

    def behaviour(self) -> Iterator[tuple[str, int, float]]:
        assert self.now is not None
        for t, value in self.now.samples:
            yield "wheel_speed", self.clock.t_ns + t, value

    def measured(self, now_ns: int) -> dict[str, float | None]:
        return {"wheel_speed": None}

    def counters(self) -> dict[str, int]:
        return {"spikes_lost_upstream": 0, "clock_jumps": self.clock_jumps, "bad_markers": 0}

    def events(self) -> list[tuple[str, str]]:
        return [("said", "\x1b\x00")] if self.now is not None and self.now.jumps else []

    def over(self, now_ns: int) -> str:
        return "" if self.plan else "recording_end"

    def refusal(self) -> str:
        return ""


class Wire:
    """A publisher that keeps what a subscriber would read, and what the source withheld then."""

    def __init__(self, source: Script) -> None:
        self.source = source
        self.sent: list[tuple[Decode, str]] = []

    def send(self, message: Decode) -> None:
        read = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Decode)
        assert msgspec.json.decode(msgspec.json.encode(message), type=Decode).seq == read.seq
        self.sent.append((read, self.source.withheld))

    def tell(self, kind: str, message: Any) -> None:
        msgspec.json.decode(msgspec.json.encode(message))


def has_values(message: Decode) -> bool:
    return any(o.value is not None or o.probs is not None for o in message.outputs.values())


def flat(message: Decode) -> list[float | None]:
    """Values in the order of the log's columns."""
    return [message.outputs["wheel_speed"].value, *(message.outputs["choice"].probs or [])]


rules = st.builds(
    Rules, lateness_ns=st.sampled_from([0, 5 * MS, 15 * MS]), silence_ns=st.sampled_from([0, 60 * MS]),
    markers=st.booleans(), keep_alive=st.booleans(), longest_ns=st.sampled_from([0, 10 * BIN]),
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint: Checkpoint, make_checkpoint: Callable[..., Checkpoint]) -> list[Checkpoint]:
    """Phase-free and clocked."""
    return [tiny_checkpoint, make_checkpoint(clock_bins=25)]


@settings(max_examples=40)
@given(
    plan=st.lists(passes, min_size=1, max_size=25), rules=rules, ordered=st.booleans(), judged=st.booleans(),
    clocked=st.sampled_from([0, 1]), decoder=st.sampled_from(DECODERS),
)  # fmt: skip
def test_any_stream_is_accounted_for_published_in_order_and_replayed(
    checkpoints: list[Checkpoint], tmp_path_factory: pytest.TempPathFactory,
    plan: list[Pass], rules: Rules, ordered: bool, judged: bool, clocked: int, decoder: str,
) -> None:  # fmt: skip
    made = engines.decoder(checkpoints[clocked], decoder)
    clock = SteppedClock()
    clock.t_ns = START
    source = Script(clock, plan)
    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=FUTURE, ordered=ordered)
    limits = Limits(profile=made.profile, used=made.used, silence_ns=3 * BIN)
    pipeline = Pipeline(binner, made, rules, limits=(lambda _: limits) if judged else None)
    wire = Wire(source)
    log = RunLog(describe(made, rig="rig", source="synthetic", budget_ms=20.0), 30_000, U, 3)
    config = RigConfig("rig", "unused", InputConfig("s"))
    certain = sure_of(binner, [p.burst for p in plan])
    run(source, pipeline, Messages(config, pipeline, source, wire, "synthetic"), clock, log, Plan(20 * MS))

    balanced(log.outcome.counters, len(source.fed))
    assert log.outcome.counters["tokens_published"] == sum(has_values(m) for m, _ in wire.sent)
    assert not binner.counts.any()
    in_order(wire.sent, log, binner.grid_ns)
    believed = Counter(((t - binner.grid_ns) // BIN, u) for t, u in source.fed)
    for row, one in zip(*np.nonzero(log.counts[: log.n]), strict=True):
        assert log.counts[row, one] <= believed[int(row), int(one)]
    for (row, one), least in certain.items():
        assert row >= log.n or not log.valid[row] or log.counts[row, one] >= least
    assert log.outcome.counters["spikes_resent"] == sum(u == SENT_AGAIN for _, u in source.fed)
    assert log.outcome.counters["spikes_out_of_range"] <= sum(not 0 <= u < U for _, u in source.fed)
    replayed(log, made.engine)
    path = tmp_path_factory.getbasetemp() / "any.npz"
    log_file.save(log, path)
    built = [msgspec.json.encode(summary.build(each, checkpoints[clocked])) for each in (log, log_file.load(path))]
    assert built[0] == built[1]
    assert report.lines(msgspec.json.decode(built[0]))


def sure_of(binner: Binner, bursts: list[int]) -> Counter[tuple[int, int]]:
    """(bin, unit) -> spikes that nothing may take away: in time, and of the map.

    Filled while the binner is fed. A burst may fill its unit's count, so that no more goes in.
    """
    found: Counter[tuple[int, int]] = Counter()
    full = {3} if max(bursts) > 60_000 else set()
    feed = binner.feed

    def noted(spikes: np.ndarray, now_ns: int) -> None:
        open_ns = binner.grid_ns + binner.open_bin * BIN
        for t_ns, one in spikes.tolist():
            if 0 <= one < U and one not in full and open_ns <= t_ns <= now_ns:
                found[(t_ns - binner.grid_ns) // BIN, one] += 1
        feed(spikes, now_ns)

    binner.feed = noted
    return found


def balanced(counts: dict[str, int], fed: int) -> None:
    """The laws of spikes and tokens."""
    assert counts["spikes_received"] == fed
    assert counts["spikes_received"] == sum(counts[f"spikes_{name}"] for name in COUNTERS[1:])
    assert counts["tokens_closed"] == sum(counts[f"tokens_{name}"] for name in TOKENS[1:])


def in_order(sent: list[tuple[Decode, str]], log: RunLog, grid_ns: int) -> None:
    """No bin twice or after a newer one; values only in a state that has some, and those of the bin's own row."""
    messages = [m for m, _ in sent]
    assert [m.seq for m in messages] == list(range(1, len(messages) + 1))
    tokens = [m.token for m in messages[:-1]]
    assert tokens == sorted(set(tokens))
    assert messages[-1].flags & Flag.END
    for message, withheld in sent[:-1]:
        row = message.token
        assert message.t_end_ns == log.t_end_ns[row] == grid_ns + (row + 1) * BIN
        if message.state not in (State.RUNNING, State.DEGRADED) or withheld:
            assert not has_values(message)
        if has_values(message):
            assert np.array(flat(message), np.float32).tolist() == log.values[row].tolist()
            assert log.valid[row]
            assert not log.idle[row]


def replayed(log: RunLog, engine: Engine) -> None:
    """The engine steps through the log's rows again: every value is the same to the bit."""
    for row in log.decoded_rows():
        if log.reset[row]:
            engine.reset()
        token = Token(int(row), 0, log.counts[row], bool(log.valid[row]), int(log.clock[row]))
        values = engine.step(token)
        if np.isfinite(log.values[row]).all():
            assert values.tolist() == log.values[row].tolist()
