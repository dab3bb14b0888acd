"""The choice bench on made-up sessions: what each row may read, on which trials, and what it then finds."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from benchmarks.accuracy.mice import questions
from benchmarks.accuracy.mice.questions import Evidence
from benchmarks.studies import choice
from neds_core.scores import r2 as scores
from tests.benchmarks.mice import made, of_choice, of_stimulus


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
    monkeypatch.setattr(questions, "PENALTIES", (1.0,))  # seconds instead of minutes
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
    evidence = Evidence(made(6, "a", of_choice, start=15))
    rows = {row.name: row for row in choice.rows_of(evidence.bundle, 4)}
    label = evidence.bundle.labels("wheel_direction")
    known = label >= 0

    def right(name: str) -> float:
        said = evidence.of("wheel_direction", "neural", rows[name])
        assert said is not None
        return scores.balanced_accuracy(label[known], (said[known] > 0).astype(int), 2)

    assert right("all trials") > 0.8
    assert right("all trials, first 300 ms") < 0.65
