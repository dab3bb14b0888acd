"""Made-up recordings hold what they promise, and their ceiling is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from neds_core.config import LinearConfig
from neds_core.data import ceiling, scalers, session as sessions, session_file, synthetic
from neds_core.data.ceiling import Ceiling
from neds_core.data.synthetic import Recording, World
from neds_core.errors import DataError
from neds_core.linear import baseline
from neds_core.scores import nested, r2

SMALL = World(animals=2, sessions=2, trials=60, trial_bins=20, units_per_region=10)


@pytest.fixture(scope="module")
def small() -> list[Recording]:
    """Two sessions of each of two animals."""
    return synthetic.recordings(SMALL, seed=3)


@pytest.fixture(scope="module")
def long() -> Recording:
    """One session of 300 trials."""
    return synthetic.recordings(World(animals=1, sessions=1, trials=300), seed=0)[0]


@pytest.fixture(scope="module")
def top(long: Recording) -> Ceiling:
    """The generator's own filter of `long`."""
    return ceiling.decode(long)


def test_sessions_are_valid_and_say_that_they_are_synthetic(small: list[Recording], tmp_path: Path) -> None:
    """They pass the check of a file; name, citation and every behaviour say so."""
    for one in small:
        session_file.save(one.session, tmp_path / "one.npz")
        read = session_file.load(tmp_path / "one.npz")

        np.testing.assert_array_equal(read.counts, one.session.counts)
        assert "synthetic" in read.name
        assert "synthetic" in read.citation
        assert all(spec.labels_note == "synthetic" for spec in read.specs)


def test_the_seed_is_everything(small: list[Recording]) -> None:
    """The same again; another seed is another world; a third animal leaves the first two as they were."""
    again = synthetic.recordings(SMALL, seed=3)
    other = synthetic.recordings(SMALL, seed=4)
    more = synthetic.recordings(msgspec.structs.replace(SMALL, animals=3), seed=3)

    for a, b, c, d in zip(small, again, more[:4], other, strict=True):
        np.testing.assert_array_equal(a.session.counts, b.session.counts)
        np.testing.assert_array_equal(a.session.counts, c.session.counts)
        assert (a.session.counts != d.session.counts).any()


def test_animals_share_dynamics_and_sessions_share_units(small: list[Recording]) -> None:
    """One shared system; from session to session about 30 % of the units are new, the others keep their tuning."""
    first, second, stranger = small[0], small[1], small[2]

    assert first.shared is stranger.shared
    kept = np.isin(second.units.ids, first.units.ids)
    assert 0.5 <= kept.mean() <= 0.9
    np.testing.assert_array_equal(first.units.loading[kept], second.units.loading[kept])
    assert (first.units.loading[~kept] != second.units.loading[~kept]).all()
    assert (first.units.loading != stranger.units.loading).all()
    assert len(np.unique(second.units.ids)) == 40


def test_units_drift_by_as_much_as_asked() -> None:
    """sd of the log-rate's change over the session; none where none is asked."""
    moved = {}
    for drift in (0.0, 0.5):
        world = World(animals=1, sessions=1, trials=80, trial_bins=10, units_per_region=100, drift=drift)
        one = synthetic.recordings(world, 0)[0]
        moved[drift] = float((one.log_rate[-1] - one.units.base).std())

    assert moved[0.0] == 0.0
    assert abs(moved[0.5] - 0.5) < 0.08  # 400 units: a relative standard error of 3.5 %


def test_regions_are_told_by_tuning_only_where_they_share_it() -> None:
    """The planted tuning is what a map should find."""
    told = {}
    for share in (0.0, 0.8):
        one = synthetic.recordings(World(animals=1, sessions=1, trials=10, region_share=share), 0)[0]
        guess = nested.predict(one.units.loading, one.units.region, 4)
        told[share] = nested.balanced(one.units.region, (guess == one.units.region).astype(float))

    assert told[0.8] > 0.75
    assert told[0.0] < 0.45


