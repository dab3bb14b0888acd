"""The animal: what it wants, how late it sees, how it learns to aim, and that a seed gives one animal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from calibration.simulating.animal import AIM_MOST, PUSH_MOST, RATE, Aim, Animal, Body, turn, wish
from calibration.simulating.task import BIN_TICKS, CURSOR, EFFECTORS, VISUAL, WHEEL, Effector

angles = st.floats(-0.9, 0.9)


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.grown(0)


@given(x=st.floats(-20, 20), y=st.floats(-20, 20))
def test_it_wants_to_go_straight_there_and_never_too_fast(x: float, y: float) -> None:
    way = np.array([x, y])
    wanted, far = wish(way, CURSOR), np.hypot(x, y)
    assert np.linalg.norm(wanted) == pytest.approx(min(CURSOR.speed, far / CURSOR.slow_s), abs=1e-9)
    assert wanted @ way == pytest.approx(np.linalg.norm(wanted) * far, abs=1e-9)


@given(bias=angles)
def test_aim_takes_a_constant_turn_back(bias: float) -> None:
    """A decoder that turns everything by `bias` is made up for, by RATE of what is left a trial."""
    aim = Aim(CURSOR)
    for _ in range(60):
        aim.learn(aim.angle + bias, np.zeros(2))
    assert aim.angle == pytest.approx(-bias * (1 - (1 - RATE) ** 60), abs=1e-9)
    there = turn(bias) @ aim.of(np.array([CURSOR.speed, 0.0]))
    assert abs(np.arctan2(there[1], there[0])) <= abs(bias) * (1 - RATE) ** 60 + 1e-9


@given(bias=st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=2))
def test_push_takes_a_constant_drift_off(bias: list[float]) -> None:
    aim = Aim(CURSOR)
    for _ in range(80):
        aim.learn(0.0, np.array(bias) + aim.push)
    np.testing.assert_allclose(aim.push, -np.array(bias), atol=3.0 * (1 - RATE) ** 80 + 1e-9)


@given(missed=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=30), surplus=st.floats(-100, 100))
def test_learning_is_bounded_and_can_be_switched_off(missed: list[float], surplus: float) -> None:
    learns, stays = Aim(CURSOR), Aim(CURSOR, adapts=False)
    for angle in missed:
        for aim in (learns, stays):
            aim.learn(angle, np.full(2, surplus))
    assert abs(learns.angle) <= AIM_MOST
    assert np.abs(learns.push).max() <= PUSH_MOST * CURSOR.speed
    assert stays.angle == 0.0
    assert not stays.push.any()


@pytest.mark.parametrize("effector", EFFECTORS.values(), ids=EFFECTORS)
def test_it_sees_the_screen_of_a_visual_delay_ago(effector: Effector, body: Body) -> None:
    animal = Animal(body, effector, np.random.default_rng(0))
    way = np.full(len(effector.axes), effector.reach)
    wanted = []
    for _ in range(VISUAL + 1):
        animal.tick(way)
        wanted.append(animal.wanted.any())
    assert wanted == [False] * VISUAL + [True]


def test_a_wish_to_rest_stays_one() -> None:
    aim = replace(Aim(WHEEL), angle=0.5)
    aim.push = np.ones(1)
    assert not aim.of(np.zeros(1)).any()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100))
def test_a_seed_is_one_animal(seed: int) -> None:
    one, same, other = Body.grown(seed), Body.grown(seed), Body.grown(seed + 1)
    spikes = [
        np.stack([Animal(b, CURSOR, np.random.default_rng(seed)).tick(None) for _ in range(3)])
        for b in (one, same, other)
    ]
    np.testing.assert_array_equal(spikes[0], spikes[1])
    assert one.table.sha256 == same.table.sha256
    assert not np.array_equal(one.loading, other.loading)


def test_units_say_what_is_intended(body: Body) -> None:
    """Without noise, opposite intents drive each unit as far up as down in log rate: loading @ latents."""
    rates = []
    for sign in (1.0, -1.0):
        animal = Animal(body, replace(CURSOR, noise=0.0), np.random.default_rng(1))
        counts = sum(animal.tick(sign * np.array([100.0, 0.0])) for _ in range(VISUAL + 1500 * BIN_TICKS))
        rates.append(np.log(np.maximum(counts, 1)))
    expected = 4.0 * body.loading[:, 0]  # 2 GAIN
    # sd of the log count of 1500 bins at 0.1 spikes: 0.08, of the difference 0.12; the largest of 60 units is within 4
    np.testing.assert_allclose(rates[0] - rates[1], expected, atol=0.48)
    assert np.corrcoef(rates[0] - rates[1], expected)[0, 1] > 0.99
