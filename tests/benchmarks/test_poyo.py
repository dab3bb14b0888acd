"""POYO+ on torch-brain: the spikes it is given, its read-outs, and what happens where the package is absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import accuracy
from benchmarks.accuracy_blocks import Block
from benchmarks.peers import poyo_plus, regression, sequence
from benchmarks.peers.task import Task


def test_spikes_become_tokens_and_nothing_is_lost() -> None:
    """One token a spike at its bin's middle, after a start token; a silent window holds its start alone."""
    counts = torch.zeros(3, 4, 5)
    counts[0, 1, 2], counts[0, 3, 0], counts[2, 0, 4] = 2, 1, 1

    unit, time, mask = poyo_plus.spike_tokens(counts, 0.02)

    assert mask.sum(1).tolist() == [4, 1, 2]
    assert unit[0].tolist() == [0, 3, 3, 1]
    np.testing.assert_allclose(time[0], [0.0, 0.03, 0.03, 0.07], rtol=1e-6)
    assert unit[2, :2].tolist() == [0, 5]
    assert poyo_plus.spike_tokens(torch.zeros(2, 4, 5), 0.02)[0].shape == (2, 1)


def test_without_torch_brain_the_row_is_left_out_and_said(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that brings it; the other rows stand."""
    said: list[str] = []
    monkeypatch.setattr(poyo_plus, "installed", lambda: False)
    block = Block("planted", "decode", "chronological", lambda _: task, (regression.CONSTANT, poyo_plus.POYO_PLUS))

    rows = accuracy.run(tmp_path / "rows.jsonl", True, said.append, (block,))

    assert [r["peer"] for r in rows] == ["constant"]
    assert any("pip install" in line and "POYO" in line for line in said)


def test_poyo_trains_on_the_planted_recording(task: Task) -> None:
    """It reads both sides of a bin: spikes after it change its output."""
    pytest.importorskip("torch_brain", reason="needs the extra [peers]")
    setting = {**poyo_plus.grid()[0], "width": 32, "steps": 20, "stop": 20}
    part = task.parts.development
    network, _, _ = sequence.train(lambda: poyo_plus.Network(task, setting), task, setting, part, None, 0, 20)
    test = task.parts.test
    counts = test.counts.copy()
    counts[test.clock() >= 12] = 3

    before, after = (sequence.predictor(task, network)(s) for s in (test, replace(test, counts=counts)))

    assert before.shape == (len(test.segments) * 25, 1)
    assert np.isfinite(before).all()
    assert np.abs(after - before).reshape(-1, 25)[:, :12].max() > 1e-4
