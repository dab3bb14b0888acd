"""Orders that make no sense, results that are gone on with, and the table: pure."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from calibration.simulating import study, table
from calibration.simulating.blocks import Played
from calibration.simulating.study import FIRST, QUICK, REFIT, SIMULATION, Block, Order, Study
from calibration.simulating.task import Trial
from neds_core.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decoders": ("kalman",)}, "--decoder 'kalman'"),
        ({"decoders": ("ridge", "ridge")}, "names one twice"),
        ({"delays_ms": ()}, "--delay-ms"),
        ({"delays_ms": (-1,)}, "--delay-ms -1"),
        ({"delays_ms": (5000,)}, "--delay-ms 5000"),
        ({"seeds": (-1,)}, "--seeds -1"),
        ({"trials": 0, "refit": False}, "--trials 0"),
        ({"trials": 2}, "--trials 2: 8 trials over all delays are too few"),
        ({"open_trials": 10}, "--open-trials 10"),
        ({"effector": "tail"}, "--effector 'tail'"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        study.refuse(msgspec.structs.replace(Order(), **changed))
    assert said in str(error.value)


@pytest.mark.parametrize("order", [Order(), QUICK, Order(trials=2, refit=False), Order(trials=2, decoders=("oracle",))])
def test_an_order_that_makes_sense_is_not(order: Order) -> None:
    study.refuse(order)


def trial(number: int, target: int, delay: int, success: bool, time_s: float) -> Trial:
    return Trial(number, target, delay, success, time_s, 10.0, 0.5 if success else 0.1, 0, 0, 0.0)


def block(decoder: str, fitted_to: str, seed: int, won: float, time_s: float) -> Block:
    """Ten trials at each of two delays; `won` of them at 0 ms, none at 200 ms."""
    trials = [trial(k, k % 8, 0, k < 10 * won, time_s if k < 10 * won else 3.0) for k in range(10)]
    trials += [trial(10 + k, k % 8, 200, False, 3.0) for k in range(10)]
    played = Played(tuple(trials), 1000, 1, 6.0, (5.0, 10.0, 20.0), 0, 0, {})
    order = Order(decoders=(decoder,), delays_ms=(0, 200), seeds=(seed,), refit=False)
    return Block(SIMULATION, order, fitted_to, {"velocity_x": 0.6 + 0.01 * seed}, played)


def blocks() -> list[Block]:
    return [
        block(name, fitted_to, seed, won, time_s)
        for seed in (0, 1)
        for name, fitted_to, won, time_s in (
            ("ridge", FIRST, 0.5, 1.0), ("neds", FIRST, 0.8, 1.0), ("oracle", FIRST, 1.0, 0.5),
            ("ridge", REFIT, 1.0, 0.5),
        )
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made() -> table.Result:
    return table.build(blocks())


def test_the_table_counts_trials_of_all_seeds(made: table.Result) -> None:
    cells = {(c.decoder, c.fitted_to, c.delay_ms, c.measure): c for c in made.cells}
    ridge = cells["ridge", FIRST, 0, "success"]
    assert (ridge.value, ridge.n) == (0.5, 20)
    assert ridge.low < 0.5 < ridge.high
    assert cells["ridge", FIRST, 0, "time_s"].value == pytest.approx(2.0)  # a lost trial counts the time-out
    assert cells["ridge", FIRST, 0, "efficiency"].value == pytest.approx(0.5)  # of won trials alone
    assert cells["oracle", FIRST, 200, "success"].value == 0.0
    assert np.isnan(cells["oracle", FIRST, 200, "efficiency"].value)


def test_differences_are_of_the_pairs_that_are_there(made: table.Result) -> None:
    found = {(d.first, d.second, d.delay_ms, d.measure): d.value for d in made.differences}
    assert found["neds, open loop", "ridge, open loop", 0, "success"] == pytest.approx(0.3)
    assert found["ridge, ReFIT", "ridge, open loop", 0, "success"] == pytest.approx(0.5)
    assert not any("neds, ReFIT" in first for first, *_ in found)


def test_everything_that_is_shown_says_simulation(made: table.Result) -> None:
    heads = [line for line in table.lines(made) if line.startswith("| sim") or "seeds" in line]
    assert len(heads) == 5
    assert all("simulation" in line.lower() for line in heads)
    assert made.says.startswith("simulation")
    assert all(b.says.startswith("simulation") for b in blocks())


def test_a_study_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """Blocks of the file are not played again: with all of them there, nothing is started."""
    out, made = tmp_path / "out.jsonl", blocks()
    for each in made:
        study.add(out, each)
    assert study.read(out) == made
    order = Order(decoders=("ridge", "oracle"), delays_ms=(0, 200), seeds=(1, 0), refit=False)
    found = Study(order, tmp_path, out, print, lambda: None).run()
    assert [(b.order.seeds, b.order.decoders) for b in found] == [
        ((1,), ("ridge",)), ((1,), ("oracle",)), ((0,), ("ridge",)), ((0,), ("oracle",))
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_line_that_a_crash_has_cut_is_cut_off(kept: int, tmp_path: Path) -> None:
    """However much of it was written, its block is played again and the others count."""
    out, (first, second, *_) = tmp_path / "out.jsonl", blocks()
    study.add(out, first)
    with out.open("ab") as file:
        file.write(msgspec.json.encode(second)[:kept])
    assert study.read(out) == [first]
    study.add(out, second)
    assert study.read(out) == [first, second]


@pytest.mark.parametrize(("text", "line"), [('{"says":"simul\n', 1), ("notes of mine", 1), ("\n", 1)])
def test_a_file_of_something_else_is_named_and_left_alone(text: str, line: int, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(text)
    with pytest.raises(DataError, match=f"line {line}"):
        Study(QUICK, tmp_path, out, print, lambda: None)
    assert out.read_text() == text
