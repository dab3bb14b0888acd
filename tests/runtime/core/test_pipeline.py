"""The pipeline's laws under any weather: chunks, stalls, garbage, markers in any order, engines that fail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from runtime.core.binning import Binner
from runtime.core.engine import Decoder
from runtime.core.exchange import Successor, When
from runtime.core.health import Limits
from runtime.core.pipeline import COARSE_TOKENS, MAX_CATCH_UP, Pipeline, Rules
from runtime.core.state import LOST_NS, State
from runtime.core.values import SPIKES, Decoded, Layout, Mark, Token
from runtime.wire import Flag

U, BIN = 3, 20_000_000
LATENESS = 5_000_000
MAX_AGE = 10**10
WATCHFUL = Rules(lateness_ns=LATENESS)


class Leaky:
    """A decoder with a memory: values are a leaky sum of counts and the bins since reset. NaN where told."""

    name = "leaky"
    layout = Layout((), {}, np.ones(2, np.float32), np.zeros(2, np.float32))

    def __init__(self, nan_at: tuple[int, ...] = ()) -> None:
        self.nan_at = nan_at
        self.values = np.zeros(2, np.float32)
        self.n_steps = self.n_skipped = 0
        self.reset()

    def reset(self, position: int = 0) -> None:
        self.sum, self.age = 0.0, position

    def step(self, token: Token) -> np.ndarray:
        self.n_steps += 1
        self._take(token.counts, token.valid)
        self.values[:] = (np.nan if token.index in self.nan_at else self.sum), self.age
        return self.values

    def _take(self, counts: np.ndarray, valid: bool) -> None:
        self.sum = 0.5 * self.sum + (float(counts @ np.arange(1, U + 1)) if valid else 0.0)
        self.age += 1

    def skip(self, n_bins: int) -> None:
        self.n_skipped += n_bins
        self.sum, self.age = self.sum * 0.5**n_bins, self.age + n_bins

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        out = np.zeros((len(counts), 2), np.float32)
        for t in range(len(counts)):
            if reset[t]:
                self.reset()
            self._take(counts[t], bool(valid[t]))
            out[t] = self.sum, self.age
        return out


def decoder_of(engine: Leaky) -> Decoder:
    """As much of a checkpoint as a pipeline needs."""
    return Decoder(engine, "leaky", "model", "sha", "", "units", U, BIN)


@dataclass
class Rig:
    """A pipeline on a made-up clock that keeps what it decoded."""

    rules: Rules = WATCHFUL
    engine: Leaky = field(default_factory=Leaky)
    seen: list[tuple[Token, list[float] | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=2_000_000)
        self.pipeline = Pipeline(binner, decoder_of(self.engine), self.rules)
        binner.start(0)

    def advance(self, now_ns: int) -> Decoded | None:
        """Close what is due and keep it all; the newest."""
        closed = self.pipeline.advance(now_ns)
        self.superseded = len(closed) - 1
        for found in closed:
            values = None if found.values is None else found.values.tolist()
            self.seen.append((replace(found.token, counts=found.token.counts.copy()), values))
        return closed[-1] if closed else None

    def feed(self, now_ns: int, *spikes: tuple[int, int]) -> None:
        self.pipeline.feed(np.array(list(spikes), SPIKES), now_ns)

    def deliver(self, now_ns: int, *spikes: tuple[int, int]) -> Decoded | None:
        """Spikes and a keep-alive arrive, and what is due is closed."""
        self.feed(now_ns, *spikes)
        self.pipeline.alive(now_ns, now_ns)
        return self.advance(now_ns)

    def run(self, upto: int, marks: dict[int, list[Mark]] | None = None) -> None:
        """One spike of unit 0 and a keep-alive a bin, up to bin `upto`; marks: those that arrive before a bin."""
        for k in range(self.pipeline.binner.open_bin, upto):
            for mark in (marks or {}).get(k, []):
                self.pipeline.mark(mark)
            self.deliver((k + 1) * BIN, (k * BIN + 5, 0))

    @property
    def tokens(self) -> list[Token]:
        return [token for token, _ in self.seen]

    @property
    def history(self) -> list[tuple[object, ...]]:
        """Everything that was decoded, comparable."""
        return [
            (
                t.index,
                t.t_end_ns,
                t.counts.tolist(),
                t.valid,
                t.clock,
                t.reset,
                t.idle,
                t.segment,
                t.newest_ns,
                t.late,
                v,
            )
            for t, v in self.seen
        ]

    def assert_laws(self) -> None:
        tokens, spikes = self.pipeline.tokens, self.pipeline.binner.counters()
        assert tokens["closed"] == sum(n for name, n in tokens.items() if name != "closed")
        assert tokens["closed"] == self.pipeline.binner.open_bin
        assert spikes["received"] == sum(n for name, n in spikes.items() if name != "received")


# --- closing a bin ---


def test_a_bin_closes_when_its_stream_has_delivered_past_its_edge() -> None:
    rig = Rig()
    rig.feed(BIN + 1, (BIN - 1, 0))
    assert rig.advance(BIN + 1) is None  # something later may still come

    decoded = rig.deliver(BIN + 2, (7, 1))

    assert decoded is not None
    assert (decoded.token.index, decoded.token.t_end_ns, decoded.token.newest_ns) == (0, BIN, BIN - 1)
    assert decoded.state is State.RUNNING
    assert rig.tokens[0].counts.tolist() == [1, 1, 0]


def test_a_bin_closes_by_the_clock_at_its_lateness() -> None:
    rig = Rig()
    rig.feed(BIN, (5, 0))
    assert rig.pipeline.due_ns() == BIN + LATENESS
    assert rig.advance(BIN + LATENESS - 1) is None

    decoded = rig.advance(BIN + LATENESS)

    assert decoded is not None
    assert decoded.values is not None  # half of a bin is better than none: it had live data


def test_a_spike_after_its_bin_is_late_dropped_and_flagged() -> None:
    rig = Rig()
    rig.deliver(BIN)
    decoded = rig.deliver(2 * BIN, (BIN - 1, 0), (BIN, 1))
    assert decoded is not None
    assert decoded.flags & Flag.LATE
    assert rig.tokens[1].counts.tolist() == [0, 1, 0]
    assert rig.pipeline.binner.counters()["late"] == 1

    decoded = rig.deliver(3 * BIN)
    assert decoded is not None
    assert not decoded.flags & Flag.LATE


def test_a_silent_stream_gives_gaps_not_zeros() -> None:
    """No keep-alive, no spike: the bin is invalid, nothing is said about it, the position goes on."""
    rig = Rig()
    rig.deliver(BIN)

    silent = [rig.advance(k * BIN + LATENESS) for k in (2, 3)]
    back = rig.deliver(4 * BIN, (4 * BIN - 1, 0))

    assert [(d.state, d.values, d.flags & Flag.GAP) for d in silent if d] == [("STALLED", None, Flag.GAP)] * 2
    assert back is not None
    assert back.values is not None
    assert back.values.tolist() == [1.0, 4.0]
    assert rig.pipeline.tokens == {"closed": 4, "published": 2, "superseded": 0, "invalid": 2, "idle": 0}


def test_a_stream_without_keep_alives_may_be_silent_for_a_while() -> None:
    rig = Rig(Rules(lateness_ns=LATENESS, silence_ns=3 * BIN))
    rig.feed(BIN, (BIN - 1, 0))
    for k in range(1, 7):
        rig.advance(k * BIN + LATENESS)
    assert [t.valid for t in rig.tokens] == [True] * 4 + [False] * 2


def test_coarse_stamps_stay_flagged_for_a_second() -> None:
    rig = Rig()
    rig.deliver(BIN, *[(5, 0)] * 20)
    rig.run(COARSE_TOKENS + 3)
    assert [t.coarse for t in rig.tokens].count(True) == COARSE_TOKENS - 1


# --- properties ---

deliveries = st.lists(
    st.tuples(
        st.integers(1, 60_000_000),  # ns since the delivery before
        st.lists(st.tuples(st.integers(-30_000_000, 3_000_000), st.integers(-1, U)), max_size=12),
        st.booleans(),  # with a keep-alive
    ),
    max_size=25,
)
Deliveries = list[tuple[int, list[tuple[int, int]], bool]]
task = Rules(lateness_ns=LATENESS, markers=True)
mark_lists = st.lists(
    st.builds(Mark, st.integers(0, 30 * BIN), st.sampled_from(["segment_start", "segment_end"]), st.integers(0, 5)),
    max_size=8,
    unique=True,
)


def drive(rig: Rig, plan: Deliveries, cut: int = 0) -> None:
    """Deliver; with `cut`, each delivery in chunks of that size."""
    now = 0
    for wait_ns, offsets, alive in plan:
        now += wait_ns
        spikes = [(now + d, u) for d, u in offsets]
        for i in range(0, len(spikes), cut or max(1, len(spikes))):
            rig.feed(now, *spikes[i : i + (cut or len(spikes))])
        if alive:
            rig.pipeline.alive(now, now)
        rig.advance(now)
        rig.assert_laws()


@given(deliveries, st.integers(1, 5), mark_lists)
def test_chunking_does_not_change_what_is_decoded(plan: Deliveries, cut: int, marks: list[Mark]) -> None:
    """Any split into feeds that crosses no close gives the same tokens, values and counts."""
    whole, chunked = Rig(task), Rig(task)
    for rig in (whole, chunked):
        for mark in marks:
            rig.pipeline.mark(mark)

    drive(whole, plan)
    drive(chunked, plan, cut)

    assert chunked.history == whole.history
    assert chunked.pipeline.binner.counters() == whole.pipeline.binner.counters()
    assert chunked.pipeline.tokens == whole.pipeline.tokens


@given(deliveries, st.randoms(use_true_random=False))
def test_the_order_inside_a_delivery_does_not_matter(plan: Deliveries, random: Random) -> None:
    straight, mixed = Rig(), Rig()
    drive(straight, plan)
    drive(mixed, [(wait, random.sample(spikes, len(spikes)), alive) for wait, spikes, alive in plan])
    assert mixed.history == straight.history


@given(deliveries, st.sets(st.integers(0, 30)))
def test_the_laws_balance_to_the_last_spike_and_token(plan: Deliveries, nan_at: set[int]) -> None:
    rig = Rig(engine=Leaky(tuple(nan_at)))
    drive(rig, plan)

    rig.pipeline.flush()

    rig.assert_laws()
    assert rig.pipeline.binner.counts.sum() == 0
    assert rig.pipeline.binner.counters()["binned"] >= sum(int(t.counts.sum()) for t in rig.tokens)


stalls = st.lists(st.tuples(st.integers(1, 200) | st.integers(2_000, 20_000), st.booleans()), max_size=12)


@settings(max_examples=50)
@given(stalls, st.integers(0, 100_000_000), st.booleans())
def test_a_stall_of_any_length_costs_bounded_work_and_no_truth(
    plan: list[tuple[int, bool]], lateness_ns: int, markers: bool
) -> None:
    """Per advance at most MAX_CATCH_UP steps; every bin that counts as valid holds all of its spikes."""
    rig = Rig(Rules(lateness_ns=lateness_ns, markers=markers))
    rig.pipeline.mark(Mark(3 * BIN, "segment_start", 1))
    now = sent = 0
    for wait_ms, alive in plan:
        now += wait_ms * 1_000_000
        spikes = [(t, 1) for t in range(sent, now, BIN // 4)]  # four a bin, all delivered at once
        sent += len(spikes) * BIN // 4
        before = rig.engine.n_steps, rig.pipeline.tokens["closed"], rig.pipeline.tokens["published"]
        rig.feed(now, *spikes)
        if alive:
            rig.pipeline.alive(now, now)

        decoded = rig.advance(now)

        assert rig.engine.n_steps - before[0] <= MAX_CATCH_UP
        assert rig.pipeline.tokens["published"] - before[2] <= 1
        if decoded is not None:
            assert rig.superseded == rig.pipeline.tokens["closed"] - before[1] - 1
        rig.assert_laws()
    assert {t.counts.tolist()[1] for t in rig.tokens if t.valid} <= {4}


@settings(max_examples=50)
@given(stalls, mark_lists)
def test_the_log_says_all_that_the_engine_saw(plan: list[tuple[int, bool]], marks: list[Mark]) -> None:
    """Counts, validity and resets of the log, decoded again at once, give the streamed values bit for bit."""
    rig = Rig(task)
    for mark in marks:
        rig.pipeline.mark(mark)
    now = 0
    for wait_ms, alive in plan:
        now += wait_ms * 1_000_000
        rig.feed(now, (now - 1, 2), (now - BIN, 0))
        if alive:
            rig.pipeline.alive(now, now)
        rig.advance(now)

    rows = [(t, v) for t, v in rig.seen if not t.idle]
    again = Leaky().offline(
        np.array([t.counts for t, _ in rows]).reshape(-1, U), np.array([t.valid for t, _ in rows]),
        np.array([t.clock for t, _ in rows]), np.array([t.reset for t, _ in rows]),
    )  # fmt: skip
    assert [v for t, v in rows if t.valid] == [v for (t, _), v in zip(rows, again.tolist(), strict=True) if t.valid]


def test_after_a_stall_the_newest_bins_still_have_their_spikes() -> None:
    """The ring of open bins is moved before the spikes enter it; what was skipped is backlog, not late."""
    rig = Rig()
    rig.deliver(BIN)
    n_bins = 200

    decoded = rig.deliver(n_bins * BIN, *[(k * BIN + 5, 0) for k in range(1, n_bins)])

    assert decoded is not None
    assert (decoded.token.index, rig.superseded) == (n_bins - 1, n_bins - 2)
    assert not decoded.flags & Flag.LATE
    assert [t.valid for t in rig.tokens] == [True] + [False] * (n_bins - 1 - MAX_CATCH_UP) + [True] * MAX_CATCH_UP
    assert all(t.counts.tolist() == [1, 0, 0] for t in rig.tokens[-MAX_CATCH_UP:])
    counters = rig.pipeline.binner.counters()
    assert counters["dropped_backlog"] >= n_bins - 1 - MAX_CATCH_UP - 1  # one bin was not yet due by the clock
    assert (counters["late"], counters["quarantined"]) == (0, 0)
    assert rig.engine.n_skipped == n_bins - 1 - MAX_CATCH_UP


# --- an engine that fails ---


def test_a_value_that_is_not_finite_is_held_and_the_engine_starts_cold() -> None:
    rig = Rig(engine=Leaky(nan_at=(1,)))
    rig.deliver(BIN, (5, 0))

    held = rig.deliver(2 * BIN, (BIN + 5, 0))
    after = rig.deliver(3 * BIN, (2 * BIN + 5, 0))

    assert held is not None
    assert (held.values, held.flags & Flag.HOLD, held.state) == (None, Flag.HOLD, State.RUNNING)
    assert after is not None
    assert after.values is not None
    assert (after.values.tolist(), after.flags & Flag.HOLD) == ([1.0, 1.0], 0)
    assert [t.reset for t in rig.tokens] == [True, False, True]
    assert rig.pipeline.bad_values == 1
    assert rig.pipeline.tokens["invalid"] == 1


# --- markers ---


def start(t_ns: int, segment: int = 1) -> Mark:
    return Mark(t_ns, "segment_start", segment)


def end(t_ns: int, segment: int = 1) -> Mark:
    return Mark(t_ns, "segment_end", segment)


def inside(rig: Rig) -> list[tuple[int, int, int, bool]]:
    """(bin, clock, segment, reset) of the tokens that were decoded."""
    return [(t.index, t.clock, t.segment, t.reset) for t in rig.tokens if not t.idle]


def test_a_segment_is_decoded_from_the_bin_of_its_start_to_the_bin_of_its_end() -> None:
    rig = Rig(task)
    rig.run(9, {0: [start(3 * BIN), end(6 * BIN - 1)]})
    assert inside(rig) == [(3, 0, 1, True), (4, 1, 1, False), (5, 2, 1, False)]
    assert [v for _, v in rig.seen][3:6] == [[1.0, 1.0], [1.5, 2.0], [1.75, 3.0]]  # cold: nothing of bins 0-2
    assert [t.segment for t in rig.tokens if t.idle] == [-1] * 6


def test_segments_back_to_back_each_start_cold() -> None:
    rig = Rig(task)
    rig.run(7, {0: [start(BIN, 1), end(3 * BIN, 1), start(3 * BIN, 2), end(5 * BIN - 1, 2)]})
    assert inside(rig) == [(1, 0, 1, True), (2, 1, 1, False), (3, 0, 2, True), (4, 1, 2, False)]


def test_before_the_first_start_nothing_is_decoded() -> None:
    rig = Rig(task)
    rig.run(4)
    assert (inside(rig), rig.pipeline.tokens["idle"], rig.engine.n_steps) == ([], 4, 0)
    decoded = rig.deliver(5 * BIN)
    assert decoded is not None
    assert (decoded.state, decoded.values, decoded.flags) == ("IDLE", None, Flag.IDLE)


def test_without_markers_in_the_rules_marks_are_ignored() -> None:
    rig = Rig()
    rig.run(3, {0: [end(0), start(BIN)]})
    assert inside(rig) == [(0, -1, -1, True), (1, -1, -1, False), (2, -1, -1, False)]


@pytest.mark.parametrize("arrives", [4, 6])
def test_a_late_start_still_tells_the_time_in_the_segment(arrives: int) -> None:
    """Decoding begins where the marker arrives, but the clock counts from its stamp."""
    rig = Rig(task)
    rig.run(8, {arrives: [start(3 * BIN + 5)]})
    assert inside(rig)[0] == (arrives, arrives - 3, 1, True)
    assert [clock for _, clock, _, _ in inside(rig)] == list(range(arrives - 3, 5))
    assert rig.pipeline.late_markers == 1


def test_a_late_end_ends_the_segment_where_it_arrives() -> None:
    rig = Rig(task)
    rig.run(8, {0: [start(BIN)], 5: [end(3 * BIN)]})
    assert [index for index, *_ in inside(rig)] == [1, 2, 3, 4, 5]
    assert rig.pipeline.late_markers == 1


def test_an_end_that_was_overtaken_by_the_next_start_does_not_end_that() -> None:
    rig = Rig(task)
    rig.run(9, {0: [start(BIN, 1), start(4 * BIN, 2), end(8 * BIN - 1, 2)], 6: [end(4 * BIN - 1, 1)]})
    assert inside(rig)[-1] == (7, 3, 2, False)
    assert len(inside(rig)) == 7


def test_a_start_that_was_overtaken_by_its_own_end_starts_nothing() -> None:
    rig = Rig(task)
    rig.run(9, {0: [end(3 * BIN)], 6: [start(BIN)]})
    assert inside(rig) == []


def test_a_repeated_marker_changes_nothing() -> None:
    rig = Rig(task)
    rig.run(6, {0: [start(BIN), start(BIN)], 4: [start(BIN)]})
    assert inside(rig) == [(k, k - 1, 1, k == 1) for k in range(1, 6)]


@given(mark_lists, st.randoms(use_true_random=False))
def test_markers_sent_ahead_may_come_in_any_order(marks: list[Mark], random: Random) -> None:
    sorted_rig, mixed_rig = Rig(task), Rig(task)
    sorted_rig.run(35, {0: sorted(marks)})
    mixed_rig.run(35, {0: random.sample(marks, len(marks))})
    assert mixed_rig.history == sorted_rig.history


def clocks(marks: list[Mark], n_bins: int) -> list[int | None]:
    """The clock of each bin in plain Python: a start opens at its bin, an end still holds its own; None = idle."""
    rows: list[int | None] = []
    first: int | None = None
    for k in range(n_bins):
        ends = False
        for mark in sorted(m for m in marks if m.t_ns // BIN == k):
            first, ends = (k, False) if mark.event == "segment_start" else (first, True)
        rows.append(None if first is None else k - first)
        first = None if ends else first
    return rows


@given(mark_lists)
def test_tokens_follow_the_markers(marks: list[Mark]) -> None:
    rig = Rig(task)
    rig.run(31, {0: marks})
    assert [None if t.idle else t.clock for t in rig.tokens] == clocks(marks, 31)


@given(mark_lists, st.integers(0, 30), st.sampled_from(["iti", "now"]))
def test_no_decoder_is_exchanged_within_a_segment(marks: list[Mark], asked: int, at: When) -> None:
    """It takes over with the first bin of a segment, or outside if it may; from a cold start, at once where it can."""
    rig, other = Rig(task), Leaky()
    rig.run(asked, {0: marks})
    rig.pipeline.successors.append(Successor(decoder_of(other), at=at))
    rig.run(31, {0: marks} if asked == 0 else {})
    rows = clocks(marks, 31)
    fits = [k for k in range(asked, 31) if rows[k] == 0 or (rows[k] is None and at == "now")]
    assert [turn.token for turn in rig.pipeline.exchanges] == fits[:1]
    assert other.n_steps == sum(row is not None for k, row in enumerate(rows) if fits and k >= fits[0])
    inside = [token for token in rig.tokens if not token.idle]
    assert [token.reset for token in inside] == [token.clock == 0 for token in inside]
    rig.assert_laws()


# --- states, and another decoder ---


def test_a_sender_that_stays_away_is_lost() -> None:
    rig = Rig()
    rig.run(2)
    states = [found.state for k in range(3, 3 + LOST_NS // BIN + 2) if (found := rig.advance(k * BIN + LATENESS))]
    assert states[0] is State.STALLED
    assert states[-1] is State.LOST
    assert states == sorted(states, key=[State.STALLED, State.LOST].index)
    back = rig.deliver(rig.pipeline.binner.edge_ns + 1)
    assert back is not None
    assert back.state is State.RUNNING


def test_a_decoder_is_exchanged_between_two_tokens() -> None:
    """The next bin is the new one's, from a cold start; the counts go on."""
    rig, other = Rig(), Leaky()
    rig.run(5)
    steps = rig.engine.n_steps

    rig.pipeline.exchange(decoder_of(other))
    rig.run(8)

    assert (rig.engine.n_steps, other.n_steps) == (steps, 3)
    assert [token.reset for token in rig.tokens] == [True, *[False] * 4, True, False, False]
    assert rig.seen[5][1] == [1.0, 1.0]
    rig.assert_laws()


