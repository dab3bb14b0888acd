"""Peers on data where the answer is known; nobody who is called causal looks ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.accuracy.peers import heading, kalman, maze, ndt2, place, recurrent, reduced_rank, regression
from benchmarks.accuracy.peers.task import Fitted, Task, at_random, choose, r2_of, targets
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.linear import linear
from neds_core.linear.linear import Bank
from neds_core.scores import points
from neds_core.train.windows import Windows

FILTERS = {"bank": msgspec.to_builtins(Bank(taus_ms=(40.0, 200.0), root=True)), "penalty": 30.0}
NET = {"weight_decay": 0.01, "learning_rate": 1e-2, "unit_dropout": 0.1, "steps": 60, "stop": 60}
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ridge": (regression.CAUSAL_RIDGE, {"wheel_speed": FILTERS}),
    "reduced rank": (reduced_rank.REDUCED_RANK, {"wheel_speed": {**FILTERS, "rank": 2}}),
    "kalman": (kalman.KALMAN, {"tau_ms": 0.0, "lead_bins": 0, "order": 2, "shrinkage": 0.1}),
    "gru": (recurrent.GRU, {**NET, "width": 16, "dropout": 0.0}),
    "ndt2": (ndt2.NDT2, {**NET, "frozen": False, "pretrain_steps": 10, "pretrain_rate": 1e-2, "mask_ratio": 0.3}),
}


@pytest.fixture(scope="module")
def fitted(task: Task) -> dict[str, Fitted]:
    """Every causal decoder, fitted on the planted recording."""
    return {name: peer.fit(task, setting, 0) for name, (peer, setting) in SETTINGS.items()}


def later_changed(session: Session, after: int) -> Session:
    """The same recording with other spikes from bin `after` of each segment on."""
    counts = session.counts.copy()
    late = session.clock() >= after
    counts[late] = np.random.default_rng(9).integers(0, 6, counts[late].shape)
    return replace(session, counts=counts)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_causal_decoder_does_not_look_ahead(name: str, fitted: dict[str, Fitted], task: Task) -> None:
    """Other spikes from bin 12 on leave bins 0 to 11 as they were, and change what follows."""
    test = task.parts.test
    early = test.clock()[test.bins()] < 12

    before, after = (fitted[name].predict(s) for s in (test, later_changed(test, 12)))

    np.testing.assert_allclose(after[early], before[early], atol=1e-6)
    assert np.abs(after[~early] - before[~early]).max() > 0.1


@pytest.mark.parametrize("name", ["ridge", "reduced rank", "kalman", "gru"])
def test_a_live_step_is_the_offline_prediction(name: str, task: Task) -> None:
    """What is timed is what is scored: the first trial of the test part, bin by bin."""
    peer, setting = SETTINGS[name]
    test = task.parts.test
    first = replace(test, segments=test.segments[:1], valid=np.ones_like(test.valid))
    made = peer.fit(task, setting, 0)
    assert made.step is not None

    counts = np.where(task.scale.kept, first.counts, 0)
    live = [made.step(counts[t].astype(np.uint16), -1) for t in first.bins()]

    offline = made.predict(first)[:, 0]
    mean, sd = task.scale.mean["wheel_speed"], task.scale.sd["wheel_speed"]
    values = np.array([np.asarray(v).ravel()[0] for v in live])
    values = values * sd + mean if name in ("kalman", "gru") else values
    np.testing.assert_allclose(values, offline, atol=1e-4)


def test_every_decoder_finds_the_planted_relation(fitted: dict[str, Fitted], task: Task) -> None:
    """All of them beat the training mean by far on trials they have not seen, except the hardly trained NDT2."""
    test = task.parts.test

    skill = {name: float(r2_of(task, test, made.predict(test))[0]) for name, made in fitted.items()}

    assert all(value > 0.35 for name, value in skill.items() if name != "ndt2"), skill
    assert skill["ndt2"] > 0.05, skill


def test_constant_and_trial_average_are_what_they_say(task: Task) -> None:
    """The mean of training + validation, overall and by bin of the trial."""
    part, test = task.parts.development, task.parts.test
    y, clock = targets(task, part)[:, 0], part.clock()[part.bins()]

    flat = regression.CONSTANT.fit(task, {}, 0).predict(test)
    average = regression.TRIAL_AVERAGE.fit(task, {}, 0).predict(test)

    np.testing.assert_allclose(flat, np.nanmean(y))
    expected = [np.nanmean(y[clock == c]) for c in range(25)]
    np.testing.assert_allclose(average[:25, 0], expected, rtol=1e-5)


def test_acausal_features_are_both_sides_of_the_segment(task: Task) -> None:
    """Lags 0-2 before and after the bin, zeros beyond the segment's ends."""
    part = replace(task.parts.test, segments=task.parts.test.segments[:2])
    counts = regression.shown_counts(task, part)
    start, stop = part.segments[1]

    x = regression.acausal_design(task, part, Bank(lags=3))

    units = counts.shape[1]
    row = x[(part.segments[0, 1] - part.segments[0, 0]) + 1].reshape(6, units)  # bin 1 of the second segment
    np.testing.assert_array_equal(row[:3], counts[start + 1 : start + 4])
    np.testing.assert_array_equal(row[3:5], counts[start : start + 2][::-1])
    assert (row[5] == 0).all()
    assert (x[-1].reshape(6, units)[1:3] == 0).all()
    assert stop - start == 25


