"""The compiled step of the linear decoder against its twin in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kernels.cpu import linear as kernel
from neds_core.linear.linear import Bank, BankState
from runtime.engines.linear import Features

BANKS = st.builds(
    Bank,
    lags=st.integers(1, 5),
    root=st.booleans(),
    clock_bins=st.sampled_from([0, 4]),
) | st.builds(
    Bank,
    taus_ms=st.lists(st.floats(5.0, 2e3), min_size=1, max_size=3).map(tuple),
    root=st.booleans(),
    clock_bins=st.sampled_from([0, 4]),
)


@given(bank=BANKS, units=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_features_are_those_of_the_twin(bank: Bank, units: int, seed: int) -> None:
    """Bin after bin, over a cold start, with units that are left out and clocks that are not known."""
    rng = np.random.default_rng(seed)
    ours, twin = Features(bank, units, 20_000_000), BankState(bank, units, 20_000_000)
    used = rng.random(units) < 0.7
    for t in range(12):
        if t == 7:
            ours.reset()
            twin.reset()
        counts = rng.poisson(1.5, units).astype(np.uint16)
        ours.step(counts, used, t - 3)
        expected = twin.step(np.where(used, counts, 0).astype(np.float32), t - 3)
        np.testing.assert_allclose(ours.values, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("is_class", [False, True])
def test_a_readout_is_a_product_or_its_softmax(is_class: bool) -> None:
    """Features that are 0 are left out of the sum, which changes nothing."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=50).astype(np.float32) * (rng.random(50) < 0.3)
    weight, bias = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    out = np.zeros(3, np.float32)

    kernel.read(features.astype(np.float32), weight, bias, is_class, out)

    expected = features @ weight + bias
    if is_class:
        expected = np.exp(expected - expected.max()) / np.exp(expected - expected.max()).sum()
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
