"""Rows of classes told once a trial: what a fold may see, what is chosen by whom, and what the rows then say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.accuracy import compare, table
from benchmarks.accuracy.blocks import Block
from benchmarks.accuracy.mice.questions import QUESTIONS, folds
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.accuracy.peers import classes, neds_classes, targets
from benchmarks.accuracy.peers.classes import FoldTask
from benchmarks.accuracy.peers.task import Fitted, Peer, chronological
from benchmarks.recordings import EXAMPLES
from neds_core.model.directions import bins_of, spans_of
from neds_core.scores import bootstrap, r2 as scores
from neds_core.train import loop as train
from tests.benchmarks.mice import S, made, of_choice, write


@pytest.fixture(scope="module")
def task() -> FoldTask:
    """Two mice with a session each, whose units follow the choice."""
    return FoldTask((made(0, "a", of_choice), made(1, "b", of_choice)), quick=True)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings as short as can be: what is tested is what they see, not what they learn."""
    monkeypatch.setattr(neds_classes, "QUICK_LOOKS", (2, 4))
    monkeypatch.setattr(neds_classes, "QUICK_NEW_STEPS", 2)
    monkeypatch.setattr(neds_classes, "QUICK_TRUNK_STEPS", 2)


def planted(task: FoldTask, wrong_of: dict[str, float]) -> Peer:
    """Says every label, but for a share of each session's trials."""

    def predict(session: Any) -> np.ndarray:
        label = np.stack([session.values[name][session.segments[:, 0]] for name in QUESTIONS], 1)
        wrong = np.random.default_rng(0).random(len(label)) < wrong_of[session.name]
        return np.where(wrong[:, None], 1 - label, label)

    return Peer("planted", lambda _: ({}, "nothing"), lambda *_: Fitted(predict, 0))


def test_scores_are_means_over_sessions_with_mice_drawn_first(task: FoldTask, tmp_path: Path) -> None:
    """Undefined labels are left out; value and interval are those of the hierarchical bootstrap on the same sums."""
    wrong = {task.bundles[0].session.name: 0.4, task.bundles[1].session.name: 0.0}
    blocks = (Block("made", "classify", "five folds", lambda _: task, (classes.CONSTANT, planted(task, wrong))),)

    rows = compare.run(tmp_path / "rows.jsonl", True, lambda _: None, blocks)
    constant, told = table.pooled(rows)

    assert constant["scores"]["go"]["value"] == constant["scores"]["wheel_direction"]["value"] == 0.5
    n_directions = sum(int((one.labels("wheel_direction") >= 0).sum()) for one in task.bundles)
    sums, sessions = np.array(rows[1]["sums"]["wheel_direction"]), np.array(rows[1]["sessions"]["wheel_direction"])
    assert len(sums) == n_directions < 2 * S
    first = scores.balanced_accuracy_of_sums(sums[sessions[:, 1] == 0].sum(0))
    assert told["scores"]["wheel_direction"]["value"] == pytest.approx((first + 1.0) / 2)
    assert rows[1]["scores"]["wheel_direction"] == told["scores"]["wheel_direction"]["value"]
    expected = bootstrap.hierarchical(sums, sessions[:, 1], sessions[:, 0], scores.balanced_accuracy_of_sums)
    assert told["scores"]["wheel_direction"]["ci95"] == pytest.approx(expected[1:])
    assert "balanced accuracy" in "\n".join(table.lines([constant, told]))


def test_of_seeds_the_mean_recall_counts(task: FoldTask) -> None:
    """Seeds that err on other trials: the pooled score is the mean of theirs."""
    rng = np.random.default_rng(0)
    label, mouse = rng.integers(0, 2, 200), np.arange(200) // 100
    seeds = [
        {
            "sums": {"go": scores.recall_sums(label, rng.integers(0, 2, 200), 2).tolist()},
            "sessions": {"go": np.stack([mouse, mouse], 1).tolist()},
        }
        for _ in range(3)
    ]
    each = [
        np.mean([scores.balanced_accuracy_of_sums(np.array(s["sums"]["go"])[mouse == m].sum(0)) for m in (0, 1)])
        for s in seeds
    ]

    assert table.interval(seeds, "go", "classify").value == pytest.approx(np.mean(each))
    assert table.minus(seeds, seeds[:1], "go", "classify").value == pytest.approx(np.mean(each) - each[0])


def flipped(bundle: Bundle, trials: np.ndarray) -> Bundle:
    """The same session with other labels in `trials` (S,)."""
    values = {}
    for name, value in bundle.session.values.items():
        by_trial = value[bundle.session.segments[:, 0]]
        by_trial = np.where(trials & (by_trial >= 0), 1 - by_trial, by_trial)
        values[name] = np.repeat(by_trial, np.diff(bundle.session.segments)[:, 0])
    return replace(bundle, session=replace(bundle.session, values=values))


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("kind", [neds_classes.SINGLE, neds_classes.TUNED], ids=lambda kind: kind.condition)
def test_held_trials_labels_change_nothing_that_is_said_of_them(task: FoldTask, kind: neds_classes.Kind) -> None:
    """Nor do the labels of any trial of the mouse reach its trunk; labels of the training folds do reach."""
    bundle = task.bundles[0]
    held = folds(len(bundle.contrast))[2]

    def said(changed: Bundle) -> np.ndarray:
        other = replace(task, bundles=(changed, task.bundles[1]), trunks={}, evidence={})
        return neds_classes.looks(other, kind, changed, held, 0.0, 0)[neds_classes.QUICK_LOOKS[-1]]

    before = said(bundle)
    np.testing.assert_array_equal(said(flipped(bundle, held)), before)
    assert (said(flipped(bundle, ~held)) != before).any()