def test_an_exchanged_decoder_is_judged_by_its_own_training() -> None:
    """The units that it uses, how long they may be silent, and the order of its units; shares of bad spikes at once."""

    def limits(decoder: Decoder) -> Limits:
        return Limits(profile=decoder.profile, used=decoder.used, silence_ns=decoder.silence_ns)

    def trained(unit: int, silence_bins: int) -> Decoder:
        used = np.arange(U) == unit
        return replace(decoder_of(Leaky()), used=used, silence_ns=silence_bins * BIN, profile=used.astype(np.float32))

    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=2_000_000)
    pipeline = Pipeline(binner, trained(0, 2), WATCHFUL, limits=limits)
    binner.start(0)

    def states(*unit: int, bad: int = 0) -> list[State]:
        """Of bins with a spike of a unit each, and so many of no unit."""
        found = []
        for one in unit:
            t_ns = binner.edge_ns
            pipeline.feed(np.array([(t_ns - 5, one), *[(t_ns - 9 - k, U) for k in range(bad)]], SPIKES), t_ns)
            pipeline.alive(t_ns, t_ns)
            found += [decoded.state for decoded in pipeline.advance(t_ns)]
        return found

    running, fault = State.RUNNING, State.FAULT
    assert states(0, 1, 1, 1, 1) == [running, running, running, fault, fault]
    pipeline.exchange(trained(1, 3))
    assert states(1, 1, 0, 0, 0, 0) == [*[running] * 5, fault]
    health = pipeline.health
    assert health is not None
    assert health.limits.profile.tolist() == [0.0, 1.0, 0.0]
    pipeline.exchange(trained(0, 2))
    assert states(0, bad=30) == [fault]


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize(("silent", "fired", "cold"), [(3, 0, False), (4, 0, True), (9, 0, True), (9, 2, False)])
def test_after_a_silence_the_first_bin_with_spikes_is_decoded_from_a_cold_start(
    silent: int, fired: int, cold: bool, alive: bool
) -> None:
    """Of units that are used, and not a bin later: what was remembered over the silence would be in its value.

    Without keep-alives (`alive`) the silence is a stall.
    """
    made = replace(decoder_of(Leaky()), used=np.array([True, True, False]), silence_ns=3 * BIN)
    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=2_000_000)
    pipeline = Pipeline(
        binner, made, WATCHFUL, limits=lambda of: Limits(used=of.used, silence_ns=of.silence_ns, profile_min=0.0)
    )
    binner.start(0)
    found: list[Decoded] = []
    for unit in [0, 0, *[-1] * silent, fired, 1]:
        t_ns = binner.edge_ns
        pipeline.feed(np.array([(t_ns - 5, unit)] if unit >= 0 else [], SPIKES), t_ns)
        if alive or unit >= 0:
            pipeline.alive(t_ns, t_ns)
        found += [
            replace(each, values=None if each.values is None else each.values.copy())
            for each in pipeline.advance(t_ns + LATENESS)
        ]
    first, second = found[-2:]
    assert first.token.reset is cold
    assert not second.token.reset or fired == 2
    if cold:
        assert first.state is State.RUNNING
        assert [None if each.values is None else each.values.tolist() for each in (first, second)] == [[1, 1], [2.5, 2]]


