"""The runner of `neds-rt bench accuracy`: rows that resume, intervals from what a row keeps, a table of all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from typer.testing import CliRunner

from benchmarks.accuracy import compare, table
from benchmarks.accuracy.blocks import Block
from benchmarks.accuracy.peers import regression
from benchmarks.accuracy.peers.task import Fitted, Peer, Task
from neds_core.errors import DataError
from neds_core.scores import bits as encoding_scores, bootstrap, r2 as scores
from neds_core.scores.bits import bits_per_spike
from runtime.cli import commands as cli


def counted(peer: Peer, calls: list[str]) -> Peer:
    """The same peer, which notes each fit."""

    def fit(task: Task, setting: dict[str, Any], seed: int) -> Fitted:
        calls.append(f"{peer.name} {seed}")
        return peer.fit(task, setting, seed)

    return Peer(peer.name, peer.search, fit, peer.uses, peer.seeds, peer.loaded)


def block(task: Task, calls: list[str]) -> Block:
    """Ridge, constant and trial average on the planted recording; the last as if it had three seeds."""
    average = Peer("trial average", regression.nothing_to_search, regression.trial_average, "time", 3, loaded=True)
    peers = (regression.CAUSAL_RIDGE, regression.CONSTANT, average)
    return Block("planted", "decode", "chronological", lambda _: task, tuple(counted(p, calls) for p in peers))


def test_rows_resume(task: Task, tmp_path: Path) -> None:
    """A finished row is not computed again; one that a stop cut short is; the result is the same."""
    calls: list[str] = []
    blocks, out = (block(task, calls),), tmp_path / "rows.jsonl"

    first = compare.run(out, True, lambda _: None, blocks)
    again = compare.run(out, True, lambda _: None, blocks)
    all_calls = list(calls)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + lines[-1][:40])
    calls.clear()
    third = compare.run(out, True, lambda _: None, blocks)

    assert all_calls == ["causal ridge 0", "constant 0", "trial average 0", "trial average 1", "trial average 2"]
    assert again == first == [json.loads(line) for line in lines]
    assert calls == ["trial average 2"]
    assert [r["scores"] for r in third] == [r["scores"] for r in first]


def test_rows_of_other_files_are_computed_again(task: Task, tmp_path: Path) -> None:
    """A new recording or configuration is new to every peer, new checkpoints to those that load them."""
    calls: list[str] = []
    inputs, made, out = tmp_path / "train.toml", tmp_path / "neds.safetensors", tmp_path / "rows.jsonl"
    inputs.write_text("old")
    made.write_text("old")
    blocks = (replace(block(task, calls), inputs=(inputs,), checkpoints=(made,)),)
    compare.run(out, True, lambda _: None, blocks)

    calls.clear()
    made.write_text("new")
    compare.run(out, True, lambda _: None, blocks)
    loaded, calls[:] = list(calls), []
    inputs.write_text("new")
    compare.run(out, True, lambda _: None, blocks)

    assert loaded == ["trial average 0", "trial average 1", "trial average 2"]
    assert calls == ["causal ridge 0", "constant 0", *loaded]


def test_rows_of_another_version_are_computed_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also rows that were written before rows had a version."""
    calls: list[str] = []
    blocks, out = (block(task, calls),), tmp_path / "rows.jsonl"
    compare.run(out, True, lambda _: None, blocks)
    all_calls = list(calls)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    monkeypatch.setattr(compare, "VERSION", compare.VERSION + 1)

    for kept in (rows, [{k: v for k, v in row.items() if k != "version"} for row in rows]):
        out.write_text("".join(json.dumps(row) + "\n" for row in kept))
        calls.clear()
        compare.run(out, True, lambda _: None, blocks)
        assert calls == all_calls


@pytest.mark.parametrize(("unit", "name"), [("rad/s", "wheel median error all, rad/s"), ("", "wheel median error all")])
def test_a_point_that_does_not_move_has_no_error_while_moving(task: Task, unit: str, name: str) -> None:
    """Trials too short for a displacement over a second leave that score out, rather than an empty one."""
    spec = structs.replace(task.specs[0], group="wheel", unit=unit)
    one = replace(task, specs=(spec,))

    found = compare._decoded(one, regression.CONSTANT.fit(one, {}, 0))

    assert list(found.errors) == [name]
    assert np.median(np.concatenate(found.errors[name])) > 0


def test_every_block_knows_its_files() -> None:
    """The files that its rows depend on are there."""
    for one in compare.BLOCKS:
        assert len(one.inputs) >= 2
        assert one.checkpoints or not any(peer.loaded for peer in one.peers)
        keys = {compare.key(one, peer, 0, quick=True) for peer in one.peers}
        assert len(keys) == len(one.peers)


def test_absent_recordings_are_refused_before_anything_is_computed(task: Task, tmp_path: Path) -> None:
    """In one sentence with the remedy; a block whose rows are not asked for may lack its own."""
    calls: list[str] = []
    there = block(task, calls)
    blocks = (there, replace(there, recording="absent", inputs=(tmp_path / "session.npz",)))

    with pytest.raises(DataError, match=r"session\.npz is missing; run it from a checkout of the repository"):
        compare.run(tmp_path / "rows.jsonl", True, lambda _: None, blocks)
    assert calls == []
    compare.run(tmp_path / "rows.jsonl", True, lambda _: None, blocks, only="planted .* constant")
    assert calls == ["constant 0"]


