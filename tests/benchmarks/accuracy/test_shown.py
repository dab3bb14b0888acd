"""Pictures of a part of a recording: in its own seconds, gaps as gaps, angles in degrees, points as paths."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import figures
from benchmarks.accuracy import evaluated
from benchmarks.accuracy.shown import Guesses, Shown
from benchmarks.figures import labelled
from neds_core.data.session import BehaviourSpec
from neds_core.scores.r2 import guess
from runtime.core.engine import DECODERS

BIN_NS = 20_000_000


def part(bins: np.ndarray, segment: np.ndarray, of: dict[str, np.ndarray], *specs: BehaviourSpec) -> Shown:
    """A part that all decoders got right."""
    said = dict.fromkeys(DECODERS, of)
    return Shown("held-out part", specs, BIN_NS, bins, segment, of, said, {}, {}, {})


def test_time_is_that_of_the_recording_and_gaps_are_gaps() -> None:
    """Two segments of 50 bins, the second 3 s later: right edges in seconds, a break and a grey field between them."""
    bins = np.r_[1000:1050, 1200:1250]
    shown = part(bins, np.repeat([0, 1], 50), {"v": np.sin(bins * 0.1)}, BehaviourSpec("v", "continuous", "cm/s"))
    rows = shown.stretch()

    assert rows.tolist() == list(range(100))
    assert shown.t_s(rows)[[0, 49, 50, 99]] == pytest.approx([20.02, 21.0, 24.02, 25.0])
    assert shown.starts(rows).tolist() == [50]
    (drawn,) = evaluated.decoding(shown, {})
    assert drawn.name == "v-traces"
    assert drawn.png.startswith(b"\x89PNG")

    axes = Figure().subplots()
    figures._over_time(axes, shown.t_s(rows), shown.lines("v", rows), shown.starts(rows))
    assert [line.get_label() for line in axes.lines[:3]] == ["measured", "NEDS", "ridge"]
    for line in axes.lines[:3]:
        y = np.asarray(line.get_ydata(), float)
        assert (len(y), np.flatnonzero(np.isnan(y)).tolist()) == (101, [50])
    (field,) = axes.patches
    assert field.get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx([21.0, 24.0])
    assert axes.get_xlabel() == "time in the recording (s); a line where a segment begins"


def test_a_minute_or_twenty_segments_are_drawn() -> None:
    """Of a long part its first; a line breaks where bins of a segment are missing, too."""
    unbroken = part(np.arange(9000) + 7, np.zeros(9000, int), {})
    assert unbroken.stretch().tolist() == list(range(3000))
    assert unbroken.starts(unbroken.stretch()).tolist() == []
    trials = part(np.arange(1000), np.arange(1000) // 10, {})
    assert trials.stretch().tolist() == list(range(200))
    assert part(np.r_[5:10, 12:20], np.zeros(13, int), {}).starts(np.arange(13)).tolist() == [5]


def test_an_angle_is_drawn_in_degrees() -> None:
    """In one picture for its two outputs, without a line across where it goes round."""
    specs = tuple(BehaviourSpec(f"hd_{side}", "continuous", group="hd", angle=side) for side in ("cos", "sin"))
    angle = np.arange(1.0, 901.0, 3.0)
    sides = {f"hd_{name}": f(np.radians(angle)) for name, f in (("cos", np.cos), ("sin", np.sin))}
    shown = part(np.arange(300), np.zeros(300, int), sides, *specs)

    assert [each.name for each in evaluated.decoding(shown, {})] == ["hd-traces"]
    degrees = evaluated._degrees(shown.points_of("hd", shown.stretch())["neds"])
    assert np.flatnonzero(np.isnan(degrees)).tolist() == [120, 240]
    # 1e-9 degrees: float64 back and forth
    np.testing.assert_allclose(degrees[121:240], angle[1:120], atol=1e-9)
    assert [labelled(spec) for spec in specs] == ["hd cos", "hd sin"]


@pytest.mark.parametrize(("unit", "name"), [("cm", "hand-track"), ("cm/s", "hand-distance")])
def test_a_point_has_a_path_and_a_velocity_has_none(unit: str, name: str) -> None:
    """Both have a distance from what was measured; and each coordinate its trace."""
    specs = tuple(BehaviourSpec(f"hand_{axis}", "continuous", unit, group="hand") for axis in "xy")
    t = np.arange(200) * 0.05
    shown = part(np.arange(200), np.zeros(200, int), {"hand_x": np.cos(t), "hand_y": np.sin(t)}, *specs)

    assert [each.name for each in evaluated.decoding(shown, {})] == [name, "hand_x-traces", "hand_y-traces"]


def test_trials_are_counted_by_class_and_guess() -> None:
    """Those without a label are left out."""
    guesses = Guesses(np.array([0, 0, 1, -1, 2]), {"neds": np.array([0, 1, 1, 2, 0])})

    assert guesses.table("neds", 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert guesses.missing("neds") == 0
    out = BytesIO()
    figures.confusion({"neds": guesses.table("neds", 3)}, ("a", "b", "c"), "choice", out)
    assert out.getvalue().startswith(b"\x89PNG")


def test_trials_without_a_value_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that has none says no class: the table leaves the trial out, and its title says how many."""
    probs = np.array([[0.9, 0.1], [np.nan, np.nan], [0.1, 0.9], [np.nan, 0.5]])
    said = guess(probs, np.array([0.5, 0.5]))
    guesses = Guesses(np.array([0, 0, 1, -1]), {"neds": said, "ridge": np.array([0, 0, 1, 1])})
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **__: titles.append(text))
    spec = BehaviourSpec("choice", "class", classes=("l", "r"))
    shown = replace(part(np.arange(4), np.arange(4), {}, spec), guesses={"choice": guesses})

    (drawn,) = evaluated.decoding(shown, {})

    assert said.tolist() == [0, -1, 1, -1]
    assert guesses.table("neds", 2).tolist() == [[1, 0], [0, 1]]
    assert drawn.png
    assert titles == ["NEDS\n1 without a value", "logistic"]