def pushed(pipeline: Pipeline, pushes: list[int], keep_alive: bool) -> list[State]:
    """States of the bins of a sender that sends one spike a bin of each unit, at the ends of these bins."""
    states: dict[int, State] = {}
    for end, sent in zip(pushes, [0, *pushes], strict=False):
        for k in range(pipeline.binner.open_bin + 1, end):
            states |= {each.token.index: each.state for each in pipeline.advance(k * BIN + LATENESS)}
        spikes = np.array([(k * BIN + 10 + unit, unit) for k in range(sent, end) for unit in range(U)], SPIKES)
        now_ns = end * BIN + LATENESS
        found = pipeline.take(spikes, end * BIN if keep_alive else 0, (), now_ns)
        states |= {each.token.index: each.state for each in found}
    return [states[k] for k in sorted(states)]


def watched(keep_alive: bool, markers: bool = False) -> Pipeline:
    """One that judges its input; without keep-alives two bins may be silent."""
    binner = Binner(U, BIN, max_age_ns=400 * BIN, future_ns=2_000_000)
    rules = Rules(LATENESS, silence_ns=0 if keep_alive else 2 * BIN, keep_alive=keep_alive, markers=markers)
    binner.start(0)
    return Pipeline(binner, decoder_of(Leaky()), rules, limits=lambda _: Limits(profile_min=0.0))


