"""What a part's spikes are scored against, and what a score says of rates that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neds_core.data.session import BehaviourSpec, Session, UnitTable, split
from neds_core.errors import DataError
from neds_core.model import directions
from neds_core.scores import encoding
from neds_core.scores.encoding import Target

PROFILE = 0.3 + 0.25 * np.sin(np.arange(20) / 3.0)


def modulated(n_trials: int, rate: np.ndarray, seed: int = 0) -> Session:
    """Trials of 20 bins; four units follow `rate` (n_trials * 20,) spikes a bin, the fifth is slow (1 Hz)."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.concatenate([np.repeat(rate[:, None], 4, 1), np.full((len(rate), 1), 0.02)], 1))
    edges = np.arange(n_trials + 1, dtype=np.int64) * 20
    return Session(
        name="modulated",
        bin_ns=20_000_000,
        units=UnitTable(np.arange(5), np.full(5, "ca1"), np.zeros(5, np.float32)),
        counts=counts.astype(np.uint8),
        valid=np.ones(len(rate), bool),
        specs=(BehaviourSpec("wheel_speed", "continuous"),),
        values={"wheel_speed": rate.astype(np.float32)},
        segments=np.stack([edges[:-1], edges[1:]], 1),
        segment_ids=np.arange(n_trials, dtype=np.int64),
    )


def goal_of(session: Session) -> Target:
    """The last fifth, scored against the first four."""
    parts = split(session)
    bins = directions.bins_of(directions.spans_of(parts.test))
    return encoding.target(parts.development, parts.test, bins, bins // 20)


def test_the_trial_average_finds_the_profile_and_smooths_it() -> None:
    """Nearer to the true rates than the plain mean of 60 trials is, and never 0."""
    session = modulated(60, np.tile(PROFILE, 60))
    units = np.arange(5) < 4

    found = encoding.trial_average(session, units)

    plain = session.counts[:, units].reshape(60, 20, 4).mean(0)
    assert found.shape == (20, 4)
    assert np.abs(found - PROFILE[:, None]).mean() < 0.7 * np.abs(plain - PROFILE[:, None]).mean()
    assert (encoding.trial_average(session, ~units) > 0).all()


def test_a_sharp_profile_is_not_smoothed_away() -> None:
    """Training blocks decide: one bin at 1.0 among 0.05 stays, but for one trial's worth of the mean."""
    sharp = np.where(np.arange(20) == 7, 1.0, 0.05)
    session = modulated(200, np.tile(sharp, 200))

    found = encoding.trial_average(session, np.arange(5) < 4)

    plain = session.counts[:, :4].reshape(200, 20, 4)
    np.testing.assert_allclose(found, (plain.sum(0) + session.counts[:, :4].mean(0)) / 201)


def test_a_continuous_recording_has_no_trial_to_average(unbroken: Session) -> None:
    """Its mean stands in."""
    found = encoding.trial_average(unbroken, np.ones(5, bool))

    np.testing.assert_allclose(found, unbroken.counts.mean(0, keepdims=True))


def test_the_target_keeps_to_units_and_bins_that_count() -> None:
    """Units above 2 Hz in training, whatever they do later; bins that are valid."""
    session = modulated(50, np.tile(PROFILE, 50))
    counts, valid = session.counts.copy(), session.valid.copy()
    counts[800:, 4] = 9
    counts[800:, 0] = 0
    valid[810:813] = False
    session = replace(session, counts=counts, valid=valid)

    goal = goal_of(session)

    assert goal.units.tolist() == [True] * 4 + [False]
    assert goal.counts.shape == goal.average.shape == (197, 4)
    assert not set(goal.rows.tolist()) & {10, 11, 12}
    np.testing.assert_allclose(goal.mean, counts[:800, :4].mean(0))
    rates = np.random.default_rng(0).random((200, 5))
    assert np.array_equal(goal.of(rates), np.delete(rates[:, :4], [10, 11, 12], axis=0))


def test_a_recording_of_slow_units_is_refused() -> None:
    """There is nothing to score."""
    with pytest.raises(DataError, match="no unit of 'modulated' fires above"):
        goal_of(modulated(20, np.full(400, 0.01)))


def test_scores_of_rates_that_are_known() -> None:
    """The mean scores 0, the trial average less than the rates themselves where trials differ."""
    gains = np.repeat(np.random.default_rng(1).gamma(4.0, 0.25, 100), 20)
    rate = np.tile(PROFILE, 100) * gains
    goal = goal_of(modulated(100, rate))
    truth = np.repeat(rate[1600:, None], 4, 1)

    constant = encoding.score(goal, np.broadcast_to(goal.mean, goal.counts.shape))
    average, best = encoding.score(goal, goal.average), encoding.score(goal, truth)

    assert (constant["bits_per_spike"], constant["ci95"]) == (0.0, [0.0, 0.0])
    assert constant["against_test_mean"] < 0
    units = np.log2(goal.mean / goal.counts.mean(0)) + (1 - goal.mean / goal.counts.mean(0)) / np.log(2)
    assert constant["mean_over_units_against_test_mean"] == pytest.approx(units.mean())
    assert average["above_trial_average"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert best["ci95"][0] < best["bits_per_spike"] < best["ci95"][1]
    assert best["above_trial_average"]["low"] > 0
    assert best["above_trial_average"]["value"] == pytest.approx(best["bits_per_spike"] - average["bits_per_spike"])
    paired = encoding.gain(goal, [truth], goal.average)
    assert paired == pytest.approx(best["above_trial_average"])
