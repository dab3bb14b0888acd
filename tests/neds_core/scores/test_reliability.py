"""Reliability of probabilities, by hand and in the limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.scores.reliability import TEMPERATURES, fit_temperature, reliability, reliability_error, with_temperature


def drawn(n: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of three classes, and labels drawn from them at a temperature."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([1.0, 1.0, 1.0], n)
    truth = with_temperature(probs, temperature)
    return probs, (rng.random((n, 1)) > truth.cumsum(1)).sum(1).clip(max=2)


def test_by_hand() -> None:
    """Four guesses at 0.9, three right; two at 0.6, one right: (4 * 0.15 + 2 * 0.1) / 6."""
    probs = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    label = np.array([0, 0, 0, 1, 1, 0])

    assert reliability_error(probs, label, n_bins=10) == pytest.approx(0.8 / 6)
    found = reliability(probs, label, n_bins=10)
    assert found.n.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 4, 0]
    assert found.accuracy[[5, 8]].tolist() == [0.5, 0.75]
    assert np.isnan(found.confidence[[0, 9]]).all()


def test_probabilities_that_labels_were_drawn_from_are_reliable_in_the_limit() -> None:
    """The error falls with the number of trials, as 1 / sqrt(n), towards 0."""
    errors = [reliability_error(*drawn(n, 1.0, 0)) for n in (400, 40_000)]

    assert errors[1] < 0.01
    assert errors[1] < 0.3 * errors[0]


def test_the_sure_and_right_are_reliable_and_the_sure_and_wrong_are_not() -> None:
    """The two ends of the scale."""
    probs = np.eye(2)[[0, 1, 0, 1]]

    assert reliability_error(probs, np.array([0, 1, 0, 1])) == 0.0
    assert reliability_error(probs, np.array([1, 0, 1, 0])) == 1.0


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """From 20 000 labels drawn at it."""
    probs, label = drawn(20_000, temperature, 3)

    # 15 %: five standard errors where labels are all but random, as they are at 3
    assert fit_temperature(probs, label) == pytest.approx(temperature, rel=0.15)


def test_temperature_scaling_mends_overconfidence_on_other_trials() -> None:
    """Fitted on one half, judged on the other; the order of classes is untouched."""
    probs, label = drawn(4000, 3.0, 1)
    temperature = fit_temperature(probs[:2000], label[:2000])
    scaled = with_temperature(probs[2000:], temperature)

    before = reliability_error(probs[2000:], label[2000:])
    assert reliability_error(scaled, label[2000:]) < 0.3 * before
    assert np.array_equal(scaled.argmax(1), probs[2000:].argmax(1))


@given(temperature=st.floats(0.05, 20.0), seed=st.integers(0, 2**31))
def test_scaled_probabilities_are_probabilities(temperature: float, seed: int) -> None:
    """Also of certain ones; temperature 1 changes nothing."""
    probs = np.concatenate([np.random.default_rng(seed).dirichlet([0.3] * 3, 5), np.eye(3)])

    scaled = with_temperature(probs, temperature)

    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled.sum(1), 1.0)
    # the floor of 1e-9 moves a certain probability by as much
    np.testing.assert_allclose(with_temperature(probs, 1.0), probs, atol=1e-8)


def test_hopeless_and_perfect_decoders_reach_the_bounds() -> None:
    """One that is right by nothing is flattened, one that is always right is sharpened."""
    rng = np.random.default_rng(2)
    probs = rng.dirichlet([1.0, 1.0], 500)

    assert fit_temperature(probs, rng.integers(0, 2, 500)) > 5.0
    assert fit_temperature(probs, probs.argmax(1)) == pytest.approx(TEMPERATURES[0], rel=0.01)
