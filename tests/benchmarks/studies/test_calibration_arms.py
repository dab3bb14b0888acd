"""The arms of the calibration study: parts that never overlap, a control that loses no value, cells that come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from benchmarks.studies.calibration import arms, cells, table
from benchmarks.studies.calibration.arms import ALL, EVERY, Arm, Day
from benchmarks.studies.calibration.five import ARMS
from calibration.fitting.config import CalibrateConfig, Everything, FitConfig, Linear, Readouts
from neds_core.config import FitConfig as PretrainFit, ModelConfig, PretrainConfig
from neds_core.data.session import Session
from neds_core.errors import DataError

OUTPUT = ("wheel_speed",)


def arm_of(session: Session, start: int = 0, *, minutes: bool = False) -> Arm:
    """An arm of one session, its last 40 % in four test parts."""
    n = arms.length(session)
    day = Day(session, "animal", "before", start, arms.fourths(round(0.6 * n), n))
    model = ModelConfig(width=8, layers=1, heads=2, band=12, registers=1)
    recipe = PretrainConfig(
        ("before",), OUTPUT, min_rate_hz=0.05, model=model,
        fit=PretrainFit(steps=2, batch=2, window_bins=12, ema_decay=0.5, threads=1),
    )  # fmt: skip
    config = CalibrateConfig(
        outputs=OUTPUT, readouts=Readouts(2), everything=Everything(2), linear=Linear(lags=(1,), penalties=(10.0,)),
        fit=FitConfig(batch=2, window_bins=12, check_every=1),
    )  # fmt: skip
    return Arm(
        9, "tiny", OUTPUT, (12, ALL), (12,), (12,), 12, (day,), {"before": (session,)}, recipe, config, base_seeds=1,
        minutes=minutes,
    )  # fmt: skip


def spans(part: Session) -> tuple[int, int]:
    """First and last + 1 place of a part, in bins of the whole."""
    return int(part.segments[0, 0]), int(part.segments[-1, 1])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_parts_lie_apart_and_before_every_test_part(session: Session, data: st.DataObject) -> None:
    """Fitting, selecting and test parts share no trial, come in this order, and have two trials between them."""
    arm = arm_of(session, data.draw(st.integers(0, 3)))
    day, mode = arm.days[0], data.draw(st.sampled_from(arm.asked))[0]
    origin = EVERY if mode == "first" else data.draw(st.integers(0, 3))
    most = day.tests[max(origin, 0)][0] - day.gap - day.start
    amount = data.draw(st.sampled_from([ALL, *range(8, most + 1)]))

    parts = arms.parts_of(arm, day, mode, amount, origin)
    rows = [np.searchsorted(session.segments[:, 0], part.segments[:, 0]) for part in (parts.fit, parts.select)]
    tested = [np.searchsorted(session.segments[:, 0], t.segments[:, 0]) for t in arms.tests_of(day, origin)]

    assert rows[1][0] - rows[0][-1] == day.gap + 1
    assert tested[0][0] - rows[1][-1] >= day.gap + 1
    assert rows[0][0] >= day.start
    n = rows[1][-1] + 1 - rows[0][0]
    assert n == (amount or most)
    assert abs(len(rows[0]) - 0.75 * (n - day.gap)) <= 0.5
    assert np.diff(np.concatenate(tested)).min() == 1  # no trial is tested twice
    assert len(parts.judge.segments) == sum(map(len, tested))


def test_parts_of_a_run_have_ten_seconds_between_them(unbroken: Session) -> None:
    """Places of a run are bins; 400 bins of 20 ms are too few for a minute, which is refused."""
    arm = arm_of(unbroken, minutes=True)
    day = Day(unbroken, "animal", "before", 0, ((399, 400),))
    assert day.gap == 500

    assert spans(arms.piece(unbroken, 10, 30)) == (10, 30)
    with pytest.raises(DataError, match="not 3000"):
        arms.parts_of(arm, arm.days[0], "first", 1, EVERY)


@pytest.mark.parametrize("number", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 3, 4, 5])
def test_each_arm_can_be_cut_everywhere(number: int) -> None:
    """Every cell of every arm has its parts, has controls somewhere, and no test part is what a base was trained on."""
    arm = ARMS[number]()
    each = list(cells.queue(arm))

    assert {cell.condition for _, cell in each} >= {*arms.CONDITIONS, cells.RIDGE}
    assert {cell.seed for _, cell in each} == {0, 1, 2}
    assert len({cell for _, cell in each}) == len(each)
    for day, cell in each:
        if cell.condition == "calibrated" and cell.seed == 0:
            parts = arms.parts_of(arm, day, cell.mode, cell.amount, cell.origin)
            assert spans(parts.select)[1] < spans(parts.judge)[0]
        assert len(day.tests) == 4
        for seen in arm.bases[day.base]:
            if seen.name.split(" half")[0] == day.session.name.split(" half")[0]:
                assert spans(seen)[1] <= spans(arms.piece(day.session, day.start, day.start + 1))[0]


def test_shuffled_behaviour_keeps_its_values_and_its_trials(session: Session, unbroken: Session) -> None:
    """The same values in another order, all behaviours moved together, the spikes where they were."""
    for one in (session, unbroken):
        found, bins = arms.shuffled(one, 0), one.bins()

        for name, values in one.values.items():
            np.testing.assert_array_equal(np.sort(found.values[name][bins]), np.sort(values[bins]))
        assert found.counts is one.counts
    moved = arms.shuffled(session, 0)
    assert not np.array_equal(moved.values["wheel_speed"], session.values["wheel_speed"])
    first = session.values["wheel_speed"].reshape(len(session.segments), -1)
    dealt = moved.values["wheel_speed"].reshape(first.shape)
    order = [int(np.isclose(first, row, equal_nan=True).all(1).argmax()) for row in dealt]
    assert sorted(order) == list(range(len(first)))
    for name, values in session.values.items():
        by_trial = values.reshape(len(first), -1)
        np.testing.assert_array_equal(moved.values[name].reshape(len(first), -1), by_trial[order])


def test_a_cut_queue_goes_on_where_it_was(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished cells are read back and not computed again; the table says what is missing, and nothing in the end."""
    monkeypatch.setattr(cells, "SEEDS", (0, 1))
    arm, path, said = arm_of(session), tmp_path / "cells.jsonl", []
    arm = replace(arm, days=(replace(arm.days[0], tests=arm.days[0].tests[:2]),))
    cells.run(arm, path, tmp_path, 0.0, said.append)
    assert not said
    every = [cell for _, cell in cells.queue(arm)]

    done = cells.run(arm, path, tmp_path, np.inf, said.append)
    with path.open("a") as file:
        file.write('{"cut short')
    again = cells.run(arm, path, tmp_path, np.inf, said.append)

    assert list(done) == every
    assert again == done
    assert len(said) == len(every)
    whole = table.result(arm, done)
    assert not whole["missing"]
    some = {cell: row for cell, row in done.items() if cell.condition != "scratch"}
    assert [row["condition"] for row in table.result(arm, some)["missing"]] == ["scratch"]
    assert any(line.startswith("| 12 |") for line in table.lines(table.result(arm, some)))
    for row in whole["rows"]:
        assert row["scores"]["calibrated"] is not None
        ridge = row["scores"]["ridge"].value
        gain = row["differences"]["calibrated minus ridge"].value
        assert row["scores"]["calibrated"].value - ridge == pytest.approx(gain)