def test_reduced_rank_of_full_rank_is_ridge() -> None:
    """Against scikit-learn, on z-scores."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(200, 6)), rng.normal(size=(200, 3))
    y = x @ rng.normal(size=(6, 3)) + noise
    z, goal = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    theirs = Ridge(alpha=7.0).fit(z, goal).predict(z) * y.std(0) + y.mean(0)

    weight = reduced_rank.fit(x, y, 3, (7.0,), (3,))[0, 0]

    np.testing.assert_allclose(x @ weight[:-1] + weight[-1], theirs, atol=1e-8)


def test_reduced_rank_finds_one_planted_direction() -> None:
    """Twelve noisy targets that share one direction of 40 features: rank 1 is nearer the truth than ridge."""
    rng = np.random.default_rng(1)
    x, truth = rng.normal(size=(300, 40)), np.outer(rng.normal(size=40), rng.normal(size=12))
    y = x @ truth + 8.0 * rng.normal(size=(300, 12))

    found = reduced_rank.fit(x, y, 12, (1.0,), (1, 12))[0]

    error = [((w[:-1] - truth) ** 2).sum() for w in found]
    assert error[0] < 0.5 * error[1]
    assert np.linalg.matrix_rank(found[0][:-1], tol=1e-6) == 1


def test_kalman_recovers_a_linear_gaussian_state() -> None:
    """Fitted on one draw, it filters another almost as well as the textbook recursion with the true parameters."""
    rng = np.random.default_rng(2)
    a, c = np.array([[0.95, 0.1], [-0.1, 0.95]]), rng.normal(size=(10, 2))
    x, z = np.zeros((6000, 2)), np.zeros((6000, 10))
    for t in range(1, 6000):
        x[t] = a @ x[t - 1] + 0.3 * rng.normal(size=2)
        z[t] = c @ x[t] + 2.0 * rng.normal(size=10) + 3.0
    half = 3000
    model = kalman.fit(x[:half], z[:half], np.arange(half) > 0, 0.0)
    run = kalman.Filter(model)

    ours = np.stack([run.step(row).copy() for row in z[half:]])

    state, spread, best = np.zeros(2), np.eye(2), []
    for row in z[half:]:  # Kalman 1960, covariance form
        state, spread = a @ state, a @ spread @ a.T + 0.09 * np.eye(2)
        gain = spread @ c.T @ np.linalg.inv(c @ spread @ c.T + 4.0 * np.eye(10))
        state, spread = state + gain @ (row - 3.0 - c @ state), spread - gain @ c @ spread
        best.append(state)
    np.testing.assert_allclose(model.transition, a, atol=0.03)
    error = [np.mean((guess - x[half:]) ** 2) for guess in (ours, np.stack(best))]
    assert error[0] < 1.05 * error[1]


def test_a_bin_that_was_not_seen_widens_the_kalman_filter() -> None:
    """It predicts, and is less sure."""
    rng = np.random.default_rng(3)
    x = np.cumsum(rng.normal(size=(200, 1)), 0) * 0.1
    z = x + rng.normal(size=(200, 1))
    run = kalman.Filter(kalman.fit(x - x.mean(), z, np.arange(200) > 0, 0.0))
    for row in z[:50]:
        run.step(row)
    sure = run.spread[0, 0]

    run.step(None)

    assert run.spread[0, 0] > sure


def test_choice_by_rolling_origins_never_reads_the_test_part(task: Task) -> None:
    """It picks the better of two constants, from segments before the last fifth alone."""
    seen: list[int] = []

    def fit(setting: dict[str, Any], before: Session):
        def predict(session: Session) -> np.ndarray:
            seen.extend([int(session.segments[-1, 1]), int(before.segments[-1, 1])])
            return np.full((len(session.bins()), 1), setting["value"])

        return predict

    best, skills = choose(task, [{"value": 40.0}, {"value": 2.0}], fit, per_output=True)

    assert best == [1]
    assert skills[1, 0] > skills[0, 0]
    assert max(seen) <= task.parts.test.segments[0, 0]


def test_a_random_split_shares_no_trial(session: Session, tmp_path: Any) -> None:
    """Every trial is in one part, and none of the test part is in a fold."""
    session_file.save(session, tmp_path / "session.npz")
    (tmp_path / "train.toml").write_text('recording = "session.npz"\noutputs = ["wheel_speed"]\n')

    made = at_random(tmp_path, "train.toml", quick=True)

    parts = [set(p.segment_ids) for p in (made.parts.train, made.parts.validation, made.parts.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(session.segments)
    assert not any(parts[2] & (set(b.segment_ids) | set(a.segment_ids)) for b, a in made.folds)
    assert (np.diff(made.parts.test.segments[:, 0]) > 0).all()
    assert min(parts[2]) < max(parts[0])
    whole = made.parts.development
    assert (np.diff(whole.segments[:, 0]) > 0).all()
    windows = Windows(whole, made.specs, made.scale)
    for start, stop in whole.segments:
        np.testing.assert_array_equal(windows.clock(start, stop), session.clock()[start:stop])


def test_ridge_search_agrees_with_the_fit_it_leads_to(task: Task) -> None:
    """The chosen ridge is `linear.ridge_fit` with the chosen bank and penalty on training + validation."""
    setting, words = regression.CAUSAL_RIDGE.search(task)
    made = regression.CAUSAL_RIDGE.fit(task, setting, 0)
    bank = msgspec.convert(setting["wheel_speed"]["bank"], Bank)
    part = task.parts.development
    y = targets(task, part)[:, 0]
    x = regression.causal_design(task, part, bank)
    expected = linear.ridge_fit(bank, x[np.isfinite(y)], y[np.isfinite(y)], setting["wheel_speed"]["penalty"])

    np.testing.assert_allclose(made.predict(part)[:, 0], expected.apply(x)[:, 0], rtol=1e-6)
    assert "blocks inside training" in words


def running(seed: int, n_bins: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rat that runs to and fro: positions (n, 2) px, displacement over a second (n, 2), counts (n, 30)."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(np.full(n_bins, 3.0) + rng.normal(size=n_bins))
    along = 300.0 - np.abs(phase % 600.0 - 300.0)
    way = (phase % 600.0 < 300.0).astype(int)
    centres, prefers = np.linspace(0, 300, 30), np.arange(30) % 2
    rate = 0.4 * np.exp(-0.5 * ((along[:, None] - centres) / 20.0) ** 2) * (way[:, None] == prefers) + 0.002
    velocity = np.where(way == 1, 150.0, -150.0)
    axis = np.array([0.8, 0.6])
    return along[:, None] * axis + 100.0, velocity[:, None] * axis, rng.poisson(rate).astype(np.float64)


FIELDS = {"field_cells": 1.5, "step_cells": 1.0, "turn": 0.01, "jump": 1e-5, "rest": 25.0, "floor": 1e-3}


def test_the_bayes_filter_follows_a_rat_on_a_track() -> None:
    """Other laps than it was fitted on; its memory and its directional fields both pay."""
    position, velocity, counts = running(0)
    target, _, spikes = running(1, 3000)
    model = place.fit(position, velocity, counts, FIELDS)

    def error(model: place.Model) -> float:
        run = place.Filter(model)
        value = np.stack([place.read(model.track, run.step(row), "median") for row in spikes])
        return place.median_error(target, value)

    forgets = replace(model, step=np.full_like(model.step, 1.0 / len(model.step)))
    half = len(model.rate) // 2
    blind = np.tile((model.rate[:half] + model.rate[half:]) / 2, (2, 1))
    assert error(model) < 20.0
    assert error(model) < 0.8 * error(forgets)
    assert error(model) < error(replace(model, rate=blind, log_rate=np.log(blind)))


def test_the_bayes_filter_is_bayes_rule() -> None:
    """Two bins by hand on the fitted model: prior x likelihood, then walk x likelihood."""
    position, velocity, counts = running(2, 2000)
    model = place.fit(position, velocity, counts, FIELDS)
    run = place.Filter(model)
    rows = counts[100:102]

    got = [run.step(row).copy() for row in rows]

    likelihood = [np.exp(-model.rate.sum(1)) * np.prod(model.rate**row, axis=1) for row in rows]
    first = model.prior * likelihood[0] / (model.prior * likelihood[0]).sum()
    second = (first @ model.step) * likelihood[1]
    np.testing.assert_allclose(model.step.sum(1), 1.0)
    np.testing.assert_allclose(got[0], first, rtol=1e-9)
    np.testing.assert_allclose(got[1], second / second.sum(), rtol=1e-9)


def wandering(seed: int, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """A rat in the corridors of a U: positions (n, 2) px, counts (n, 24)."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(np.full(n_bins, 3.0) + rng.normal(size=n_bins))
    along = 300.0 - np.abs(phase % 600.0 - 300.0)
    corners = np.array([[0.0, 100.0], [0.0, 0.0], [100.0, 0.0], [100.0, 100.0]])
    position = np.stack([np.interp(along, [0, 100, 200, 300], corners[:, k]) for k in range(2)], axis=1)
    rate = 0.4 * np.exp(-0.5 * ((along[:, None] - np.linspace(0, 300, 24)) / 20.0) ** 2) + 0.002
    return position + 50.0, rng.poisson(rate).astype(np.float64)