def test_a_mouse_is_not_asked_for_its_own_setting(task: FoldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mouse a is best at the first look, b at the last: each gets what the other is best at."""
    first, last = neds_classes.QUICK_LOOKS

    def looks(task: FoldTask, kind: object, bundle: Bundle, held: np.ndarray, *_: object) -> dict[int, np.ndarray]:
        label = np.stack([bundle.labels(name)[held] for name in QUESTIONS], 1)
        right, wrong = np.where(label == 1, 1.0, -1.0), np.where(label == 1, -1.0, 1.0)
        return {first: right, last: wrong} if bundle.mouse == "a" else {first: wrong, last: right}

    monkeypatch.setattr(neds_classes, "looks", looks)

    setting, words = neds_classes.search(task, neds_classes.SINGLE)

    assert (setting["a"]["step"], setting["b"]["step"]) == (last, first)
    assert "others" in words


@pytest.mark.slow
def test_units_that_tell_the_choice_are_learnt(task: FoldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough steps every row of a network, and the logistic, tell the direction; the contrasts tell less."""
    monkeypatch.setattr(neds_classes, "QUICK_LOOKS", (60,))
    setting = {mouse: {"unit_dropout": 0.0, "step": 60} for mouse in task.mice}

    def skill(peer: Peer) -> float:
        fitted, found = peer.fit(replace(task, trunks={}, evidence={}), setting, 0), []
        for _, part in classes.held_out(task):
            label, guess = part.values["wheel_direction"][part.segments[:, 0]], fitted.predict(part)[:, 0]
            found.append(scores.balanced_accuracy(label[label >= 0], guess[label >= 0], 2))
        return float(np.mean(found))

    for peer in (classes.LOGISTIC, neds_classes.NEDS_SINGLE, neds_classes.NEDS_TUNED, neds_classes.BLEND):
        assert skill(peer) > 0.9, peer.name
    assert skill(classes.CONTRASTS) < 0.9


@pytest.mark.usefixtures("few_steps")
def test_what_one_row_made_serves_the_next(task: FoldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blend trains nothing that the row before it has trained."""
    fresh = replace(task, trunks={}, evidence={})
    setting = {mouse: {"unit_dropout": 0.3, "step": neds_classes.QUICK_LOOKS[0]} for mouse in fresh.mice}
    neds_classes.NEDS_SINGLE.fit(fresh, setting, 0)
    monkeypatch.setattr(neds_classes, "looks", None)

    fitted = neds_classes.BLEND.fit(fresh, setting, 0)

    assert fitted.predict(fresh.bundles[0].session).shape == (S, 2)
    assert fitted.parameters > 1000


def test_a_quick_task_has_a_session_of_each_mouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of its sessions, and of that the first trials."""
    monkeypatch.setattr(classes, "QUICK_TRIALS", 50)
    write(tmp_path / "sessions", [made(seed, mouse, of_choice) for seed, mouse in enumerate("abab")])

    quick = classes.read(quick=True, folder=tmp_path / "sessions")

    assert sorted(one.session.name for one in quick.bundles) == ["steinmetz2019-a-day0", "steinmetz2019-b-day1"]
    assert sorted(quick.mice) == ["a", "b"]
    assert {len(one.session.segments) for one in quick.bundles} == {50}
    assert {len(one.contrast) for one in quick.bundles} == {50}


def test_targets_are_read_at_the_last_bin_that_every_trial_has() -> None:
    """Of the shipped recording: what NEDS says of a held-out trial is what its engine says at that bin of it."""
    task = chronological(EXAMPLES / "bci-monkey-20131218", "train.toml", True)
    made = targets.shipped(task, "neds")
    test = task.parts.test
    probs = train.decode_live(made.model, test)[targets.name_of(task)] / made.scalers.prior[targets.name_of(task)]

    fitted = targets.NEDS.fit(task, {}, 0)

    guess = fitted.predict(test)
    rows = [np.flatnonzero(bins_of(spans_of(test)) == begin)[0] for begin, _ in test.segments]
    last = np.diff(task.session.segments).min() - 1
    np.testing.assert_array_equal(guess[:, 0], probs.argmax(1)[np.array(rows) + last])
    assert fitted.step is not None
    assert fitted.parameters == sum(p.numel() for p in made.model.parameters())
    five = targets.LDA_FIVE.fit(task, msgspec.to_builtins({"last_bins": 5, "root": False}), 0)
    label = test.values[targets.name_of(task)][test.segments[:, 1] - 1]
    assert (five.predict(test)[:, 0] == label).mean() > 0.95  # of the last common bin, not of a later one
