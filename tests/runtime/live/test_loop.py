"""The loop on a made-up clock: stalls, catching up, silence, a sender that goes, and every way to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from runtime.core.accounting import Accounting
from runtime.core.binning import Binner
from runtime.core.engine import Decoder
from runtime.core.pipeline import MAX_CATCH_UP, Pipeline, Rules
from runtime.core.run_log import STATES, RunLog, describe
from runtime.core.state import State
from runtime.core.values import NO_TIME, SENT_AGAIN, SPIKES, Decoded, Layout, Mark, Token
from runtime.live.loop import Plan, run
from runtime.live.offline import SteppedClock
from runtime.wire import Flag

MS = 1_000_000
BIN = 20 * MS
START = 1000 * BIN
LATENESS = 5 * MS


class Sum:
    """Values are the bin's count and the bins since reset."""

    name = "sum"
    layout = Layout((), {}, np.ones(2, np.float32), np.zeros(2, np.float32))
    window_bins = 0

    def __init__(self) -> None:
        self.age = 0

    def reset(self, position: int = 0) -> None:
        self.age = position

    def step(self, token: Token) -> np.ndarray:
        self.age += 1
        return np.array([token.counts.sum(), self.age], np.float32)

    def skip(self, n_bins: int) -> None:
        self.age += n_bins

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass
class Script:
    """A sender with a spike and a keep-alive every 5 ms while `sends` is true, and what happens at which time.

    at: time since the start in ns -> called once when the clock passes it.
    """

    clock: SteppedClock
    at: dict[int, Callable[[], object]] = field(default_factory=dict)
    sends: bool = True
    alive_ns: int = NO_TIME
    last_marker: str = ""
    clock_jumps: int = 0
    why: str = ""
    withheld: str = ""
    flags: int = 0
    news: list[tuple[str, str]] = field(default_factory=list)
    refused: str = ""
    pending: list[Mark] = field(default_factory=list)
    samples: list[tuple[str, int, float]] = field(default_factory=list)
    sent_ns: int = START

    def wait(self, timeout_s: float) -> np.ndarray:
        """5 ms pass; with a sender, its spikes of that time have come."""
        self.clock.t_ns += 5 * MS
        for t_ns in sorted(t for t in self.at if t <= self.clock.t_ns - START):
            self.at.pop(t_ns)()
        now = self.clock.t_ns
        self.alive_ns = now if self.sends else NO_TIME
        stamps = range(self.sent_ns, now, 5 * MS) if self.sends else range(0)
        self.sent_ns = now if self.sends else self.sent_ns
        return np.array([(t, 0) for t in stamps], SPIKES)

    def marks(self) -> list[Mark]:
        found, self.pending = self.pending, []
        return found

    def behaviour(self) -> Iterable[tuple[str, int, float]]:
        found, self.samples = self.samples, []
        return found

    def measured(self, now_ns: int) -> dict[str, float | None]:
        return {}

    def counters(self) -> dict[str, int]:
        return {"spikes_lost_upstream": 0, "clock_jumps": self.clock_jumps, "bad_markers": 0}

    def events(self) -> list[tuple[str, str]]:
        found, self.news = self.news, []
        return found

    def over(self, now_ns: int) -> str:
        return self.why

    def refusal(self) -> str:
        return self.refused


