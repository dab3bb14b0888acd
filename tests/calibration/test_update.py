"""An update starts from what a run decodes with, and is shown beside it on what neither was fitted to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from calibration import update
from calibration.fitting.config import CalibrateConfig
from calibration.fitting.fit import Fitted
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint.judged import Score
from neds_core.data.parts import Parts
from neds_core.data.session import UnitTable
from neds_core.errors import NedsError
from neds_core.files import sha256
from runtime.io.control import Answer, Control, Running


def test_an_update_is_compared_with_what_runs_on_the_same_segments(fitted: Fitted, cut: Parts) -> None:
    made = fitted.made
    same = update.compare(made, made, cut.judge)
    assert set(same) == {"wheel_speed", "choice"}
    assert all((one.gain.value, one.gain.low, one.gain.high) == (0.0, 0.0, 0.0) for one in same.values())
    assert all(one.running == one.proposed for one in same.values())

    linear = {k: replace(v, weight=np.zeros_like(v.weight)) for k, v in made.linear.items()}
    verdicts = {k: msgspec.structs.replace(v, recommended="ridge") for k, v in made.header.verdicts.items()}
    blind = replace(made, linear=linear, header=msgspec.structs.replace(made.header, verdicts=verdicts))
    found = update.compare(blind, made, cut.judge)
    wheel = found["wheel_speed"]
    assert wheel.running < 0.05 < wheel.proposed
    assert wheel.gain.value == pytest.approx(wheel.proposed - wheel.running)
    assert wheel.gain.low is not None
    assert wheel.gain.low > 0
    assert wheel.n == len(cut.judge.segments)
    as_neds = update.compare(blind, made, cut.judge, "neds")["wheel_speed"]  # as such a run publishes
    assert (as_neds.running, as_neds.gain.value) == (as_neds.proposed, 0.0)
    said = list(update.lines(found))
    assert said[0].startswith(f"wheel_speed: running {wheel.running:.3f}, proposed {wheel.proposed:.3f} (R2 of ")


def test_one_with_other_units_cannot_be_compared(fitted: Fitted, cut: Parts) -> None:
    made, units = fitted.made, fitted.made.units
    table = UnitTable(units.ids + 1, units.region, units.depth_um)
    other = replace(made, units=table, header=msgspec.structs.replace(made.header, unit_map_sha=table.sha256))
    assert update.compare(other, made, cut.judge) == {}
    assert list(update.lines({})) == ["the running decoder has other units, so it cannot be compared"]


def test_the_run_says_what_it_decodes_with(fitted: Fitted, tmp_path: Path) -> None:
    """And it is refused where the run would not take an update, or its file is another one by now."""
    path = tmp_path / "running.safetensors"
    checkpoints.save(fitted.made, path)
    says = Running("r", "neds", "m", sha256(path), 7, "", True, 0, "", 0, "c", path=str(path))
    told = [says]
    with Control(0) as control:
        control.serve(lambda request: Answer(True, "", running=told[0]), lambda: None)
        assert update.running_of(control.address) == update.Running(path, "m", sha256(path), "neds")
        told[0] = msgspec.structs.replace(says, setting="recommended")
        assert update.running_of(control.address).decoder == "recommended"
        told[0] = msgspec.structs.replace(says, frozen=True)
        with pytest.raises(NedsError, match=r"frozen: an update would not be taken; `neds-rt freeze RIG.toml --off`"):
            update.running_of(control.address)
        told[0] = msgspec.structs.replace(says, model_sha="0" * 64)
        with pytest.raises(NedsError, match=r"is no longer the file that the run decodes with .*, not 000000000000\)"):
            update.running_of(control.address)
        told[0] = msgspec.structs.replace(says, path=str(tmp_path / "gone"))
        with pytest.raises(NedsError, match=r"gone, which the run decodes with, cannot be read \(No such file"):
            update.running_of(control.address)


def test_an_update_keeps_rows_and_trunk() -> None:
    found = update.of_rows(CalibrateConfig(min_rate_hz=0.5))
    assert (found.keep_rows, found.everything.steps, found.min_rate_hz) == (True, 0, 0.5)
    assert found.readouts == CalibrateConfig().readouts


def test_what_cannot_be_told_is_unknown() -> None:
    def one(*limits: float) -> update.Compared:
        return update.Compared("R2", 5, 0.5, 0.4, Score(-0.1, *limits))

    found = {"a": one(-0.2, -0.05), "b": one(), "c": one(-0.2, 0.1)}
    assert update.worse(found) == ["a"]
    assert update.unknown(found, ("a", "b", "c", "d")) == ["b", "d"]
    assert update.unknown(None, ("a",)) == ["a"]
