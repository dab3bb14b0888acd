"""The recordings of two parts in time are what their READMEs say, and what their sources hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.io import days

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
MONKEY_NPZ = DATA / "bci-monkey-stabilized-20160325" / "bci_20160325_trials0000-1131.npz"
MAZE_NPZ = DATA / "rat-hippocampus-tracks" / "w-maze.npz"
with_sources = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published bundles are not at {DATA}")
CONVERTERS: dict[str, Callable[[], Session]] = {
    "bci-monkey-20160325": lambda: days.bci_monkey_20160325(MONKEY_NPZ),
    "rat-w-maze": lambda: days.rat_w_maze(MAZE_NPZ),
}


@pytest.fixture(scope="module")
def monkey() -> Session:
    return session_file.load(ROOT / "examples" / "bci-monkey-20160325" / "session.npz")


@pytest.fixture(scope="module")
def maze() -> Session:
    return session_file.load(ROOT / "examples" / "rat-w-maze" / "session.npz")


def test_the_monkeys_trials_know_their_phase(monkey: Session) -> None:
    """144 of calibration, 160 of baseline before and 238 after, by the source's own trial numbers."""
    phase, ids = monkey.values["phase"], monkey.segment_ids
    first = phase[monkey.segments[:, 0]]

    assert monkey.counts.shape == (11_723, 96)
    assert monkey.spec("phase").classes == ("calibration", "baseline_before", "baseline_after")
    assert [(int((first == k).sum()), int(ids[first == k].min()), int(ids[first == k].max())) for k in range(3)] == [
        (144, 17, 160), (160, 161, 320), (238, 911, 1148),
    ]  # fmt: skip
    assert np.bincount(phase).tolist() == [3329, 3333, 5061]
    assert all((phase[a:b] == phase[a]).all() and (monkey.values["target"][a:b] >= 0).all() for a, b in monkey.segments)
    assert (monkey.moments["cursor_freed"] == 270.0).all()
    assert (monkey.bin_ns, monkey.licence) == (45_000_000, "MIT")


def test_a_direction_is_a_unit_vector_but_in_a_trials_first_bin(monkey: Session) -> None:
    """There the source has no cursor; while the cursor is held at the centre it points to the trial's target."""
    xy = np.stack([monkey.values[f"target_direction_{axis}"] for axis in "xy"], axis=1)
    starts = monkey.segments[:, 0]

    np.testing.assert_array_equal(np.flatnonzero(np.isnan(xy).any(1)), starts)
    np.testing.assert_allclose(np.linalg.norm(np.delete(xy, starts, axis=0), axis=1), 1.0, atol=1e-6)
    angle = np.degrees(np.arctan2(xy[starts + 3, 1], xy[starts + 3, 0])) % 360
    np.testing.assert_allclose(angle, 45.0 * monkey.values["target"][starts], atol=0.01)


@with_sources
def test_the_monkeys_totals_are_the_sources(monkey: Session) -> None:
    """Spikes an electrode, trial by trial, and the direction from each row of the cursor, read in another way."""
    with np.load(MONKEY_NPZ) as bundle:
        raw = dict(bundle)
    trial = {int(number): i for i, number in enumerate(raw["trial_id"])}
    row = np.r_[0, np.cumsum(raw["trial_bins"])]

    for (start, stop), number in zip(monkey.segments, monkey.segment_ids, strict=True):
        i = trial[int(number)]
        np.testing.assert_array_equal(monkey.counts[start:stop], raw["counts"][row[i] : row[i + 1]])
        cursor = raw["cursor_pos"][row[i] + i : row[i + 1] + i + 1]
        assert stop - start == len(cursor) - 1
        away = (raw["target_pos"][i] - cursor[stop - start - 1]).astype(float)
        # 1e-6: float32 of the source, a quotient of its differences
        np.testing.assert_allclose(
            [monkey.values[f"target_direction_{axis}"][stop - 1] for axis in "xy"], away / np.hypot(*away), atol=1e-6
        )
    dead = np.setdiff1d(np.arange(1, 97), raw["good_electrodes"])
    assert monkey.units.ids.tolist() == list(range(1, 97))
    assert dead.tolist() == [9, 22, 55]
    assert monkey.counts[:, dead - 1].sum() <= 8


