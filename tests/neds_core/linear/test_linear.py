"""Linear decoders: features that stream, fits against scikit-learn, folds that do not mix time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler

from neds_core.linear import linear
from neds_core.linear.linear import CLOCK_SCALE, Bank, BankState

BIN_NS = 20_000_000
lags = st.builds(Bank, lags=st.integers(1, 6), root=st.booleans(), clock_bins=st.sampled_from([0, 5]))
taus = st.lists(st.floats(5.0, 500.0), min_size=1, max_size=3).map(tuple)
filters = st.builds(Bank, taus_ms=taus, root=st.booleans(), clock_bins=st.sampled_from([0, 5]))


def recording(seed: int, n_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random counts (T, 4), clock (T,) and cold starts (T,)."""
    rng = np.random.default_rng(seed)
    reset = rng.random(n_bins) < 0.2
    return rng.poisson(1.0, (n_bins, 4)).astype(np.float32), rng.integers(-1, 9, n_bins), reset


def specified(bank: Bank, counts: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
    """The features from their definitions, bin by bin in float64: sums over the bins since the cold start."""
    rows = []
    for t in range(len(counts)):
        starts = np.flatnonzero(reset[: t + 1])
        past = counts[starts[-1] if len(starts) else 0 : t + 1][::-1].astype(np.float64)  # newest first
        copies = [past[lag] if lag < len(past) else np.zeros(4) for lag in range(bank.lags)]
        for tau in bank.taus_ms:
            keep = np.exp(-20.0 / tau)
            copies.append((1 - keep) * (keep ** np.arange(len(past)) @ past))
        wide = np.concatenate(copies)
        time = np.zeros(bank.clock_bins)
        if bank.clock_bins and clock[t] >= 0:
            time[min(clock[t], bank.clock_bins - 1)] = CLOCK_SCALE
        rows.append(np.concatenate([np.sqrt(wide) if bank.root else wide, time]))
    return np.stack(rows)


@given(bank=lags | filters, seed=st.integers(0, 2**31), n_bins=st.integers(1, 25))
def test_features_are_their_definition_and_stream_bit_for_bit(bank: Bank, seed: int, n_bins: int) -> None:
    """For any bank, length and cold starts."""
    counts, clock, reset = recording(seed, n_bins)
    offline = linear.features(bank, counts, clock, reset, BIN_NS)
    state = BankState(bank, 4, BIN_NS)

    streamed = []
    for t in range(n_bins):
        if reset[t]:
            state.reset()
        streamed.append(state.step(counts[t].astype(np.uint16), int(clock[t])).copy())

    np.testing.assert_array_equal(offline, np.stack(streamed))
    # 1e-5: up to 25 float32 steps of a recursion, all terms positive
    np.testing.assert_allclose(offline, specified(bank, counts, clock, reset), rtol=1e-5, atol=1e-12)


def problem(seed: int, n: int = 300, n_features: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 8) float32 of unlike scale, one of them constant, and a noisy linear target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_features)) * 10.0 ** rng.uniform(-2, 2, n_features) + rng.normal(size=n_features)
    x[:, 3] = 0.75
    x = x.astype(np.float32)
    y = StandardScaler().fit_transform(x.astype(np.float64)) @ rng.normal(size=n_features) + 5.0 + rng.normal(size=n)
    return x, y


@pytest.mark.parametrize("penalty", [0.1, 30.0, 1e4])
def test_ridge_is_scikit_learns_on_z_scores(penalty: float) -> None:
    """With the standardisation folded into weight and bias; a constant feature has weight 0."""
    x, y = problem(0)
    scale = StandardScaler().fit(x.astype(np.float64))
    theirs = Ridge(alpha=penalty).fit(scale.transform(x.astype(np.float64)), y)

    ours = linear.ridge_fit(Bank(lags=2), x, y, penalty)

    assert ours.weight.dtype == np.float32
    assert ours.weight[3, 0] == 0
    # 1e-4: float32 weights on features of up to some hundreds
    np.testing.assert_allclose(ours.apply(x)[:, 0], theirs.predict(scale.transform(x)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_is_scikit_learns_on_z_scores(n_classes: int) -> None:
    """Multinomial, classes weighted to equal share, the same penalty."""
    x, y = problem(1)
    label = np.digitize(y, np.quantile(y, [0.7, 0.9][: n_classes - 1]))
    scale = StandardScaler().fit(x.astype(np.float64))
    z = scale.transform(x.astype(np.float64))
    # of two classes scikit-learn fits the difference d of our columns d/2 and -d/2, which cost half of d's penalty
    c = 1 / 20.0 if n_classes > 2 else 2 / 20.0
    theirs = LogisticRegression(C=c, class_weight="balanced", tol=1e-8, max_iter=1000).fit(z, label)

    logits = linear.logistic_fit(Bank(lags=2), x, label, n_classes, 20.0).apply(x)

    share = np.exp(logits - logits.max(1, keepdims=True))
    # 1e-3: two optimisers that stop near the same minimum
    np.testing.assert_allclose(share / share.sum(1, keepdims=True), theirs.predict_proba(z), atol=1e-3)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), n_folds=st.integers(2, 5))
