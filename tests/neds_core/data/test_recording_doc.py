"""docs/recording.md shows how to make a recording: its sketch runs, and what it makes holds what went in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from neds_core.data import session, session_file

PAGE = (Path(__file__).parents[3] / "docs" / "recording.md").read_text(encoding="utf-8")


def test_the_sketch_makes_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    sketch: dict = {}

    exec(block[1], sketch)

    made = session_file.load(tmp_path / "my_session.npz")
    spikes, at = sketch["spike_s"], 3000  # one bin, counted by hand
    mine = (spikes >= at * 0.02) & (spikes < (at + 1) * 0.02)
    np.testing.assert_array_equal(made.counts[at], np.bincount(sketch["spike_unit"][mine], minlength=50))
    before = sketch["wheel_s"] <= (at + 1) * 0.02 + 1e-9
    assert made.values["wheel_speed"][at] == pytest.approx(sketch["wheel_rad_per_s"][before][-1], abs=1e-6)
    assert [len(part.segments) for part in (session.split(made).train, session.split(made).test)] == [25, 7]
    start, stop = made.segments[0]
    assert (made.values["choice"][start:stop] == (0 if sketch["went_left"][0] else 1)).all()