RUNS, DEGRADED, FAULT = [State.RUNNING], [State.FAULT, State.DEGRADED, State.RUNNING], [State.FAULT]


@pytest.mark.parametrize(
    ("pushes", "after", "without"),
    [
        ([*range(1, 61), 110, *range(111, 190)], RUNS, DEGRADED),  # one stall of a second
        ([*range(1, 61), 600, *range(601, 680)], RUNS, DEGRADED),  # so long that some of it is quarantined
        ([*range(1, 61), 110, *range(120, 400, 10)], [State.RUNNING, State.FAULT], FAULT),  # it never is in time again
        ([*range(1, 6), 50, *range(51, 60)], FAULT, FAULT),  # nothing was known of it before
        (sorted({*range(1, 1001)} - {k + i for k in range(100, 999, 102) for i in range(50)}), None, None),  # a habit
    ],
)
def test_what_a_sound_stream_sends_after_a_rare_stall_does_not_withhold_what_comes_now(
    pushes: list[int], after: list[State] | None, without: list[State] | None
) -> None:
    """Without keep-alives the first bins of the stall had values, from nothing: their late spikes count."""
    for keep_alive, want in ((True, after), (False, without)):
        pipeline = watched(keep_alive)
        states = pushed(pipeline, pushes, keep_alive)
        assert pipeline.binner.late > 0
        if want is None:
            assert states.count(State.FAULT) > 100
            continue
        back = next(k for k in range(1, len(states)) if states[k - 1] is State.STALLED is not states[k])
        assert [state for state, _ in groupby(states[back:])] == want


