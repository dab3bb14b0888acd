"""What is done before an edge changes no bit of a run, delays none of it, and costs a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from kernels.cpu.touch import MOST_BYTES
from neds_core import ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from runtime.core.binning import Binner
from runtime.core.engine import Decoder, Engine
from runtime.core.exchange import Successor
from runtime.core.handover import Event, Handover, Probation
from runtime.core.misses import Passage
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import COLUMNS, RunLog, describe
from runtime.core.timeline import timeline
from runtime.core.values import NO_TIME, SPIKES, Decoded, Layout, Mark, Token
from runtime.engines import create as engines
from runtime.engines.nothing import Nothing
from runtime.live import offline, warming
from runtime.live.loop import PULL_NS, Plan, run
from runtime.live.offline import NoSink, SessionSource, SteppedClock
from runtime.live.warming import LAST_NS, NEVER, SHARE, SPARE_NS, TIMES, Warming

MS = 1_000_000
BIN = 20 * MS
NONE = np.zeros(0, SPIKES)


class Paced(SessionSource):
    """What was recorded comes at the end of each bin; until then a wait takes as long as it is given."""

    next_ns = BIN

    def wait(self, timeout_s: float) -> np.ndarray:
        until_ns = self.clock.t_ns + round(timeout_s * 1e9)
        if until_ns < self.next_ns:
            self.clock.t_ns, self.alive_ns = until_ns, NO_TIME
            return NONE
        woke_ns, self.clock.t_ns = max(self.clock.t_ns, self.next_ns), self.next_ns - self.bin_ns
        found = super().wait(timeout_s)
        self.next_ns, self.clock.t_ns = self.next_ns + self.bin_ns, woke_ns
        return found


def played(
    checkpoint: Checkpoint, session: Session, name: str, warm: bool, clock: SteppedClock | None = None
) -> RunLog:
    """The log of a run over a recording in which the clock advances as the loop waits."""
    made, clock = engines.decoder(checkpoint, name), clock or SteppedClock()
    source = Paced(timeline(session, 0), session.bin_ns, clock)
    binner = Binner(made.n_units, made.bin_ns, max_age_ns=10**10, future_ns=2 * MS)
    log = RunLog(describe(made, rig="rig", source="synthetic", budget_ms=20.0), 1000, made.n_units, 3)
    before = Warming(made.engine, made.bin_ns, clock.now_ns, lambda: False) if warm else None
    run(
        source,
        Pipeline(binner, made, Rules(markers=True, keep_alive=True)),
        NoSink(),
        clock,
        log,
        Plan(BIN, warming=before),
    )
    return log


@pytest.fixture(scope="module")
def joined(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    """Two networks of filtered tokens and the linear decoder."""
    each = [replace(make_checkpoint(seed=s, filter_taus_ms=(30.0,)), sha=f"sha-{s}") for s in range(2)]
    return ensemble.join(each, "all")


@pytest.mark.parametrize("name", ["neds", "ridge", "blend"])
def test_a_run_is_the_same_to_the_last_bit_with_and_without(
    short: Session, joined: Checkpoint, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, order, flags, times and counters; and what a replay of the recording decodes."""
    touched, rehearsed = list[int](), list[int]()
    touch, rehearsal = warming.touch, warming.rehearsal

    def counted(engine: Engine) -> object:
        if (found := rehearsal(engine)) is None:
            return None
        return lambda: rehearsed.append(found[0]() or 1), found[1]

    monkeypatch.setattr(warming, "touch", lambda part: touched.append(touch(part)))
    monkeypatch.setattr(warming, "rehearsal", counted)

    off = played(joined, short, name, warm=False)
    assert touched == rehearsed == []
    on = played(joined, short, name, warm=True)
    assert len(touched) >= TIMES * off.n
    assert len(rehearsed) == (0 if name == "ridge" else TIMES * off.n)

    for column in (c for c in COLUMNS if c != "began_ns"):  # a wait begins anew behind it
        np.testing.assert_array_equal(getattr(on, column), getattr(off, column), err_msg=column)
    assert on.outcome == off.outcome
    replayed = offline.stream(joined, short, name)
    np.testing.assert_array_equal(on.values[: on.n], replayed.values[: replayed.n])