def test_folds_are_contiguous_disjoint_and_complete(lengths: list[int], n_folds: int) -> None:
    """Each row is held out once; a segment is never cut where there are enough of them."""
    segment = np.arange(len(lengths)).repeat(lengths)

    blocks = linear.folds(segment, n_folds)

    assert len(blocks) == n_folds
    assert (np.sum(blocks, axis=0) == 1).all()
    for rows in blocks:
        assert len(np.flatnonzero(np.diff(rows.astype(int)))) <= 2
        if len(lengths) >= n_folds:
            assert not set(segment[rows]) & set(segment[~rows])
            assert rows.any()


def test_ridge_search_is_plain_cross_validation() -> None:
    """Pooled R2 of held-out rows, fold by fold, on z-scores of all rows given."""
    x, y = problem(2)
    targets = np.stack([y, y[::-1]], 1)
    blocks = linear.folds(np.arange(300) // 10, 5)
    z = StandardScaler().fit_transform(x.astype(np.float64))
    centred = targets - targets.mean(0)
    expected = []
    for penalty in (1.0, 100.0):
        guess = np.zeros_like(centred)
        for rows in blocks:
            guess[rows] = Ridge(alpha=penalty, fit_intercept=False).fit(z[~rows], centred[~rows]).predict(z[rows])
        expected.append(r2_score(centred, guess, multioutput="raw_values"))

    got = linear.ridge_search(x, targets, blocks, (1.0, 100.0))

    np.testing.assert_allclose(got, expected, atol=1e-4)  # the search runs in float32


def test_ridge_search_prefers_the_penalty_that_fits() -> None:
    """Small for few features without noise, large for many features that mean little."""
    rng = np.random.default_rng(3)
    penalties = (1.0, 100.0, 1e4)
    blocks = linear.folds(np.arange(200), 5)
    easy = rng.normal(size=(200, 3))
    hard = rng.normal(size=(200, 120))

    clear = linear.ridge_search(easy, easy @ np.ones((3, 1)), blocks, penalties)
    faint = linear.ridge_search(
        hard, hard @ rng.normal(0, 0.02, (120, 1)) + rng.normal(size=(200, 1)), blocks, penalties
    )

    assert clear[:, 0].argmax() == 0
    assert clear[0, 0] > 0.99
    assert faint[:, 0].argmax() == 2


def test_logistic_search_is_plain_cross_validation() -> None:
    """Balanced accuracy of held-out rows, fold by fold, over the classes that occur; the third never does."""
    rng = np.random.default_rng(4)
    label = (rng.random(120) < 0.3).astype(np.int64)
    x = (label[:, None] + rng.normal(0, 1.5, (120, 4))).astype(np.float32)
    bank, blocks, penalties = Bank(lags=1), linear.folds(np.arange(120) // 6, 4), (1.0, 1e4)
    expected = []
    for penalty in penalties:
        guess = np.empty_like(label)
        for rows in blocks:
            guess[rows] = linear.logistic_fit(bank, x[~rows], label[~rows], 3, penalty).apply(x[rows]).argmax(1)
        expected.append(balanced_accuracy_score(label, guess))

    got = linear.logistic_search(bank, x, label, blocks, 3, penalties)

    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert got[0] != got[1]


def test_a_product_in_steps_is_the_product() -> None:
    """Columns beyond one step included; somebody may stop it between two."""
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(40, linear.COLUMNS + 3)))
    looks: list[int] = []

    got = linear._gram(z, looks.append)

    torch.testing.assert_close(got, z.T @ z)
    assert looks == [0, 0]
