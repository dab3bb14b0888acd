"""POYO+ on torch-brain: the spikes it is given, its read-outs, and what happens where the package is absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import compare
from benchmarks.accuracy.blocks import Block
from benchmarks.accuracy.peers import poyo_plus, regression, sequence
from benchmarks.accuracy.peers.task import Task


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

    rows = compare.run(tmp_path / "rows.jsonl", True, said.append, (block,))

    assert [r["peer"] for r in rows] == ["constant"]
    assert any("pip install" in line and "POYO" in line for line in said)


def test_poyo_trains_on_the_planted_recording(task: Task) -> None:
    """It reads both sides of a bin: spikes after it change its output."""
    pytest.importorskip("torch_brain", reason="needs the extra [peers]")
    setting = {**poyo_plus.SETTING, "width": 32, "steps": 20, "stop": 20}
    part = task.parts.development
    network, _, _ = sequence.train(lambda: poyo_plus.Network(task, setting), task, setting, part, None, 0, 20)
    test = task.parts.test
    counts = test.counts.copy()
    counts[test.clock() >= 12] = 3

    before, after = (sequence.predictor(task, network)(s) for s in (test, replace(test, counts=counts)))

    assert before.shape == (len(test.segments) * 25, 1)
    assert np.isfinite(before).all()
    assert np.abs(after - before).reshape(-1, 25)[:, :12].max() > 1e-4


def test_each_task_has_a_query_and_a_read_out_of_its_own(task: Task) -> None:
    """Two tasks of one output answer differently, and a query that changes moves its own task alone."""
    pytest.importorskip("torch_brain", reason="needs the extra [peers]")
    torch.manual_seed(0)
    two = replace(task, specs=(*task.specs, *task.specs))
    network = poyo_plus.Network(two, {**poyo_plus.SETTING, "width": 32}).eval()
    counts = torch.from_numpy(task.session.counts[:50].astype(np.float32)).unflatten(0, (2, 25))
    valid = torch.ones(2, 25, dtype=torch.bool)

    with torch.no_grad():
        before = network(counts, valid)
        network.task.weight[1] += torch.randn(32)
        after = network(counts, valid)

    assert before.shape == (2, 25, 2)
    assert (before[..., 0] - before[..., 1]).abs().min() > 1e-4
    torch.testing.assert_close(after[..., 0], before[..., 0])
    assert (after[..., 1] - before[..., 1]).std() > 1e-4
