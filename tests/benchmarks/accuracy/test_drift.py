"""Rates that follow a unit's drift over the session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy.peers import drift, encoders
from benchmarks.accuracy.peers.task import Fitted, Peer, Predict, Setting, Task
from neds_core.data import session as sessions


@pytest.fixture(scope="module")
def drifts(task: Task) -> Task:
    """The planted recording, every unit fading to nothing in its last half."""
    rng = np.random.default_rng(5)
    keep = np.clip(2.0 - 2.0 * np.arange(task.session.n_bins) / task.session.n_bins, 0.15, 1.0)
    session = replace(task.session, counts=rng.binomial(task.session.counts, keep[:, None]).astype(np.uint8))
    folds = tuple((replace(b, counts=session.counts), replace(a, counts=session.counts)) for b, a in task.folds)
    return replace(task, session=session, parts=sessions.split(session), folds=folds)


def test_what_a_unit_fired_last_is_what_it_fires_next(drifts: Task) -> None:
    """The factor is below 1 where a unit fades, and the score gains; no spike of the scored part has a say in it."""
    before, after = drifts.parts.development, drifts.parts.test
    plain = encoders.by_clock(encoders.average_of(before))
    scaled = drift.drifting(before, plain, 5.0)
    goal = encoders.goal_of(before, after)
    other = replace(after, counts=np.full_like(after.counts, 7))

    assert (scaled(after).sum(0) < plain(after).sum(0))[:11].all()
    assert encoders.skill(goal, scaled(after)) > encoders.skill(goal, plain(after)) + 0.05
    np.testing.assert_array_equal(scaled(other), scaled(after))


def test_without_drift_the_factor_is_near_one(task: Task) -> None:
    """With all trials in reach, the mean over units moves by less than a twentieth, and a silent unit stays."""
    before, after = task.parts.development, task.parts.test
    plain = encoders.by_clock(encoders.average_of(before))

    factor = drift.drifting(before, plain, 80.0)(after).sum(0) / plain(after).sum(0)

    assert factor[:11].mean() == pytest.approx(1.0, abs=0.05)
    assert np.isfinite(factor).all()


def test_a_trial_between_known_ones_follows_its_neighbours(drifts: Task) -> None:
    """On a random split the known trials lie on both sides: the middle of the fading trials is scaled like them."""
    session = drifts.session
    odd, even = (
        replace(session, segments=session.segments[k::2], segment_ids=session.segment_ids[k::2]) for k in (1, 0)
    )
    plain = encoders.by_clock(encoders.average_of(odd))

    fired = drift.by_trial(even, even.counts[even.bins()]).sum(1)
    third = len(fired) // 3

    def miss(predict: Predict) -> np.ndarray:
        """Mean spikes a trial too many, in the first and in the last third."""
        error = drift.by_trial(even, predict(even)).sum(1) - fired
        return np.array([error[:third].mean(), error[-third:].mean()])

    # not all of it: the prior and the width of 3 of 30 trials pull towards the mean
    assert (np.abs(miss(drift.drifting(odd, plain, 3.0))) < 0.6 * np.abs(miss(plain))).all()


def test_a_twin_is_fitted_once(drifts: Task) -> None:
    """Search and fit of the plain row serve the drifting one, whose setting adds the width alone."""
    calls: list[str] = []

    def search(task: Task) -> tuple[Setting, str]:
        calls.append("search")
        return {"a": 1}, "words"

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        calls.append(f"fit {setting}")
        return Fitted(encoders.by_clock(encoders.average_of(task.parts.development)), 1)

    plain, twin = drift.with_twin(Peer("encoder", search, fit, "time"))
    found: list[np.ndarray] = []
    for peer in (plain, twin):
        setting, _ = peer.search(drifts)
        found.append(peer.fit(drifts, setting, 0).predict(drifts.parts.test))

    assert calls == ["search", "fit {'a': 1}"]
    assert setting == {"a": 1, "width_trials": drift.width_for(drifts)}
    assert setting["width_trials"] in drift.WIDTHS_TRIALS
    assert twin.uses == "time, trial"
    assert np.abs(found[0] - found[1]).max() > 0.01