@dataclass
class Kept:
    """What was published."""

    estimates: list[tuple[int, State, list[float] | None, Flag]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    notes: int = 0

    def note(self, decoded: Decoded) -> None:
        self.notes += 1

    def estimate(self, decoded: Decoded, now_ns: int, flags: int) -> None:
        values = None if decoded.values is None else decoded.values.tolist()
        self.estimates.append((decoded.token.index, decoded.state, values, Flag(decoded.flags | flags)))

    def measured(self, now_ns: int, values: dict[str, float | None]) -> None: ...

    def status(self, now_ns: int, state: State, accounting: Accounting) -> None:
        self.states.append(state)

    def event(self, now_ns: int, name: str, detail: str) -> None:
        self.events.append((name, detail))


class Rig:
    """A loop with everything around it made up."""

    def __init__(self, markers: bool = False, far_ns: int = 0) -> None:
        self.clock, self.sink = SteppedClock(), Kept()
        self.clock.t_ns = START
        self.source = Script(self.clock)
        self.decoder = Decoder(Sum(), "sum", "model", "sha", "", "units", 2, BIN)
        binner = Binner(2, BIN, max_age_ns=10**10, future_ns=2 * MS)
        self.pipeline = Pipeline(binner, self.decoder, Rules(lateness_ns=LATENESS, markers=markers, far_ns=far_ns))
        header = describe(self.decoder, rig="rig", source="synthetic", budget_ms=20.0)
        self.log = RunLog(header, 10_000, 2, 2)

    def run(self, seconds: float, at: dict[int, Callable[[], object]] | None = None, **plan: object) -> None:
        """at: ms since the start -> what happens then."""
        self.source.at = {ms * MS: what for ms, what in (at or {}).items()}
        run(self.source, self.pipeline, self.sink, self.clock, self.log, Plan(20 * MS, seconds, **plan))  # pyright: ignore[reportArgumentType]
        counts = self.log.outcome.counters
        tokens = {name: counts[f"tokens_{name}"] for name in ("published", "superseded", "invalid", "idle")}
        assert counts["tokens_closed"] == sum(tokens.values())
        spikes = ("binned", "late", "out_of_range", "quarantined", "dropped_backlog", "resent")
        assert counts["spikes_received"] == sum(counts[f"spikes_{name}"] for name in spikes)

    def send(self, sends: bool) -> None:
        """The sender falls silent, or comes back."""
        self.source.sends = sends

    def stall(self, ms: int) -> None:
        """The loop does not run for so long."""
        self.clock.t_ns += ms * MS


def test_a_calm_run_publishes_every_bin_and_ends_by_its_seconds() -> None:
    rig = Rig()
    rig.run(1.0)
    assert [token for token, *_ in rig.sink.estimates[:-1]] == list(range(50))
    assert [values for _, _, values, _ in rig.sink.estimates[:50]] == [[4.0, k + 1.0] for k in range(50)]
    assert rig.log.outcome.stopped_by == "seconds"
    assert rig.log.in_time[: rig.log.n].all()
    assert rig.sink.notes == rig.log.n == 50
    assert rig.sink.events == [("state", "READY to RUNNING"), ("state", "RUNNING to ENDED")]


def test_the_last_message_says_end_and_has_no_values() -> None:
    rig = Rig()
    rig.run(0.1)
    _, state, values, flags = rig.sink.estimates[-1]
    assert (state, values, flags & Flag.END) == (State.ENDED, None, Flag.END)
    assert rig.sink.states[-1] is State.ENDED


def test_after_a_stall_the_newest_bin_is_published_and_the_others_are_charged() -> None:
    rig = Rig()
    rig.run(1.0, {200: lambda: rig.stall(100)})
    counts = rig.log.outcome.counters
    assert counts["tokens_superseded"] >= 4
    assert counts["tokens_closed"] == rig.log.n + 1 == 51  # and the bin that was open at the end
    published = [token for token, *_ in rig.sink.estimates[:-1]]
    assert published == sorted(published)
    assert counts["tokens_published"] == len(published)
    assert rig.log.outcome.misses["backlog"] == counts["deadline_misses"] >= 4
    assert rig.log.latency["edge_to_pub_ms"].histogram.get_total_count() == 50
    assert not rig.log.in_time[: rig.log.n][rig.log.sent_ns[: rig.log.n] == 0].any()


def test_a_long_stall_costs_bounded_work_and_no_bin() -> None:
    """What the engine never saw is invalid in the log; every bin has its row."""
    rig = Rig()
    rig.run(4.0, {200: lambda: rig.stall(3000)})
    assert rig.log.n == 200
    assert np.diff(rig.log.t_end_ns[:200]).tolist() == [BIN] * 199
    skipped = (~rig.log.valid[:200]).sum()
    assert skipped >= 3000 * MS // BIN - MAX_CATCH_UP - 2
    assert np.isnan(rig.log.values[:200][~rig.log.valid[:200]]).all()
    assert not rig.log.state[:200][~rig.log.valid[:200]].tolist().count(STATES.index(State.RUNNING))


def test_a_silent_sender_is_stalled_and_nothing_is_said() -> None:
    rig = Rig()
    rig.run(1.0, {500: lambda: rig.send(False)})
    silent = [(state, values) for _, state, values, flags in rig.sink.estimates[:-1] if flags & Flag.GAP]
    assert len(silent) >= 20
    assert set(map(str, silent)) == {str((State.STALLED, None))}
    assert ("state", "RUNNING to STALLED") in rig.sink.events
    # closed by the clock: by the allowance after its edge, rounded up to the 5 ms of this sender
    waits = rig.log.wait_ns[: rig.log.n][~rig.log.valid[: rig.log.n]]
    assert LATENESS <= waits.min() <= waits.max() <= LATENESS + 5 * MS


def test_a_sender_that_comes_back_is_decoded_again() -> None:
    rig = Rig()
    rig.run(20.0, {500: lambda: rig.send(False), 18_000: lambda: rig.send(True)})
    words = [detail for name, detail in rig.sink.events if name == "state"]
    assert words == [
        "READY to RUNNING", "RUNNING to STALLED", "STALLED to LOST", "LOST to RUNNING", "RUNNING to ENDED",
    ]  # fmt: skip


def test_every_event_is_in_the_log() -> None:
    rig = Rig()
    rig.run(0.5, {200: lambda: rig.send(False)})
    assert [(event.name, event.detail) for event in rig.log.events] == rig.sink.events


def test_between_segments_nothing_is_decoded_and_the_marks_are_logged() -> None:
    rig = Rig(markers=True)
    marks = [Mark(START + 100 * MS, "segment_start", 7), Mark(START + 299 * MS, "segment_end", 7, {"choice": "left"})]
    rig.source.pending = list(marks)
    rig.run(0.5)
    inside = [token for token, state, _, _ in rig.sink.estimates if state is State.RUNNING]
    assert inside == list(range(5, 15))
    assert rig.log.marks == marks
    assert rig.log.segment[rig.log.decoded_rows()].tolist() == [7] * 10


def test_a_clock_that_stepped_is_flagged_for_a_second() -> None:
    rig = Rig()
    rig.run(3.0, {1000: lambda: setattr(rig.source, "clock_jumps", 1)})
    flagged = [token for token, _, _, flags in rig.sink.estimates if flags & Flag.CLOCK_JUMP]
    assert len(flagged) == 50
    assert flagged == list(range(flagged[0], flagged[0] + 50))
    assert [name for name, _ in rig.sink.events].count("clock_jump") == 1


def test_a_sender_that_sends_again_counts_once_and_is_said_once() -> None:
    rig = Rig()
    wait = rig.source.wait
    burst: list[list[tuple[int, int]]] = []

    def waits(timeout_s: float) -> np.ndarray:
        """Four spikes inside each 5 ms, every tenth of them twice."""
        wait(timeout_s)
        now = rig.clock.t_ns
        burst.append([(now - 4 * MS + k * MS // 2, k % 2) for k in range(4)])
        again = [(t_ns, SENT_AGAIN) for t_ns, _ in burst[-1]] if len(burst) % 10 == 0 else []
        return np.array(burst[-1] + again, SPIKES)

    rig.source.wait = waits
    rig.run(1.0)
    counts = rig.log.outcome.counters
    assert (counts["spikes_binned"], counts["spikes_resent"]) == (800, 80)
    assert {values[0] for _, _, values, _ in rig.sink.estimates if values is not None} == {16.0}
    assert sum(bool(flags & Flag.RESENT) for *_, flags in rig.sink.estimates) == 20
    assert [name for name, _ in rig.sink.events].count("spikes_resent") == 1


def test_measured_behaviour_is_kept_for_the_scores() -> None:
    rig = Rig()
    rig.source.samples = [("wheel_speed", START + 19 * MS, 2.5)]
    rig.run(0.1)
    assert rig.log.behaviours["wheel_speed"].at(rig.log.t_end_ns[:2], BIN).tolist() == [
        2.5,
        pytest.approx(np.nan, nan_ok=True),
    ]


@pytest.mark.parametrize("why", ["recording_end", "player_gone", "stream_changed"])
def test_a_source_that_is_over_ends_the_run(why: str) -> None:
    rig = Rig()
    rig.source.refused = "other units" if why == "stream_changed" else ""
    rig.run(5.0, {300: lambda: setattr(rig.source, "why", why)})
    assert (rig.log.outcome.stopped_by, rig.log.outcome.refusal) == (why, rig.source.refused)
    assert rig.log.n < 20


def test_what_happened_in_the_last_pass_is_said() -> None:
    rig = Rig()

    def lost() -> None:
        rig.source.why, rig.source.news = "recording_end", [("markers_lost", "restart it")]

    rig.run(5.0, {300: lost})
    assert rig.sink.events[-2:] == [("markers_lost", "restart it"), ("state", "RUNNING to ENDED")]


def test_a_stop_ends_at_the_next_pass() -> None:
    rig = Rig()
    asked = iter([False] * 10 + [True])
    rig.run(5.0, stop=lambda: next(asked))
    assert rig.log.outcome.stopped_by == "signal"
    assert rig.clock.t_ns == START + 10 * 5 * MS


def test_another_decoder_takes_over_between_two_bins() -> None:
    rig = Rig()
    other = Decoder(Sum(), "other", "model 2", "sha 2", "", "units", 2, BIN)
    rig.run(0.4, {201: lambda: rig.pipeline.exchange(other)})
    ages = [values[1] for _, _, values, _ in rig.sink.estimates if values is not None]
    assert ages == [float(k + 1) for k in range(10)] + [float(k + 1) for k in range(10)]


def test_a_step_of_seconds_is_logged_as_long_as_it_was() -> None:
    """A machine that stood still inside a step: the run goes on, and the row holds its time."""
    rig = Rig()
    ticks = iter([0, 3000 * MS, *([3000 * MS] * 1000)])
    rig.pipeline.cpu_clock = lambda: next(ticks)
    rig.run(0.2)
    assert rig.log.infer_ns[: rig.log.n].max() == 3000 * MS


FAR = 60 * 1000 * MS
HOUR = 3600 * 1000 * MS


@pytest.mark.parametrize(
    ("off_ns", "says"),
    [
        (24 * HOUR, "markers are stamped 8.64e+04 s ahead: not of the LSL clock; stamp with local_clock()"),
        (-HOUR, "markers are stamped 3.6e+03 s behind: not of the LSL clock; stamp with local_clock()"),
        (FAR + 2 * MS, "markers are stamped 60 s ahead: not of the LSL clock; stamp with local_clock()"),
    ],
)
def test_markers_of_another_clock_are_bad_and_said_once(off_ns: int, says: str) -> None:
    """Else a run waits for them for ever, or decodes one bin of each segment."""
    rig = Rig(markers=True, far_ns=FAR)

    def marks() -> None:
        now = rig.clock.t_ns + off_ns
        rig.source.pending += [Mark(now, "segment_start", 1), Mark(now + BIN, "segment_end", 1)]

    rig.run(0.5, {100: marks, 200: marks})
    assert [event for event in rig.sink.events if event[0] == "markers_astray"] == [("markers_astray", says)]
    assert rig.log.outcome.counters["bad_markers"] == 4
    assert rig.log.outcome.counters["tokens_published"] == 0
    assert rig.pipeline._marks == []


def test_a_trial_is_sent_ahead_whole() -> None:
    """The start up to a minute, the end with it, however long the trial; a process that was stopped takes both."""
    rig = Rig(markers=True, far_ns=FAR)
    ends = START + 10 * HOUR

    def marks() -> None:
        rig.source.pending += [Mark(START + 300 * MS, "segment_start", 3), Mark(ends, "segment_end", 3)]

    def suspended() -> None:
        rig.stall(200_000)
        rig.source.pending += [Mark(rig.clock.t_ns - FAR - 9 * MS, "segment_end", 3)]

    rig.run(201.0, {100: marks, 500: suspended})
    assert rig.log.outcome.counters["bad_markers"] == 0
    assert next(k for k in range(rig.log.n) if not rig.log.idle[k]) == 15
    assert rig.pipeline.segment == 3
    assert rig.log.idle[rig.log.n - 1]
