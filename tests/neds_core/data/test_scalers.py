"""Scalers use the valid bins of the training part alone."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.data import scalers, session as sessions
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session, UnitTable

UNITS = UnitTable(np.arange(2), np.array(["", ""]), np.zeros(2, np.float32))


@pytest.fixture(scope="module")
def train(session: Session) -> Session:
    """The first 42 trials."""
    return sessions.split(session).train


@pytest.fixture(scope="module")
def scale(train: Session) -> Scalers:
    """Of the first 42 trials."""
    return scalers.fit(train, train.specs, 0.5)


def test_scalers_are_plain_statistics_of_valid_training_bins(train: Session, scale: Scalers) -> None:
    """In float64, from the definitions; sd is the population's, the prior is smoothed by one."""
    rows = train.bins()
    rows = rows[train.valid[rows]]
    root = np.sqrt(train.counts[rows].astype(np.float64))
    wheel, choice = train.values["wheel_speed"].astype(np.float64), train.values["choice"][rows]

    assert scale.kept.tolist() == [True] * 11 + [False]
    np.testing.assert_allclose(scale.spike_mean, root.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.spike_gain[:11], 1 / root.std(0)[:11], rtol=1e-5)
    assert scale.spike_gain[11] == 0
    assert scale.mean["wheel_speed"] == pytest.approx(np.nanmean(wheel[rows]), rel=1e-5)
    assert scale.sd["wheel_speed"] == pytest.approx(np.nanstd(wheel[rows]), rel=1e-5)
    n = np.array([(choice == 0).sum(), (choice == 1).sum()]) + 1
    np.testing.assert_allclose(scale.prior["choice"], n / n.sum())
    trials = np.where(train.valid, wheel, np.nan)[: 42 * 25].reshape(42, 25)
    np.testing.assert_allclose(scale.trial_mean["wheel_speed"], np.nanmean(trials, 0), rtol=1e-5)


def test_scalers_do_not_see_the_other_parts(session: Session, scale: Scalers) -> None:
    """Nor the faulty bins of their own."""
    rng = np.random.default_rng(0)
    beyond = (np.arange(session.n_bins) >= 42 * 25) | ~session.valid
    other = replace(
        session,
        counts=np.where(beyond[:, None], rng.integers(0, 90, session.counts.shape), session.counts).astype(np.uint8),
        values={
            "wheel_speed": np.where(beyond, 1e6, session.values["wheel_speed"]).astype(np.float32),
            "choice": np.where(beyond, 1, session.values["choice"]),
        },
    )

    got = scalers.fit(sessions.split(other).train, other.specs, 0.5)

    assert msgspec.json.encode((got.mean, got.sd)) == msgspec.json.encode((scale.mean, scale.sd))
    for name in ("kept", "spike_mean", "spike_gain"):
        np.testing.assert_array_equal(getattr(got, name), getattr(scale, name))
    np.testing.assert_array_equal(got.prior["choice"], scale.prior["choice"])
    np.testing.assert_array_equal(got.trial_mean["wheel_speed"], scale.trial_mean["wheel_speed"])


def test_a_continuous_recording_has_no_trial_mean(unbroken: Session) -> None:
    """There is no trial to average over."""
    assert scalers.fit(unbroken, unbroken.specs, 0.5).trial_mean["wheel_speed"].shape == (0,)


@given(data=st.data())
def test_the_longest_silence_is_that_of_kept_units_inside_one_segment(data: st.DataObject) -> None:
    """Against a count bin by bin: a segment's end, a faulty bin and a spike of a kept unit each end a silence."""
    n = 24
    fires = st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n, max_size=n)
    counts = np.array([data.draw(fires), data.draw(fires)], np.uint8).T
    valid = np.array(data.draw(st.lists(st.sampled_from([True] * 6 + [False]), min_size=n, max_size=n)))
    segments = np.array([[1, 9], [9, 16], [18, 24]])
    kept = np.array([True, data.draw(st.booleans())])
    train = sessions.Session("s", 1, UNITS, counts, valid, (), {}, segments, np.arange(3))

    longest = 0
    for start, stop in segments:
        run = 0
        for t in range(start, stop):
            run = run + 1 if valid[t] and not counts[t][kept].any() else 0
            longest = max(longest, run)
    assert scalers.longest_silence(train, kept) == longest