class Made:
    """A warm-up of so many MB with a clock of its own: each touch takes its time, and samples come when told."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, mb: float, ns_a_byte: float, come: tuple[int, ...] = ()
    ) -> None:
        self.now, self.begun, self.come, self.ns_a_byte = 0, list[int](), sorted(come), ns_a_byte
        monkeypatch.setattr(warming, "memory", lambda engine: [np.zeros(int(mb * 1e6), np.uint8)])
        monkeypatch.setattr(warming, "touch", self.touch)
        self.warming = Warming(Nothing(), BIN, lambda: self.now, self.waits)

    def touch(self, part: np.ndarray) -> None:
        assert not self.waits()
        self.begun.append(self.now)
        self.now += int(part.nbytes * self.ns_a_byte)

    def waits(self) -> bool:
        return bool(self.come) and self.come[0] <= self.now

    def until(self, edge_ns: int, engine: Engine) -> None:
        """What the loop does until an edge: wait, touch, take what came."""
        while (due_ns := self.warming.due_ns(edge_ns, engine, self.now)) != NEVER:
            coming = self.come[0] if self.come else NEVER
            if min(coming, due_ns) > self.now:
                self.now = min(coming, due_ns)
            if self.waits():
                self.come.pop(0)
                continue
            self.warming.prepare()


def test_all_is_touched_and_is_over_before_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    made, engine = Made(monkeypatch, mb=12.0, ns_a_byte=0.1), Nothing()
    made.until(BIN, engine)
    assert len(made.begun) == TIMES * 12  # parts of 1 MiB
    assert made.now < BIN - SPARE_NS
    made.until(BIN, engine)
    assert len(made.begun) == TIMES * 12  # once an edge
    made.until(2 * BIN, engine)
    assert len(made.begun) == 2 * TIMES * 12


@given(
    mb=st.floats(0.0, 60.0),
    ns_a_byte=st.floats(0.01, 10.0),
    come=st.lists(st.integers(0, BIN), max_size=8),
    late=st.integers(0, BIN),
)
def test_it_waits_for_what_has_come_and_ends_before_the_edge(
    mb: float, ns_a_byte: float, come: list[int], late: int
) -> None:
    """Whatever the model, the memory and the sender: no piece is begun when samples wait, or near the edge."""
    with pytest.MonkeyPatch.context() as patched:
        made = Made(patched, mb, ns_a_byte, tuple(come))
        made.now = late
        made.until(BIN, Nothing())
    assert len(made.begun) <= TIMES * (BIN // SHARE * 8 // TIMES // 2**20 + 1)  # at 8 bytes a ns
    for at in made.begun:
        assert BIN // 2 < at < BIN - LAST_NS


class Rehearsed:
    """The warm-up of an engine whose step reads so many MB, with a clock of its own: a rehearsal takes `ns`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mb: float, ns: int) -> None:
        self.now, self.ns, self.times, self.touched = 0, ns, 0, 0
        rest = np.zeros(1000, np.uint8)
        monkeypatch.setattr(warming, "memory", lambda engine: [np.zeros(int(mb * 1e6), np.uint8), rest])
        monkeypatch.setattr(warming, "rehearsal", lambda engine: (self.rehearse, [rest]))
        monkeypatch.setattr(warming, "touch", self.touch)
        self.warming = Warming(Nothing(), BIN, lambda: self.now, lambda: False)

    def rehearse(self) -> None:
        self.now, self.times = self.now + self.ns, self.times + 1

    def touch(self, part: np.ndarray) -> None:
        self.touched += part.nbytes

    def over_ns(self, k: int) -> int:
        """How long after the k-th edge it ends."""
        edge_ns = k * BIN
        due_ns = self.warming.due_ns(edge_ns, self.warming._engine, self.now)
        if due_ns != NEVER:
            self.now = max(self.now, due_ns)
            self.warming.prepare()
        return self.now - edge_ns


