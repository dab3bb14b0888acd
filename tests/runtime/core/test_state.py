"""The table of states: what may follow what, and what a bin leaves a run in."""

from __future__ import annotations

import pytest

from runtime.core.state import IDLE_NS, LEGAL, LOST_NS, State, StateTrack, of_token


def test_every_state_has_a_row_and_an_end() -> None:
    assert set(LEGAL) == set(State)
    assert all(State.ENDED in LEGAL[state] for state in State if state is not State.ENDED)
    assert LEGAL[State.ENDED] == frozenset()


def test_a_run_goes_its_way_and_says_each_step_once() -> None:
    track = StateTrack()
    way = [State.WARMUP, State.READY, State.IDLE, State.RUNNING, State.RUNNING, State.STALLED, State.LOST, State.ENDED]
    assert [track.enter(state) for state in way] == [
        "INIT to WARMUP", "WARMUP to READY", "READY to IDLE", "IDLE to RUNNING", "", "RUNNING to STALLED",
        "STALLED to LOST", "LOST to ENDED",
    ]  # fmt: skip


@pytest.mark.parametrize("state", [State.RUNNING, State.READY, State.FAULT])
def test_what_the_table_lacks_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match=f"a run cannot go from INIT to {state}"):
        StateTrack().enter(state)


def test_nothing_follows_the_end() -> None:
    track = StateTrack.ready()
    track.enter(State.ENDED)
    with pytest.raises(ValueError, match="from ENDED to RUNNING"):
        track.enter(State.RUNNING)


@pytest.mark.parametrize(
    ("idle", "valid", "silent_ns", "input_state", "state"),
    [
        (True, False, LOST_NS, State.FAULT, State.IDLE),
        (False, True, 0, State.RUNNING, State.RUNNING),
        (False, True, 0, State.DEGRADED, State.DEGRADED),
        (False, False, LOST_NS - 1, State.DEGRADED, State.STALLED),
        (False, False, LOST_NS, State.RUNNING, State.LOST),
        (False, False, LOST_NS, State.FAULT, State.FAULT),
    ],
)
def test_a_bin_leaves_a_state(idle: bool, valid: bool, silent_ns: int, input_state: State, state: State) -> None:
    """Spikes that come and cannot be binned are a fault of theirs, not a silence."""
    assert of_token(idle=idle, valid=valid, silent_ns=silent_ns, input_state=input_state) is state


@pytest.mark.parametrize(
    ("keep_alive", "silent_ns", "state"),
    [
        (True, IDLE_NS - 1, State.IDLE), (True, IDLE_NS, State.STALLED), (True, LOST_NS, State.LOST),
        (False, LOST_NS, State.IDLE),
    ],
)  # fmt: skip
def test_a_sender_of_keep_alives_is_never_silent_between_segments(
    keep_alive: bool, silent_ns: int, state: State
) -> None:
    assert of_token(idle=True, valid=False, silent_ns=silent_ns, keep_alive=keep_alive) is state
