"""The rows of NEDS that the accuracy benchmark trains itself: full attention read whole, and encoders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy.peers import encoders, neds_encoding, neds_full
from benchmarks.accuracy.peers.task import Task, r2_of

SHORT = {"model": {"unit_dropout": 0.2}, "fit": {"steps": 60, "batch": 8}, "stop": 60}


def test_full_attention_reads_the_whole_trial(task: Task) -> None:
    """Spikes from bin 12 on change the bins before; it finds the planted relation; there is no live step."""
    made = neds_full.UNIMODAL.fit(task, SHORT, 0)
    test = task.parts.test
    counts = test.counts.copy()
    counts[test.clock() >= 12] = 3
    early = test.clock()[test.bins()] < 12

    before, after = made.predict(test), made.predict(replace(test, counts=counts))

    assert r2_of(task, test, before)[0] > 0.3
    assert np.abs(after[early] - before[early]).max() > 0.01
    assert made.step is None


def test_the_unimodal_twin_differs_in_its_masks_alone(task: Task) -> None:
    """Multi-task keeps the recording's masks; no window of either is cut short."""
    multi, twin = (neds_full.recipe(task, masks, SHORT) for masks in (None, neds_full.DECODING))

    assert multi.masks == task.config.masks
    assert twin.masks == neds_full.DECODING
    assert (multi.model, multi.fit) == (twin.model, twin.fit)
    assert multi.model.attention == "full"
    assert multi.masks.prefix == twin.masks.prefix == 0.0


def test_an_encoder_is_searched_on_the_folds_and_stopped_where_they_were_best(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop lies on the curve's grid; the refit beats the trial average on trials it has not seen."""
    monkeypatch.setattr(neds_encoding, "CHECK_EVERY", 20)
    short = {"model": SHORT["model"], "fit": SHORT["fit"]}
    peer = neds_encoding.encoding_peer("short", neds_encoding.ENCODING, (short,))

    setting, words = peer.search(replace(task, quick=False))
    made = peer.fit(task, setting, 0)

    assert setting["stop"] in (20, 40, 60)
    assert "folds" in words
    goal = encoders.goal_of(task.parts.development, task.parts.test)
    average = encoders.AVERAGE.fit(task, {}, 0).predict(task.parts.test)
    assert encoders.skill(goal, made.predict(task.parts.test)) > encoders.skill(goal, average) + 0.02
