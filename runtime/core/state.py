"""The states of a run, in one table."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a run is doing. Every message carries one of these words."""

    INIT = "INIT"  # the streams are found, nothing is connected
    WARMUP = "WARMUP"  # the engine takes its first steps on made-up bins
    READY = "READY"  # connected, no bin has closed yet
    RUNNING = "RUNNING"  # the bin had live data and was decoded
    IDLE = "IDLE"  # between segments: nothing is decoded
    DEGRADED = "DEGRADED"  # decoded, from inputs that are partly unusable
    STALLED = "STALLED"  # the bin had no live data
    LOST = "LOST"  # no live data for `LOST_NS`
    FAULT = "FAULT"  # not decoded: the inputs or the engine are unusable
    ENDED = "ENDED"  # the last message


BINS = {State.RUNNING, State.IDLE, State.DEGRADED, State.STALLED, State.LOST, State.FAULT}  # of a closed bin
LEGAL: dict[State, frozenset[State]] = {
    State.INIT: frozenset({State.WARMUP, State.ENDED}),
    State.WARMUP: frozenset({State.READY, State.ENDED}),
    State.READY: frozenset({*BINS, State.ENDED}),
    State.RUNNING: frozenset({*BINS, State.ENDED}),
    State.IDLE: frozenset({*BINS, State.ENDED}),
    State.DEGRADED: frozenset({*BINS, State.ENDED}),
    State.STALLED: frozenset({*BINS, State.ENDED}),
    State.LOST: frozenset({*BINS, State.ENDED}),
    State.FAULT: frozenset({*BINS, State.ENDED}),
    State.ENDED: frozenset(),
}
LOST_NS = 15_000_000_000  # a sender that is silent for longer is gone rather than late
IDLE_NS = 1_000_000_000  # between segments, a sender of keep-alives that is silent for longer has stalled


def of_token(
    *, idle: bool, valid: bool, silent_ns: int, input_state: State = State.RUNNING, keep_alive: bool = False
) -> State:  # fmt: skip
    """The state that a closed bin leaves the run in.

    silent_ns: since the newest bin with live data. input_state: RUNNING, DEGRADED or FAULT, what the input is worth.
    keep_alive: the sender has keep-alives, so that it is never silent between segments either.
    """
    if idle and not (keep_alive and silent_ns >= IDLE_NS):
        return State.IDLE
    if valid or (input_state is State.FAULT and not idle):  # spikes that come and cannot be binned are no silence
        return input_state
    return State.LOST if silent_ns >= LOST_NS else State.STALLED


class StateTrack:
    """The state of one run. A transition that the table lacks raises `ValueError`: it is a bug, not an input."""

    def __init__(self) -> None:
        self.state = State.INIT

    @classmethod
    def ready(cls) -> StateTrack:
        """One that has nothing to connect and nothing to warm up."""
        track = cls()
        track.enter(State.WARMUP)
        track.enter(State.READY)
        return track

    def enter(self, state: State) -> str:
        """Go to `state`. Returns "OLD to NEW", or "" where it is the state already."""
        if state is self.state:
            return ""
        if state not in LEGAL[self.state]:
            raise ValueError(f"a run cannot go from {self.state} to {state}")
        said, self.state = f"{self.state} to {state}", state
        return said