@pytest.mark.parametrize("pause", [(100, 130), (92, 150)])
def test_a_stall_may_lie_in_a_pause_between_trials(pause: tuple[int, int]) -> None:
    """It begins in a trial and ends in the next, or lies in the pause: values are withheld in it alone."""
    pipeline = watched(keep_alive=True, markers=True)
    for k, (begin, end) in enumerate(((0, pause[0]), (pause[1], 300))):
        pipeline.mark(Mark(begin * BIN, "segment_start", k, {}))
        pipeline.mark(Mark(end * BIN - 1, "segment_end", k, {}))
    states = pushed(pipeline, [*range(1, 96), 140, *range(141, 300)], keep_alive=True)
    assert pipeline.binner.late > 0
    assert set(states) <= {State.RUNNING, State.IDLE, State.STALLED}
    assert set(states[max(141, pause[1]) : 299]) == {State.RUNNING}


# --- bins that close by the clock, segments that nobody ends, values withheld ---


def test_spikes_of_a_second_probe_wait_for_the_keep_alive() -> None:
    """A later stamp of one probe says nothing of the other; the keep-alive does."""
    rig = Rig()
    rig.feed(BIN + 1_000_000, (BIN + 500_000, 0))
    assert rig.advance(BIN + 1_000_000) is None
    rig.feed(BIN + 2_000_000, (BIN - 7, 1))  # the other probe's
    rig.pipeline.alive(BIN, BIN + 2_000_000)
    decoded = rig.advance(BIN + 2_000_000)
    assert decoded is not None
    assert decoded.token.counts.tolist() == [0, 1, 0]
    assert rig.pipeline.binner.late == 0


