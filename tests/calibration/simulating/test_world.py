"""The world without a socket: trials are won and lost as the task says, and what happens has consequences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from calibration.simulating.animal import Animal, Body
from calibration.simulating.task import (
    BIN_TICKS,
    CURSOR,
    DWELL,
    EFFECTORS,
    PAUSE,
    TICK_S,
    TIMEOUT,
    TIMEOUT_S,
    VISUAL_S,
    Effector,
    shuffled,
)
from calibration.simulating.world import World, between

BODY = Body.grown(0)


def world(effector: Effector = CURSOR, trials: int = 8, delays: tuple[int, ...] = (0,), adapts: bool = True) -> World:
    animal = Animal(BODY, effector, np.random.default_rng(0), adapts)
    return World(animal, effector, shuffled(np.random.default_rng(1), effector.n_targets, delays, trials))


def play(made: World, through: np.ndarray | None = None, late: int = 0) -> World:
    """Drive a world by its animal's intent of `late` ticks ago, through a matrix (D, D)."""
    D = len(made.cursor)
    line = [np.zeros(D)] * (late + 1)
    while not made.over:
        made.step(line.pop(0))
        line.append(made.animal.intent if through is None else through @ made.animal.intent)
    return made


@pytest.mark.parametrize("effector", EFFECTORS.values(), ids=EFFECTORS)
def test_who_moves_as_he_wants_wins_every_trial(effector: Effector) -> None:
    done = play(world(effector))
    assert len(done.trials) == 8
    assert all(trial.success for trial in done.trials)
    least = VISUAL_S + (effector.reach - effector.window) / effector.speed
    for trial in done.trials:
        assert least - TICK_S <= trial.time_s < TIMEOUT_S
        assert trial.efficiency == pytest.approx(1.0, abs=0.02)  # the push that it learns bends the way a little


def test_who_stands_still_loses_every_trial() -> None:
    made = world(trials=2)
    while not made.over:
        made.step(None, stale=made.moving and len(made.trials) == 1)
    assert [trial.success for trial in made.trials] == [False, False]
    assert [trial.time_s for trial in made.trials] == [TIMEOUT_S, TIMEOUT_S]
    assert [trial.efficiency for trial in made.trials] == [0.0, 0.0]
    held, stale = made.trials
    assert (held.held_ticks, held.stale_ticks) == (TIMEOUT, 0)
    assert stale.stale_ticks == TIMEOUT - 1  # the tick that begins the trial is asked before it has begun
    assert not made.cursor.any()


def test_a_delay_makes_trials_longer() -> None:
    """The same animal, moved by its intent of 0, 20 and 40 ticks ago: it overshoots more and more."""
    times = [np.mean([t.time_s for t in play(world(trials=8), late=late).trials]) for late in (0, 20, 40)]
    assert times[0] < times[1] < times[2]


def test_an_animal_learns_the_turn_of_its_decoder_and_gets_faster() -> None:
    c, s = np.cos(0.7), np.sin(0.7)
    turned = np.array([[c, -s], [s, c]])
    learns, stays = (play(world(trials=40, adapts=adapts), turned).trials for adapts in (True, False))
    assert learns[-1].aim_deg == pytest.approx(-np.degrees(0.7), abs=8)
    assert {trial.aim_deg for trial in stays} == {0.0}
    late = slice(20, None)
    assert np.mean([t.efficiency for t in learns[late]]) > np.mean([t.efficiency for t in stays[late]]) + 0.02


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), trials=st.integers(1, 5))
def test_markers_frame_every_trial_on_edges_of_bins_and_are_never_late(seed: int, trials: int) -> None:
    """Start and end of each trial, in order, at edges of bins, each announced before it applies."""
    animal = Animal(BODY, CURSOR, np.random.default_rng(seed))
    made = World(animal, CURSOR, shuffled(np.random.default_rng(seed), 8, (0, 50), trials))
    found = []
    while not made.over:
        made.step(animal.intent)
        for mark in made.marks:
            assert mark.tick > made.tick
            assert mark.tick % BIN_TICKS == 0
            found.append(mark)
        made.marks.clear()
    assert [mark.event for mark in found] == ["segment_start", "segment_end"] * (2 * trials)
    assert [mark.trial for mark in found] == [k for k in range(2 * trials) for _ in range(2)]
    ticks = [mark.tick for mark in found]
    assert ticks == sorted(ticks)
    for start, end, trial in zip(found[::2], found[1::2], made.trials, strict=True):
        lasted = round(trial.time_s / TICK_S) + DWELL
        assert lasted <= end.tick - start.tick <= lasted + PAUSE // 2


@given(
    n_targets=st.integers(1, 8), repeats=st.integers(1, 4),
    delays=st.lists(st.integers(0, 300), min_size=1, unique=True),
)  # fmt: skip
def test_every_delay_has_every_target_equally_often(n_targets: int, repeats: int, delays: list[int]) -> None:
    plan = shuffled(np.random.default_rng(0), n_targets, tuple(delays), n_targets * repeats)
    counted = {pair: plan.count(pair) for pair in set(plan)}
    assert counted == {(k, delay): repeats for k in range(n_targets) for delay in delays}


@given(angle=st.floats(-3.0, 3.0), start=st.floats(-3.0, 3.0))
def test_the_angle_between_two_ways(angle: float, start: float) -> None:
    one = np.array([np.cos(start), np.sin(start)])
    other = 5.0 * np.array([np.cos(start + angle), np.sin(start + angle)])
    assert between(one, other) == pytest.approx(angle, abs=1e-9)