@pytest.mark.parametrize("mb", [0.01, 0.1, 1.0, 9.0, 30.0])
@pytest.mark.parametrize("ns", [10_000, 300_000, 900_000, 2_500_000, 4_900_000])
def test_a_rehearsal_learns_when_to_begin(monkeypatch: pytest.MonkeyPatch, mb: float, ns: int) -> None:
    """Whatever its bytes: few bins are delayed until it is known, then none; as many are rehearsed as there is time
    for, and the last one ends shortly before the edge."""
    made = Rehearsed(monkeypatch, mb, ns)
    over = [made.over_ns(k) for k in range(1, 300)]
    assert sum(ns > 0 for ns in over) <= 9
    assert max(over[100:]) <= -LAST_NS
    assert min(over[150:]) > -SPARE_NS - max(MS // 10, ns)
    before = made.times
    made.over_ns(301)
    assert made.times - before == max(1, min(TIMES, (BIN // SHARE + SPARE_NS - LAST_NS) // ns))


def test_one_hiccup_is_not_believed_and_what_has_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rehearsed(monkeypatch, 4.0, 300_000)
    for k in range(1, 100):
        made.over_ns(k)
    made.ns = 3 * BIN
    made.over_ns(100)
    made.ns = 300_000
    for k in range(104, 107):
        before = made.times
        assert made.over_ns(k) <= -LAST_NS
        assert made.times == before + TIMES
    made.ns = BIN // SHARE + MS  # a step for which a quarter of the bin is not enough
    late = [made.over_ns(k) > 0 for k in range(107, 1107)]
    assert sum(late[:20]) <= 10
    assert not any(late[20:200])
    assert sum(late[200:]) <= 2  # it is tried again now and then
    made.ns = 300_000  # another processor frequency
    before = made.times
    for k in range(1107, 4000):
        made.over_ns(k)
    assert made.times > before + TIMES * 100


@pytest.mark.parametrize(("mb", "rehearses"), [(39.0, True), (41.0, False)])
def test_a_model_for_which_there_is_no_time_is_read_in_part(
    monkeypatch: pytest.MonkeyPatch, mb: float, rehearses: bool
) -> None:
    made = Rehearsed(monkeypatch, mb, MS)
    made.over_ns(1)
    assert (made.times > 0) is rehearses
    assert rehearses or 10e6 < made.touched / TIMES < 14e6


def test_it_is_skipped_when_the_edge_is_near_or_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, mb=12.0, ns_a_byte=0.1)
    made.now = BIN - LAST_NS
    assert made.warming.due_ns(BIN, Nothing(), made.now) == NEVER
    made.warming.prepare()
    assert made.begun == []


def test_another_decoder_is_touched_from_its_first_bin_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = Made(monkeypatch, mb=2.0, ns_a_byte=0.1), Nothing()
    made.until(BIN, other)
    monkeypatch.setattr(warming, "memory", lambda engine: [])
    assert made.warming.due_ns(BIN, Nothing(), 0) == NEVER  # nothing to touch


class Slow(SteppedClock):
    """On its machine a touch takes some ms."""

    def __init__(self, ms: int) -> None:
        self.touch_ns = ms * MS

    def touch(self, part: np.ndarray) -> None:
        self.t_ns += self.touch_ns


def test_on_slow_memory_a_bin_waits_for_one_piece_at_most(
    short: Session, joined: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun in time may end after the edge; the next piece is not begun."""
    clock = Slow(3)
    monkeypatch.setattr(warming, "touch", clock.touch)
    monkeypatch.setattr(warming, "memory", lambda engine: [np.zeros(MOST_BYTES, np.uint8)] * 8)
    monkeypatch.setattr(warming, "rehearsal", lambda engine: None)
    log = played(joined, short, "neds", warm=True, clock=clock)
    assert log.in_time[log.decoded_rows()].all()
    assert 0 < log.wait_ns[: log.n].max() <= 3 * MS - LAST_NS
    assert log.wait_ns[log.n // 2 : log.n].max() == 0  # by then it is known how long a piece takes


@pytest.mark.parametrize("ms", [0, 50])
def test_the_log_tells_what_was_delayed_by_reading(
    short: Session, joined: Checkpoint, monkeypatch: pytest.MonkeyPatch, ms: int
) -> None:
    """Nothing where it ends before the edge; else for how long it went on beyond it, until it is left."""
    clock = Slow(ms)
    monkeypatch.setattr(warming, "touch", clock.touch)
    log = played(joined, short, "ridge", warm=True, clock=clock)
    of_pass = np.flatnonzero(log.sent_ns[: log.n])
    over_ns = log.warm_ns[of_pass]
    np.testing.assert_array_equal(over_ns, log.busy_ns[of_pass])
    assert (over_ns > 0).any() == (ms > 0)
    assert not over_ns[-5:].any()  # it has learnt that there is no time
    oldest_ns = np.append(0, log.t_end_ns[of_pass[:-1]]) + BIN  # the edge that was read before
    np.testing.assert_array_equal(over_ns, np.maximum(0, log.began_ns[of_pass] - oldest_ns))


UNITS, BINS = 5, 12
Chunk = tuple[int, np.ndarray, bool]  # when it comes (ns), spikes (n,) `SPIKES`, whether with a keep-alive of then


class Leaky:
    """Values are weighted counts that leak away."""

    name, window_bins = "leaky", 0

    def __init__(self, seed: int) -> None:
        self.weight = np.random.default_rng(seed).normal(size=(UNITS, 2)).astype(np.float32)
        self.values = np.zeros(2, np.float32)
        self.layout = Layout((), {}, np.ones(2, np.float32), self.values.copy())

    def reset(self, position: int = 0) -> None:
        self.values[:] = 0.0

    def step(self, token: Token) -> np.ndarray:
        self.values[:] = 0.9 * self.values + token.counts @ self.weight
        return self.values

    def skip(self, n_bins: int) -> None: ...

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def leaky(seed: int, bin_ns: int) -> Decoder:
    return Decoder(Leaky(seed), "neds", f"m-{seed}", f"sha-{seed}", "", "u", UNITS, bin_ns)


def binner_of(bin_ns: int, ordered: bool) -> Binner:
    return Binner(UNITS, bin_ns, max_age_ns=10**10, future_ns=0, ordered=ordered)


def log_of(decoder: Decoder) -> RunLog:
    return RunLog(describe(decoder, rig="rig", source="synthetic", budget_ms=20.0), 100, UNITS, 2)


class Chunks(SessionSource):
    """Chunks that come in their own time. passes: when the loop woke; what a wait returns is gone with the next."""

    def __init__(self, chunks: list[Chunk], clock: SteppedClock, end_ns: int) -> None:
        self.chunks, self.clock, self.end_ns = chunks.copy(), clock, end_ns
        self.alive_ns, self.passes, self.last = NO_TIME, [0], NONE

    def wait(self, timeout_s: float) -> np.ndarray:
        self.last["unit"], self.alive_ns = -1, NO_TIME
        until_ns = self.clock.t_ns + round(timeout_s * 1e9)
        if self.chunks and self.chunks[0][0] <= until_ns:
            until_ns = max(self.clock.t_ns, self.chunks[0][0])
        self.clock.t_ns, come = until_ns, [NONE]
        while self.chunks and self.chunks[0][0] <= until_ns:
            t_ns, spikes, alive = self.chunks.pop(0)
            come, self.alive_ns = [*come, spikes], t_ns if alive else self.alive_ns
        self.last = np.concatenate(come)
        return self.last

    def marks(self) -> list[Mark]:
        self.passes.append(self.clock.t_ns)
        return []


@given(bin_ms=st.integers(1, 60), mb=st.sampled_from([0, 9]), alive=st.booleans(), ordered=st.booleans())
@example(bin_ms=30, mb=9, alive=True, ordered=False)
@example(bin_ms=41, mb=9, alive=True, ordered=False)
def test_each_bin_is_prepared_for_whatever_its_length(bin_ms: int, mb: int, alive: bool, ordered: bool) -> None:
    """Once, shortly before it closes: at its edge, or by the clock where nothing says that it is complete.

    Nothing comes but a keep-alive or a spike at each edge, and no pass waits longer than it may.
    """
    bin_ns, clock, touched = bin_ms * MS, SteppedClock(), list[int]()
    decoder, end_ns = leaky(0, bin_ns), (BINS + 1) * bin_ns
    said = alive or ordered
    chunks = [(k * bin_ns, np.array([] if alive else [(k * bin_ns, 0)], SPIKES), alive) for k in range(1, BINS + 10)]
    source, rules = Chunks(chunks, clock, end_ns), Rules(keep_alive=alive)
    binner, log = binner_of(bin_ns, ordered), log_of(decoder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(warming, "memory", lambda engine: mb * [np.zeros(MOST_BYTES, np.uint8)] + [engine.weight])
        patched.setattr(warming, "touch", lambda part: touched.append(clock.t_ns))
        before = Warming(decoder.engine, bin_ns, clock.now_ns, lambda: False)
        run(source, Pipeline(binner, decoder, rules), NoSink(), clock, log, Plan(BIN, warming=before))

    closes = (np.arange(log.n) + 1) * bin_ns + (0 if said else rules.lateness_ns)
    before_ns = [closes[k] - at for at in touched if (k := np.searchsorted(closes, at)) < log.n]
    assert log.n >= 2
    assert LAST_NS < min(before_ns) <= max(before_ns) <= SPARE_NS + bin_ns // SHARE
    each = np.bincount(np.searchsorted(closes, touched), minlength=log.n)[: log.n]
    assert (each == each[0]).all()
    assert each[0] % TIMES == 0
    assert np.diff(source.passes).max() <= PULL_NS


class Exchanged(Handover):
    """Has another decoder take over as soon as a bin has closed."""

    def __init__(self, pipeline: Pipeline, after: int, other: Decoder) -> None:
        super().__init__(pipeline, Probation(3, 10, BIN))
        self.at, self.others = after, [other]

    def after(self, closed: list[Decoded], passage: Passage | None) -> list[Event]:
        if self.others and closed and closed[-1].token.index >= self.at:
            self.pipeline.successors.append(Successor(self.others.pop()))
        return super().after(closed, passage)


def chunks_of(cuts: list[list[float | None]], bin_ns: int, begin_ns: int, alive: bool, seed: int) -> list[Chunk]:
    """Bins that are cut at places (0 to 1) and at their ends: spikes in order, a keep-alive at each bin's end.

    begin_ns: of a bin, when reading begins; a place that is None is there.
    """
    rng, at_ns, found = np.random.default_rng(seed), 0, list[Chunk]()
    for k, places in enumerate(cuts):
        for place_ns in (*sorted(begin_ns if p is None else round(p * bin_ns) for p in places), bin_ns):
            upto_ns = k * bin_ns + place_ns
            spikes = np.zeros(rng.integers(0, 4) if upto_ns > at_ns else 0, SPIKES)
            spikes["t_ns"] = np.sort(rng.integers(at_ns, max(upto_ns, at_ns + 1), len(spikes)))
            spikes["unit"] = rng.integers(0, UNITS, len(spikes))
            found.append((upto_ns, spikes, alive and place_ns == bin_ns))
            at_ns = upto_ns
    return found


@settings(max_examples=30)
@given(
    cuts=st.lists(st.lists(st.none() | st.floats(0.0, 1.0), max_size=5), min_size=3, max_size=8),
    bin_ms=st.sampled_from([1, 5, 20, 30, 45]),
    alive=st.booleans(),
    ordered=st.booleans(),
    after=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_however_a_bin_comes_the_log_is_the_same_with_and_without(
    cuts: list[list[float | None]], bin_ms: int, alive: bool, ordered: bool, after: int, seed: int
) -> None:
    """Spikes that come before and while there is time to read, with an exchange of the decoder in between."""
    bin_ns, rules, logs = bin_ms * MS, Rules(keep_alive=alive), list[RunLog]()
    lead_ns = SPARE_NS + TIMES * UNITS * 2 * 4 // 8  # of float32 weights (U, 2), at 8 bytes a ns
    chunks = chunks_of(cuts, bin_ns, ((0 if alive or ordered else rules.lateness_ns) - lead_ns) % bin_ns, alive, seed)
    for warm in (False, True):
        clock, one, other = SteppedClock(), leaky(1, bin_ns), leaky(2, bin_ns)
        pipeline = Pipeline(binner_of(bin_ns, ordered), one, rules)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(warming, "memory", lambda engine: [engine.weight])
            before = Warming(one.engine, bin_ns, clock.now_ns, lambda: False) if warm else None
            plan = Plan(BIN, handover=Exchanged(pipeline, after, other), warming=before)
            log, source = log_of(one), Chunks(chunks, clock, len(cuts) * bin_ns + 10 * MS)
            run(source, pipeline, NoSink(), clock, log, plan)
        logs.append(log)
        assert log.outcome.counters["spikes_binned"] == sum(len(spikes) for _, spikes, _ in chunks)

    off, on = logs
    for column in (c for c in COLUMNS if c != "began_ns"):  # a wait begins anew behind it
        np.testing.assert_array_equal(getattr(on, column)[: on.n], getattr(off, column)[: off.n], err_msg=column)
    assert (on.outcome, on.events, on.n) == (off.outcome, off.events, off.n)
    assert [turn.decoder for turn in on.outcome.exchanges] == ["neds"] * (on.n > after)
