"""Bits a spike, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from neds_core.scores import bits
from neds_core.scores.bits import bits_per_spike, unit_bits_per_spike

COUNTS = arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.integers(0, 5))


def test_by_hand() -> None:
    """Two bins, one unit: log2(2) for the spike, and the same rates summed cost nothing."""
    counts = np.array([[0], [2]])
    rates, null = np.array([[0.5], [1.5]]), np.array([[1.0]])

    # 2 log2(1.5) spikes' gain, minus (0.5 + 1.5 - 2) / ln 2 = 0 of rate, over 2 spikes
    assert bits_per_spike(counts, rates, null) == pytest.approx(np.log2(1.5))
    # a rate that is 1 too high in each bin costs 2 / ln 2 bits over 2 spikes
    assert bits_per_spike(counts, null + 1.0, null) == pytest.approx(1.0 - 1.0 / np.log(2.0))


@given(counts=COUNTS, seed=st.integers(0, 2**31))
def test_it_is_torchs_likelihood(counts: np.ndarray, seed: int) -> None:
    """Difference of the full Poisson log-likelihoods, ln x! included, per spike in bits."""
    rng = np.random.default_rng(seed)
    rates, null = rng.gamma(2.0, 0.5, counts.shape) + 1e-3, rng.gamma(2.0, 0.5, counts.shape[1]) + 1e-3
    target = torch.from_numpy(counts.astype(np.float64))
    likelihood = [
        torch.distributions.Poisson(torch.from_numpy(np.broadcast_to(r, counts.shape).copy())).log_prob(target).sum()
        for r in (rates, null)
    ]
    if counts.any():
        expected = float(likelihood[0] - likelihood[1]) / np.log(2.0) / counts.sum()
        assert bits_per_spike(counts, rates, null) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    else:
        assert np.isnan(bits_per_spike(counts, rates, null))


@given(counts=COUNTS)
def test_the_null_scores_nothing_and_the_units_own_mean_is_the_best_constant(counts: np.ndarray) -> None:
    """Against itself 0; any other constant loses to the mean of what is scored, in every unit."""
    mean = counts.mean(0)
    assert np.nan_to_num(unit_bits_per_spike(counts, mean, mean)).tolist() == [0.0] * counts.shape[1]
    for other in (mean * 0.7, mean * 1.3 + 0.01):
        assert (np.nan_to_num(unit_bits_per_spike(counts, other, mean)) <= 1e-12).all()


@given(counts=COUNTS, seed=st.integers(0, 2**31))
def test_pooled_is_the_units_weighted_by_their_spikes(counts: np.ndarray, seed: int) -> None:
    """Where every unit spikes; a silent unit has no score of its own."""
    counts = counts + 1
    counts[:, 0] = 0
    rates = np.random.default_rng(seed).gamma(2.0, 0.5, counts.shape)
    units = unit_bits_per_spike(counts, rates, counts.mean(0) + 0.1)

    assert np.isnan(units[0])
    if counts.shape[1] > 1:
        weighted = (units * counts.sum(0))[1:].sum() / counts.sum()
        pooled = bits_per_spike(counts[:, 1:], rates[:, 1:], counts[:, 1:].mean(0) + 0.1)
        assert pooled == pytest.approx(weighted)


def test_a_rate_of_zero_is_surprised_but_not_for_ever() -> None:
    """One spike where none was expected costs about log2 of the floor."""
    score = bits_per_spike(np.array([[1]]), np.array([[0.0]]), np.array([[1.0]]))

    assert score == pytest.approx(np.log2(bits.LOWEST_RATE) + 1.0 / np.log(2.0), rel=1e-3)


def test_trials_add_up_to_the_pooled_score() -> None:
    """The sums of a bootstrap give the score itself, and NaN where no unit spikes."""
    rng = np.random.default_rng(0)
    counts, rates = rng.poisson(0.4, (40, 5)), rng.gamma(2.0, 0.2, (40, 5))
    sums = bits.bits_sums(counts, rates, counts.mean(0), np.repeat([4, 9, 2, 7], 10))

    assert sums.shape == (4, 2)
    assert bits.bits_of_sums(sums.sum(0)) == pytest.approx(bits_per_spike(counts, rates, counts.mean(0)))
    assert np.isnan(bits.bits_of_sums(np.zeros((3, 2)))).all()