def test_a_sender_that_is_ordered_closes_bins_by_its_spikes() -> None:
    binner = Binner(U, BIN, max_age_ns=MAX_AGE, future_ns=2_000_000, ordered=True)
    pipeline = Pipeline(binner, decoder_of(Leaky()), WATCHFUL)
    binner.start(0)
    pipeline.feed(np.array([(5, 0), (BIN, 1)], SPIKES), BIN + 1)
    assert len(pipeline.advance(BIN + 1)) == 1


@pytest.mark.parametrize(("alive_ns", "flagged"), [(BIN, False), (BIN - 1, True)])
def test_a_bin_that_lacks_its_keep_alive_is_partial(alive_ns: int, flagged: bool) -> None:
    rig = Rig(replace(WATCHFUL, keep_alive=True))
    rig.feed(BIN, (BIN - 5, 0))
    rig.pipeline.alive(alive_ns, BIN)
    decoded = rig.advance(BIN + LATENESS)
    assert decoded is not None
    assert bool(decoded.flags & Flag.PARTIAL) is flagged


def test_a_segment_that_nobody_ends_is_closed_and_counted() -> None:
    rig = Rig(replace(WATCHFUL, markers=True, longest_ns=4 * BIN))
    rig.pipeline.mark(Mark(2 * BIN, "segment_start", 7))
    rig.run(12)
    assert [t.index for t in rig.tokens if not t.idle] == [2, 3, 4, 5]
    assert rig.pipeline.unended == 1
    rig.assert_laws()


def test_what_is_withheld_is_null_and_the_engine_goes_on() -> None:
    """A sender that came back is decoded in silence until it is known to be the same."""
    rig = Rig()
    rig.run(3)
    rig.pipeline.withheld = "checking"
    held = rig.deliver(4 * BIN, (3 * BIN + 5, 0))
    rig.pipeline.withheld = ""
    after = rig.deliver(5 * BIN, (4 * BIN + 5, 0))
    assert held is not None
    assert after is not None
    assert (held.values, held.flags & Flag.HOLD, held.state) == (None, Flag.HOLD, State.STALLED)
    assert after.values is not None
    assert after.values[1] == 5.0  # bins since the cold start, the withheld one among them
    rig.assert_laws()


def test_seventy_thousand_spikes_of_a_unit_do_not_start_again_from_zero() -> None:
    rig = Rig()
    rig.pipeline.feed(np.array([(5, 0)] * 70_000, SPIKES), BIN)
    rig.pipeline.alive(BIN, BIN)
    decoded = rig.advance(BIN)
    assert decoded is not None
    assert decoded.token.counts[0] == 65_535
    assert rig.pipeline.binner.counters()["quarantined"] == 70_000 - 65_535
    rig.assert_laws()
