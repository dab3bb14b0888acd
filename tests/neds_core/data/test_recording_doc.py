"""docs/recording.md shows how to make a recording: its sketch runs, and what it makes holds what went in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.data import session, session_file
from runtime.core.binning import Binner
from runtime.core.values import SPIKES

PAGE = (Path(__file__).parents[3] / "docs" / "recording.md").read_text(encoding="utf-8")
OWN = r"rng = np\.random.*?went_left = [^\n]*\n"  # what the page tells its reader to replace


def run_sketch(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str | None = None) -> dict[str, Any]:
    """The page's script in a folder, with other recordings in place of its made-up ones."""
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    text = block[1]
    if own is not None:
        text, n = re.subn(OWN, lambda _: own, text, flags=re.DOTALL)
        assert n == 1
    monkeypatch.chdir(folder)
    sketch: dict[str, Any] = {}
    exec(text, sketch)
    return sketch


def test_the_sketch_makes_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = run_sketch(tmp_path, monkeypatch)

    made = session_file.load(tmp_path / "my_session.npz")
    spikes, at = sketch["spike_s"], 3000  # one bin, counted by hand
    mine = (spikes >= at * 0.02) & (spikes < (at + 1) * 0.02)
    np.testing.assert_array_equal(made.counts[at], np.bincount(sketch["spike_unit"][mine], minlength=50))
    before = sketch["wheel_s"] <= (at + 1) * 0.02 + 1e-9
    assert made.values["wheel_speed"][at] == pytest.approx(sketch["wheel_rad_per_s"][before][-1], abs=1e-6)
    assert [len(part.segments) for part in (session.split(made).train, session.split(made).test)] == [25, 7]
    start, stop = made.segments[0]
    assert (made.values["choice"][start:stop] == (0 if sketch["went_left"][0] else 1)).all()


ON_EDGES = """
k = np.arange(1, 6000)
spike_s = np.repeat(k * 600 / 30000.0, 2)  # a 30 kHz recording, on the edges of 20 ms bins
spike_unit = np.arange(spike_s.size) % 50
wheel_s, wheel_rad_per_s = np.arange(6001) * 0.02, np.arange(6001.0)
trial_start_s, trial_stop_s = np.round(np.arange(1, 800) * 0.14, 6), np.round(np.arange(1, 800) * 0.14 + 0.1, 6)
went_left = np.arange(799) % 2 == 0
"""


def test_stamps_on_edges_are_binned_as_on_the_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spikes, samples and trials that fall on edges; the live binner counts the same spikes, a second at a time."""
    sketch = run_sketch(tmp_path, monkeypatch, ON_EDGES)
    made = session_file.load(tmp_path / "my_session.npz")

    binner, second = Binner(50, made.bin_ns, max_age_ns=10**12, future_ns=10**9), 50
    binner.start(0)
    live, row = np.zeros_like(made.counts), np.zeros(50, np.uint16)
    t_ns = np.repeat(np.arange(1, 6000) * 20_000_000, 2)  # the same, in integers from the start
    for begin in range(0, made.n_bins, second):
        inside = (t_ns // made.bin_ns >= begin) & (t_ns // made.bin_ns < begin + second)
        spikes = np.zeros(inside.sum(), SPIKES)
        spikes["t_ns"], spikes["unit"] = t_ns[inside], sketch["spike_unit"][inside]
        binner.feed(spikes, int(spikes["t_ns"][-1]))
        for b in range(begin, min(begin + second, made.n_bins)):
            binner.close(row)
            live[b] = row

    np.testing.assert_array_equal(made.counts, live)
    assert made.counts.sum() == 2 * 5999
    np.testing.assert_array_equal(made.values["wheel_speed"], np.arange(1, 6001))
    first = np.arange(1, 800) * 7
    np.testing.assert_array_equal(made.segments, np.stack([first, first + 5], 1))