def test_the_bayes_filter_follows_a_rat_round_corners() -> None:
    """Other laps than it was fitted on; every place is one that was visited, and memory pays."""
    setting = {"field_px": 12.0, "walk_px": 6.0, "jump": 1e-5}
    model = maze.fit(*wandering(0, 6000), 0.02, setting)
    target, spikes = wandering(1, 2000)

    def error(model: maze.Maze, how: str) -> float:
        run = place.Filter(model)
        return place.median_error(target, np.stack([maze.read(model, run.step(row), how) for row in spikes]))

    np.testing.assert_allclose(model.step.sum(1), 1.0)
    edge = np.abs(model.point - 50.0).min(1), np.abs(model.point - 150.0).min(1)
    assert np.minimum(*edge).max() < maze.CELL_PX
    forgets = replace(model, step=np.full_like(model.step, 1.0 / len(model.step)))
    for how in ("mean", "most likely"):
        assert error(model, how) < 15.0
        assert error(model, how) < 0.8 * error(forgets, how)


def turning(seed: int, n: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """An animal that turns its head at random among 16 directions that units prefer: degrees, counts."""
    rng = np.random.default_rng(seed)
    degrees = np.cumsum(rng.normal(0.0, 4.0, n)) % 360.0
    off = np.radians(degrees[:, None] - np.arange(16) * 22.5)
    return degrees, rng.poisson(0.3 * np.exp(4.0 * (np.cos(off) - 1.0)) + 0.002).astype(np.float64)


ROUND = {"field_cells": 1.5, "step_cells": 0.8, "jump": 1e-5, "weight": 1.0, "floor": 1e-3}


def test_the_bayes_filter_follows_a_head_across_360_degrees() -> None:
    """Another stretch than it was fitted on; its memory pays, and the circle is closed."""
    degrees, counts = turning(0)
    target, spikes = turning(1, 3000)
    model = heading.fit(degrees, counts, ROUND)

    def error(model: place.Fields) -> np.ndarray:
        run = place.Filter(model)
        value = np.stack([heading.read(run.step(row)) for row in spikes])
        radians = np.radians(target)
        return points.turn_deg(np.stack([np.cos(radians), np.sin(radians)], 1), value)

    found = error(model)
    assert np.median(found) < 10.0
    assert np.median(found[np.minimum(target, 360.0 - target) < 20.0]) < 12.0
    assert np.median(found) < 0.5 * np.median(error(replace(model, step=np.full_like(model.step, 1 / heading.CELLS))))
    np.testing.assert_allclose(model.step.sum(1), 1.0)
    np.testing.assert_allclose(model.step, model.step[::-1, ::-1])


def test_half_the_weight_is_half_the_evidence() -> None:
    """By hand: the likelihood to the power of the weight."""
    degrees, counts = turning(2, 2000)
    whole, half = (heading.fit(degrees, counts, ROUND | {"weight": w}) for w in (1.0, 0.5))

    got = place.Filter(half).step(counts[7])

    log_likelihood = np.log(whole.rate) @ counts[7] - whole.rate.sum(1)
    expected = whole.prior * np.exp(0.5 * (log_likelihood - log_likelihood.max()))
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-9)