def test_blocks_follow_the_rule_of_the_task() -> None:
    """90 trials at 0.5, then 0.2 and 0.8 in turn for 20 to 100 trials; the stimulus follows them."""
    block = synthetic.block_sequence(np.random.default_rng(0), 4000)
    world = World(animals=1, sessions=1, trial_bins=10, units_per_region=1)
    shared = synthetic.recordings(world, 0)[0]
    one = synthetic.record(world, shared.shared, shared.units, np.random.default_rng(1), "synthetic", "a", block)

    edges = np.flatnonzero(np.diff(block)) + 1
    lengths = np.diff(edges)
    assert edges[0] == 90
    assert set(block[90:]) == {1, 2}
    assert lengths.min() >= 20
    assert lengths.max() <= 100
    assert abs(lengths.mean() - 51.4) < 8  # truncated exponential; about 75 blocks
    left = one.session.values["stimulus_side"][::10] == 0
    for b, p in enumerate(synthetic.P_LEFT):
        assert abs(left[block == b].mean() - p) < 0.15
    with pytest.raises(DataError, match="is none of 0, 1, 2"):
        synthetic.record(world, shared.shared, shared.units, np.random.default_rng(1), "x", "a", block - 1)


def test_one_update_is_the_exact_posterior() -> None:
    """Against a fine grid in one dimension: mean, sd and log evidence up to the factorials. Twenty units at half a
    spike a bin leave a Gaussian error below 0.02."""
    rng = np.random.default_rng(0)
    loading = rng.normal(0, 0.5, (20, 1))
    counts = rng.poisson(0.5 * np.exp(loading[:, 0] * 0.8)).astype(float)
    fixed = np.full(20, np.log(0.5))

    mean, cov, evidence = ceiling.update(np.array([0.3]), np.array([[0.7]]), counts, fixed, loading)

    x = np.linspace(-6, 6, 20001)
    eta = fixed[:, None] + loading * x
    log = (counts[:, None] * eta - np.exp(eta)).sum(0) - 0.5 * (x - 0.3) ** 2 / 0.7 - 0.5 * np.log(2 * np.pi * 0.7)
    density = np.exp(log - log.max())
    density /= density.sum()
    exact_mean = (density * x).sum()
    assert mean[0] == pytest.approx(exact_mean, abs=0.02)
    assert np.sqrt(cov[0, 0]) == pytest.approx(np.sqrt((density * (x - exact_mean) ** 2).sum()), abs=0.02)
    assert evidence == pytest.approx(log.max() + np.log(np.exp(log - log.max()).sum() * (x[1] - x[0])), abs=0.02)


def test_the_ceiling_is_above_ridge_and_knows_how_sure_it_is(long: Recording, top: Ceiling) -> None:
    """On the held-out trials of both traces; 95 % intervals hold the noisy behaviour in 93 to 97 % of the bins."""
    session = long.session
    parts = sessions.split(session)
    specs = synthetic.SPECS[:2]
    scale = scalers.fit(parts.train, specs, 0.5)
    search = LinearConfig(lags=(10,), penalties=(3e3,), folds=2)
    ridge = baseline.fit(parts.train, specs, scale, search, clock_bins=50)
    bins = parts.test.bins()
    for spec in specs:
        y = session.values[spec.name]
        linear = baseline.predict(ridge[spec.name], parts.test, scale.kept, "continuous")
        assert r2.r2(y[bins], top.traces[spec.name][bins]) > r2.r2(y[bins], linear) + 0.01
        sd = np.sqrt(top.sd[spec.name] ** 2 + World().behaviour_noise ** 2)
        assert 0.93 < (np.abs(y - top.traces[spec.name]) < 1.96 * sd).mean() < 0.97


def test_the_ceilings_choice_is_reliable_and_causal(long: Recording, top: Ceiling) -> None:
    """Where it says 0.7 to 0.9 it is right in as many trials; a trial's first half does not know the second."""
    T = long.latents.shape[1]
    right = np.take_along_axis(top.choice, long.session.values["choice"][:, None], 1)[:, 0]
    sure = top.choice.max(1)
    some = (sure > 0.7) & (sure < 0.9)
    later = long.session.counts.copy()
    later.reshape(300, T, -1)[:, T // 2 :] = 0
    changed = Recording(
        replace(long.session, counts=later), long.animal, long.shared, long.units, long.log_rate,
        long.direction, long.block, long.latents,
    )  # fmt: skip

    cut = ceiling.decode(changed)

    assert right.reshape(300, T)[:, -1].mean() > 0.8
    assert abs((right[some] > 0.5).mean() - sure[some].mean()) < 0.08
    first = np.arange(300 * T) % T < T // 2
    np.testing.assert_array_equal(top.choice[first], cut.choice[first])
    assert (top.choice[~first] != cut.choice[~first]).any()