def test_the_next_call_reads_past_a_row_cut_short(task: Task, tmp_path: Path) -> None:
    """The row after a broken line starts on a line of its own."""
    blocks, out = (block(task, []),), tmp_path / "rows.jsonl"
    compare.run(out, True, lambda _: None, blocks)
    out.write_text(out.read_text()[:-30])
    compare.run(out, True, lambda _: None, blocks)
    calls: list[str] = []

    compare.run(out, True, lambda _: None, (block(task, calls),))

    assert calls == []


def test_rows_can_be_chosen_by_name_and_joined(task: Task, tmp_path: Path) -> None:
    """Two calls that share the peers make the rows of one; a difference from the reference needs both."""
    whole, joined = tmp_path / "whole.jsonl", tmp_path / "joined.jsonl"
    blocks = (block(task, []),)
    expected = compare.run(whole, True, lambda _: None, blocks)

    first = compare.run(joined, True, lambda _: None, blocks, only="planted decode chronological (constant|trial)")
    compare.run(joined, True, lambda _: None, blocks, only="ridge")
    calls: list[str] = []
    rows = compare.run(joined, True, lambda _: None, (block(task, calls),))

    assert {r["peer"] for r in first} == {"constant", "trial average"}
    assert calls == []
    assert [(r["peer"], r["seed"], r["scores"]) for r in rows] == [
        (r["peer"], r["seed"], r["scores"]) for r in expected
    ]
    assert "minus_reference" in table.pooled(rows)[1]["scores"]["wheel_speed"]


def test_a_row_carries_skill_and_cost(task: Task, tmp_path: Path) -> None:
    """R2 of the test part, the paired difference from ridge, parameters, step, seconds and what was searched."""
    rows = compare.run(tmp_path / "rows.jsonl", True, lambda _: None, (block(task, []),))
    ridge, constant = rows[:2]
    made = regression.CAUSAL_RIDGE.fit(task, ridge["setting"], 0)
    test = task.parts.test
    y, value = regression.targets(task, test)[:, 0], made.predict(test)[:, 0]
    known = np.isfinite(y)

    assert ridge["scores"]["wheel_speed"] == pytest.approx(scores.r2(y[known], value[known]))
    assert constant["parameters"] == 1
    assert ridge["step_ms"] > 0
    assert ridge["seconds_train"] > 0
    assert "banks" in ridge["searched"]
    assert ridge["machine"]["versions"]["torch"]


def test_the_table_holds_every_peer_and_pools_seeds(task: Task, tmp_path: Path) -> None:
    """Losing rows like winning ones."""
    rows = compare.run(tmp_path / "rows.jsonl", True, lambda _: None, (block(task, []),))

    found = table.pooled(rows)
    text = table.lines(found)

    assert [r["peer"] for r in found] == ["causal ridge", "constant", "trial average"]
    assert [r["seeds"] for r in found] == [1, 1, 3]
    assert [r["budget"] for r in found] == ["quick", "quick", "full"]
    assert "minus_reference" not in found[0]["scores"]["wheel_speed"]
    assert found[1]["scores"]["wheel_speed"]["minus_reference"]["high"] < 0
    for row in found:
        assert any(line.startswith(row["peer"]) for line in text)


def test_the_command_prints_one_json_object_last(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`neds-rt bench accuracy --quick --json --out FILE`."""
    monkeypatch.setattr(compare, "BLOCKS", (block(task, []),))

    done = CliRunner().invoke(cli.app, ["bench", "accuracy", "--quick", "--json", "--out", str(tmp_path / "a.jsonl")])

    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["quick"] is True
    assert len(result["table"]) == 3
    assert result["machine"]["cores"] >= 1


def test_sums_over_trials_are_the_scores() -> None:
    """R2 and bits/spike, and their paired differences, from what a row keeps."""
    rng = np.random.default_rng(0)
    trial = np.arange(600) // 20
    y = rng.normal(size=600) + 3.0
    good, bad = y + 0.5 * rng.normal(size=600), y + rng.normal(size=600)
    rates = np.exp(rng.normal(-1, 0.5, (600, 4)))
    counts = rng.poisson(rates).astype(np.float64)
    null = counts.mean(0)

    ours, theirs = scores.r2_sums(y, good, trial), scores.r2_sums(y, bad, trial)
    gained = encoding_scores.bits_sums(counts, rates, null, trial)

    assert scores.r2_of_sums(ours.sum(0)) == pytest.approx(scores.r2(y, good))
    assert encoding_scores.bits_of_sums(gained.sum(0)) == pytest.approx(bits_per_spike(counts, rates, null))
    value, low, high = bootstrap.paired([ours], [theirs], scores.r2_of_sums)
    assert value == pytest.approx(scores.r2(y, good) - scores.r2(y, bad))
    assert 0 < low < value < high
    assert bootstrap.paired([ours], [ours], scores.r2_of_sums) == (0.0, 0.0, 0.0)
    expected = scores.paired_interval(y, [good], bad, trial)
    np.testing.assert_allclose((low, high), expected[1:], atol=0.01)  # two bootstraps of 2000
    low_value, high_value = bootstrap.pooled([ours], scores.r2_of_sums)[1:]
    np.testing.assert_allclose((low_value, high_value), scores.r2_interval(y, good, trial), atol=0.01)
