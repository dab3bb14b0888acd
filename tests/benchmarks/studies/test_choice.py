"""The choice bench on made-up sessions: what each row may read, on which trials, and what it then finds."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from benchmarks.accuracy import windowed
from benchmarks.accuracy.steinmetz import OUTPUTS, Bundle
from benchmarks.studies import choice
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.linear import linear
from neds_core.linear.linear import Bank
from neds_core.scores import r2 as scores

S, U, BINS, BIN_NS = 120, 12, 20, 20_000_000


def made(seed: int, mouse: str, follows: Callable[[np.ndarray, np.ndarray], np.ndarray], start: int = 0) -> Bundle:
    """120 trials; from bin `start` on, half of the units fire more when `follows(stimulus, choice)` (S,) is 1.

    Choice follows the stimulus in 80 % of the trials with unequal contrasts; every fourth trial is a no-go.
    """
    rng = np.random.default_rng(seed)
    contrast = rng.choice([0.0, 0.5, 1.0], (S, 2))
    side = np.sign(contrast[:, 1] - contrast[:, 0])
    right = np.where((side == 0) | (rng.random(S) < 0.2), rng.random(S) < 0.5, side > 0).astype(np.int64)
    go = (np.arange(S) % 4 == 0).astype(np.int64)
    on = follows(side, right)[:, None, None] * (np.arange(BINS) >= start)[:, None] * (np.arange(U) < U // 2)
    counts = rng.poisson(0.5 + 1.0 * on).astype(np.uint8).reshape(S * BINS, U)
    labels = (np.where(go == 1, -1, right), go, np.select([side < 0, side > 0], [0, 1], -1))
    edges = np.arange(S + 1, dtype=np.int64) * BINS
    session = Session(
        name=f"made{seed}",
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(U), np.full(U, "ca1"), np.full(U, np.nan, np.float32)),
        counts=counts,
        valid=np.ones(S * BINS, bool),
        specs=tuple(BehaviourSpec(name, "class", classes=("a", "b")) for name in OUTPUTS),
        values={name: np.repeat(label, BINS) for name, label in zip(OUTPUTS, labels, strict=True)},
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(S),
        moments={"first_movement": rng.choice([150.0, 250.0, 350.0, 600.0, np.nan], S)},
    )
    return Bundle(session, mouse, contrast, f"sha{seed}")


def of_choice(side: np.ndarray, right: np.ndarray) -> np.ndarray:
    return right


def of_stimulus(side: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (side > 0).astype(np.int64)


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


def test_rows_hold_the_trials_that_they_name() -> None:
    """Movement later than what is read, by 100 ms where only a part is read; goes without a movement are in none."""
    bundle = made(2, "a", of_choice)
    unseen = np.isinf(bundle.movement_ms) & (bundle.labels("go") == 0)
    equal = bundle.contrast[:, 0] == bundle.contrast[:, 1]

    rows = {row.name: row for row in choice.rows_of(bundle, 4)}

    assert rows["all trials"].scored.all()
    for name, row in rows.items():
        if "movement after" in name:
            after = float(name.split("movement after ")[1].split()[0])
            assert (bundle.movement_ms[row.scored] > after).all()
            assert not row.scored[unseen].any()
            assert after >= 100 * row.windows + (0 if row.windows == 4 else 100)
        if "equal" in name:
            assert equal[row.scored].all()
    assert rows["first 200 ms, movement after 300 ms"].windows == 2


@pytest.mark.slow
def test_what_neurons_know_of_choice_shows_beside_the_stimulus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choice neurons add to the contrasts and tell choice at equal contrasts; stimulus neurons do neither."""
    asked = ("all trials", "equal contrasts, trained on such", "first 100 ms, movement after 200 ms")
    every = choice.rows_of
    monkeypatch.setattr(choice, "rows_of", lambda b, n: [row for row in every(b, n) if row.name in asked])
    monkeypatch.setattr(choice, "PENALTIES", (1.0,))  # seconds instead of minutes
    found = {}
    for name, follows in (("choice", of_choice), ("stimulus", of_stimulus)):
        bundles = [made(seed, mouse, follows) for seed, mouse in ((3, "a"), (4, "b"))]
        result = json.loads(msgspec.json.encode(choice.bench(bundles, lambda _: None)))
        found[name] = {r["row"]: r for r in result["rows"] if r["question"] == "wheel_direction"}
        printed = "\n".join(choice.lines(result))
        assert all(printed.count(row) == 2 for row in asked)  # once for each question
        assert all(one["gain"]["low"] <= one["gain"]["value"] <= one["gain"]["high"] for one in result["sessions"])

    assert found["choice"]["all trials"]["gain"]["low"] > 0
    assert found["choice"]["equal contrasts, trained on such"]["neural"]["low"] > 0.6
    assert found["choice"]["first 100 ms, movement after 200 ms"]["neural"]["value"] > 0.6
    assert found["stimulus"]["all trials"]["gain"]["low"] < 0.02
    assert found["stimulus"]["equal contrasts, trained on such"]["neural"]["low"] < 0.5
    assert found["stimulus"]["all trials"]["neural"]["value"] > 0.65  # it goes with the choice, as the stimulus does


def test_what_comes_late_is_not_read_early() -> None:
    """Units that speak from 300 ms on say nothing in the first windows."""
    decoded = choice.Decoded(made(6, "a", of_choice, start=15))
    rows = {row.name: row for row in choice.rows_of(decoded.bundle, 4)}
    label = decoded.bundle.labels("wheel_direction")
    known = label >= 0

    def right(name: str) -> float:
        said = decoded.evidence("wheel_direction", "neural", rows[name])
        assert said is not None
        return scores.balanced_accuracy(label[known], (said[known] > 0).astype(int), 2)

    assert right("all trials") > 0.8
    assert right("all trials, first 300 ms") < 0.65
