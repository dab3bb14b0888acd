"""Encoders on planted rates, and their score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.accuracy.peers import encoders, neds_encoding
from benchmarks.accuracy.peers.task import Task
from neds_core.data.session import Session
from neds_core.scores.bits import bits_per_spike
from neds_core.train import sources
from neds_core.train.sources import Source


def test_bits_per_spike_is_a_difference_of_log_likelihoods() -> None:
    """Against torch's Poisson; the null itself scores 0, the true rates more, worse rates less than nothing."""
    rng = np.random.default_rng(0)
    rates = np.exp(rng.normal(-1.0, 0.7, (4000, 5)))
    counts = rng.poisson(rates)
    null = counts.mean(0)

    def log_likelihood(r: np.ndarray) -> float:
        return float(torch.distributions.Poisson(torch.from_numpy(r)).log_prob(torch.from_numpy(counts)).sum())

    expected = (log_likelihood(rates) - log_likelihood(np.tile(null, (4000, 1)))) / counts.sum() / np.log(2)
    assert bits_per_spike(counts, rates, null) == pytest.approx(expected)
    assert expected > 0.1
    assert bits_per_spike(counts, np.tile(null, (4000, 1)), null) == 0.0
    assert bits_per_spike(counts, rates[::-1], null) < 0
    assert np.isnan(bits_per_spike(np.zeros_like(counts), rates, null))


def test_the_glm_recovers_planted_weights() -> None:
    """Two inputs and a bias for each of three units, from 8,000 bins."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8000, 2))
    truth = np.array([[0.5, -0.3, 0.0], [0.2, 0.4, -0.6], [-1.0, -0.5, -1.5]])
    counts = rng.poisson(np.exp(x @ truth[:2] + truth[2])).astype(np.float64)

    found = encoders.poisson_fit(x, counts, 1.0)

    # about three standard errors of the least certain weight: 1 / sqrt(8000 * 0.3 spikes a bin)
    np.testing.assert_allclose(found, truth, atol=0.06)


def test_a_large_penalty_leaves_the_mean_rate() -> None:
    """The bias is free, the weights are not."""
    rng = np.random.default_rng(2)
    x, counts = rng.normal(size=(500, 3)), rng.poisson(0.7, (500, 2)).astype(np.float64)

    found = encoders.poisson_fit(x, counts, 1e7)

    np.testing.assert_allclose(np.exp(found[-1]), counts.mean(0), rtol=1e-3)
    assert np.abs(found[:-1]).max() < 1e-3


@pytest.mark.parametrize("lags", [1, 6])
def test_glm_features_are_the_past_of_the_trial(task: Task, lags: int) -> None:
    """Newest first, nothing from the trial before; the time is one column a bin."""
    test = task.parts.test

    x = encoders.design(task, test, {"lags": lags, "root": False})

    z = np.nan_to_num(test.values["wheel_speed"][test.bins()] - task.scale.mean["wheel_speed"])
    z = z / task.scale.sd["wheel_speed"]
    second = x[25:50]  # the second test trial
    for k in range(lags):
        np.testing.assert_allclose(second[k:, k], z[25 : 50 - k], rtol=1e-5)
        assert (second[:k, k] == 0).all()
    np.testing.assert_array_equal(second[:, lags:].argmax(1), np.arange(25))


def behaviour_changed(session: Session, after: int) -> Session:
    """Other behaviour from bin `after` of each segment on, and other spikes everywhere."""
    wheel = session.values["wheel_speed"].copy()
    wheel[session.clock() >= after] += 5.0
    return replace(
        session, values={**session.values, "wheel_speed": wheel}, counts=(session.counts + 1).astype(np.uint8)
    )


def test_encoders_see_past_behaviour_and_no_spikes(task: Task) -> None:
    """The rates of bins 0 to 11 do not move when behaviour after them, or any spike of the test part, does."""
    test = task.parts.test
    other = behaviour_changed(test, 12)
    early = test.clock()[test.bins()] < 12
    setting = {"lags": 5, "root": True, "penalty": 1.0, "clock_scale": 3.0}
    model = sources.build(task.config, (Source(task.parts.train, None, task.scale),), 0).requires_grad_(False)
    model.rate_head().weight.normal_()
    for predict in (encoders.glm_on(task, setting, task.parts.development)[1], neds_encoding.encoder(task, model)):
        before, after = predict(test), predict(other)

        # 1e-5: the attention sums in another order where a padded batch is wider
        np.testing.assert_allclose(after[early], before[early], rtol=1e-5)
        assert np.abs(after[~early] - before[~early]).max() > 1e-3


def test_the_glm_beats_the_trial_average_where_behaviour_drives_spikes(task: Task) -> None:
    """On the planted recording, where time in the trial says nothing."""
    part, test = task.parts.development, task.parts.test
    setting = {"lags": 3, "root": False, "penalty": 30.0, "clock_scale": 0.3}

    goal = encoders.goal_of(part, test)
    glm = encoders.skill(goal, encoders.glm_on(task, setting, part)[1](test))
    average = encoders.skill(goal, encoders.AVERAGE.fit(task, {}, 0).predict(test))

    assert glm > average + 0.05
    assert abs(average) < 0.05
