"""A calibration of a simulated day is made once: what is kept of it is whole, or it is made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from calibration.simulating import blocks
from calibration.simulating.blocks import Day
from calibration.simulating.task import EFFECTORS
from runtime import config as rigs


class Calibrated:
    """A command that has ended, and what it reported."""

    n = 0

    def __init__(self, folder: Path, *words: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def result(self, watch: object, codes: tuple[int, ...]) -> Any:
        """Long enough to be cut within."""
        Calibrated.n += 1
        return {"offers": {}, "seconds": [float(k) for k in range(500)]}


def test_a_report_that_a_kill_has_cut_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, killed_within: Callable[[Callable[[], object], int], None]
) -> None:
    monkeypatch.setattr(blocks, "Child", Calibrated)
    day = Day.__new__(Day)  # without its streams
    day.effector, day.folder, day.watch = EFFECTORS["cursor"], tmp_path, lambda: None

    def calibrate() -> Any:
        return day.calibrate(tmp_path / "session.npz", "open", 9)

    killed_within(calibrate, 1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calibrate.toml", "open.json.partial"]

    made, report = calibrate()
    assert (made, len(report["seconds"])) == (tmp_path / "open.safetensors", 500)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calibrate.toml", "open.json"]
    assert calibrate() == (made, report)
    assert Calibrated.n == 1  # in this process


def test_a_rig_in_a_folder_that_was_named_from_here_finds_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path in rig.toml starts from the rig's folder, one of --out from where the command was called."""
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()
    rig = blocks.write_rig(Path("work/closed.toml"), "sim", ("cursor_x",), Path("work/open.safetensors"))
    assert Path(rigs.load(rig).checkpoint) == tmp_path / "work" / "open.safetensors"