def test_a_monkeys_file_of_another_day_is_refused(tmp_path: Path) -> None:
    """No calibration among the phases, or one stretch of baseline alone; and a cursor that does not fit the bins."""
    phases = ["gradualTrain", "baselineEvaluation", "stabilization", "baselineEvaluation"]

    def write(phase: list[str], n_cursor: int) -> Path:
        n = len(phase)
        np.savez(
            tmp_path / "day.npz",
            counts=np.ones((2 * n, 3), np.uint8), trial_bins=np.full(n, 2), phase=np.array(phase),
            cursor_pos=np.zeros((n_cursor, 2), np.float32), target_pos=np.ones((n, 2), np.float32),
            trial_id=np.arange(n), move_bin=np.full(n, 1),
        )  # fmt: skip
        return tmp_path / "day.npz"

    assert days.bci_monkey_20160325(write(phases, 12)).segment_ids.tolist() == [0, 1, 3]
    for phase in (phases[1:], phases[:2]):
        with pytest.raises(DataError, match="give the original file"):
            days.bci_monkey_20160325(write(phase, 3 * len(phase)))
    with pytest.raises(DataError, match=r"8 bins and 13 positions of the cursor do not fit"):
        days.bci_monkey_20160325(write(phases, 13))


def test_the_rats_two_runs_lie_in_one_time(maze: Session) -> None:
    """93 to 1181 s and 2209 to 3416 s; position is known in the runs alone, spikes are there in the rest too."""
    assert maze.segments.tolist() == [[4_650, 59_050], [110_450, 170_800]]
    assert maze.units.ids.tolist() == [u for u in range(25) if u != 19]
    assert maze.events is not None
    assert len(maze.events[0]) == 46_931
    inside = maze.clock() >= 0
    assert maze.counts[~inside].sum() > 0
    for axis, low, high in (("x", 192, 525), ("y", 121, 410)):
        position = maze.values[f"position_{axis}"]
        np.testing.assert_array_equal(np.isfinite(position), inside)
        assert (position[inside].min(), position[inside].max()) == (low, high)
    parts = sessions.split(maze)
    assert parts.test.segments.tolist() == [[147_850, 170_800]]
    assert parts.development.segments.tolist() == [[4_650, 59_050], [110_450, 147_850]]


@with_sources
def test_the_rats_totals_are_the_sources(maze: Session) -> None:
    """Spikes of each unit in each run, counted from the source's seconds; position is the last sample of the camera."""
    with np.load(MAZE_NPZ) as bundle:
        raw = dict(bundle)
    seconds = raw["pos_clock_30khz"] / 30_000
    index = raw["spike_times_index"]

    for run, (low, high) in enumerate(((93, 1181), (2209, 3416))):
        start, stop = maze.segments[run]
        theirs = [raw["spike_times_s"][index[u] : index[u + 1]] - seconds[0] for u in maze.units.ids]
        n = [int(((t >= low) & (t < high)).sum()) for t in theirs]
        assert maze.counts[start:stop].sum(0).tolist() == n
        for t in (start, start + 777, (start + stop) // 2, stop - 1):
            # half a tick: seconds in float64, and edges of bins that lie on a tick
            last = np.flatnonzero(seconds - seconds[0] <= (t + 1) * 0.02 + 1 / 60_000)[-1]
            assert maze.values["position_x"][t] == raw["pos_x_px"][last]
            assert maze.values["position_y"][t] == raw["pos_y_px"][last]


@with_sources
@pytest.mark.parametrize("name", CONVERTERS)
def test_shipped_days_are_their_conversions(name: str, request: pytest.FixtureRequest) -> None:
    """Converted again, every array comes out the same."""
    ours, theirs = request.getfixturevalue("monkey" if "monkey" in name else "maze"), CONVERTERS[name]()

    assert (ours.name, ours.bin_ns, ours.specs, ours.citation) == (name, theirs.bin_ns, theirs.specs, theirs.citation)
    for field in ("counts", "valid", "segments", "segment_ids"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    for behaviour, values in theirs.values.items():
        np.testing.assert_array_equal(ours.values[behaviour], values)
    assert ours.units.sha256 == theirs.units.sha256
    assert ours.moments.keys() == theirs.moments.keys()
