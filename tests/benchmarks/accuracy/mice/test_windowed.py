"""Logistic regression among trials: the same as among units, and blind to held-out trials."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.mice import windowed
from neds_core.linear import linear
from neds_core.linear.linear import Bank
from tests.benchmarks.mice import BINS, S, U, made, of_choice


@pytest.mark.parametrize("penalty", [0.03, 1.0, 10.0])
def test_among_trials_the_logistic_is_the_one_among_units(penalty: float) -> None:
    """The same evidence as `linear.logistic_fit`, on trials it saw and on others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 90)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=60) > 0.4).astype(np.int64)
    train = np.arange(60) < 40
    kernel = windowed.inner(x, train)

    weights, offset = windowed.fit(kernel[np.ix_(train, train)], y[train], penalty)

    logits = linear.logistic_fit(Bank(lags=1), x[train], y[train], 2, penalty * x.shape[1]).apply(x)
    # 1e-3 of evidence of about 1: L-BFGS stops at a gradient of 1e-7, and the kernel is summed in float32
    np.testing.assert_allclose(kernel[:, train] @ weights + offset, logits[:, 1] - logits[:, 0], atol=1e-3)


def test_windows_are_roots_of_sums() -> None:
    """Four windows of 100 ms out of 20 bins of 20 ms."""
    session = made(0, "a", of_choice).session

    found = windowed.windows(session)

    assert found.shape == (S, 4, U)
    np.testing.assert_allclose(found[7, 2] ** 2, session.counts[7 * BINS + 10 : 7 * BINS + 15].sum(0), rtol=1e-6)


def test_held_out_trials_reach_no_fit() -> None:
    """Other labels and spikes in the trials left out change none of the fit on the rest."""
    bundle = made(1, "a", of_choice)
    x, label = windowed.windows(bundle.session).reshape(S, -1), bundle.labels("go")
    train = np.arange(S) < 80
    other = np.where(train[:, None], x, 9.0)
    flipped = np.where(train, label, 1 - label)

    ours = windowed.evidence([windowed.inner(x, train)], label, train)
    theirs = windowed.evidence([windowed.inner(other, train)], flipped, train)

    np.testing.assert_array_equal(ours[train], theirs[train])


def test_a_class_that_training_lacks_is_never_said() -> None:
    """All training trials of one class, or none at all."""
    kernel = windowed.inner(np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32), np.arange(8) < 4)
    train = np.arange(8) < 4

    assert (windowed.evidence([kernel], np.ones(8, np.int64), train) > 0).all()
    assert (windowed.evidence([kernel], np.zeros(8, np.int64), train) < 0).all()
    assert (windowed.evidence([kernel], np.full(8, -1), train) < 0).all()
