"""NWB files of other labs, held to h5py to the last spike; and files made here with what those do not have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.data.session import UnitTable
from neds_core.errors import ConfigError, DataError
from neds_core.files import sha256
from neds_core.io import load
from neds_core.io.importing.load import find
from neds_core.io.importing.options import Options

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of one another's versions
DATA = Path(__file__).parents[4].parent / "shared" / "data"
HEADING = DATA / "mouse-head-direction" / "A2929-200711.nwb"
SMALL = DATA / "nwb-small"
REAL = (HEADING, SMALL / "A8604-211122.nwb", SMALL / "sub-4_ses-4_ecephys+image.nwb")


def there(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    return path


@pytest.mark.parametrize("path", REAL, ids=[p.name for p in REAL])
def test_every_spike_is_that_of_h5py(path: Path) -> None:
    import h5py

    found = find(there(path), Options())
    with h5py.File(path) as file:
        units: Any = file["units"]
        times, stops = units["spike_times"][:], np.r_[0, units["spike_times_index"][:]]
        np.testing.assert_array_equal(found.units.ids, units["id"][:])
    assert len(found.t_s) == len(times)
    for u in range(len(found.units)):
        np.testing.assert_array_equal(found.t_s[found.unit == u], times[stops[u] : stops[u + 1]])


def test_counts_and_heading_of_a_mouse_are_those_of_h5py() -> None:
    import h5py

    session = load(there(HEADING), outputs=["CompassDirection_ry:angle=heading", "Position_x"])
    with h5py.File(HEADING) as file:
        units: Any = file["units"]
        times, stops = units["spike_times"][:], np.r_[0, units["spike_times_index"][:]]
        series: Any = file["acquisition/CompassDirection/ry"]
        stamps, radians = series["timestamps"][:], series["data"][:]
        where = file["acquisition/Position/x/data"][:]  # pyright: ignore[reportIndexIssue]
    first = int(np.ceil(stamps[0] / 0.02)) - 1
    edges = (first + np.arange(session.n_bins + 1)) * 20_000_000
    ns = np.rint(times * 1e9).astype(np.int64)
    for u in range(len(session.units)):
        want = np.histogram(ns[stops[u] : stops[u + 1]], edges)[0]
        want[-1] -= (ns[stops[u] : stops[u + 1]] == edges[-1]).sum()  # numpy's last bin is closed
        np.testing.assert_array_equal(session.counts[:, u], want)
    last = np.searchsorted(np.rint(stamps * 1e9).astype(np.int64), edges[1:], side="right") - 1
    np.testing.assert_allclose(session.values["heading_cos"], np.cos(radians[last]), atol=1e-7)
    np.testing.assert_allclose(session.values["heading_sin"], np.sin(radians[last]), atol=1e-7)
    np.testing.assert_array_equal(session.values["Position_x"], where[last].astype(np.float32))
    assert session.n_bins == 26_468
    assert set(session.units.region.tolist()) == {"adn", "ca1"}


def test_a_table_of_trials_is_taken_by_name() -> None:
    import h5py

    path = there(REAL[2])
    session = load(path, trials="recognition_table", outputs=["old_new:class"])
    with h5py.File(path) as file:
        table: Any = file["intervals/recognition_table"]
        start, stop, label = (table[name][:] for name in ("start_time", "stop_time", "old_new"))
    assert len(session.segments) == 178  # of 180: two end after the next one has begun by a whole bin
    rows = session.segment_ids
    first_ns = int(np.ceil(start.min() / 0.02)) - 1
    begin = np.ceil(np.rint(start[rows] * 1e9) / 20e6) - first_ns
    np.testing.assert_array_equal(session.segments[:, 0], begin)
    assert (stop[rows] > start[rows]).all()
    np.testing.assert_array_equal(session.values["old_new"][session.segments[:, 0]], label[rows] - label.min())
    with pytest.raises(ConfigError, match="has no table 'trials2'; it has encoding_table, recognition_table"):
        load(path, trials="trials2")


def test_a_file_without_behaviour_says_so() -> None:
    with pytest.raises(
        DataError, match=r"no behaviour and no trials to take; give --behaviour FILE, or --outputs none"
    ):
        load(there(REAL[1]))


# --- files made here ---

Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Maker of a file: two probes, qualities, observed intervals, a wheel at 100 Hz from 1 to 11 s, and trials."""

    def write(spikes: list[Any] | None = None, ids: tuple[int, ...] = (5, 9), **changed: Any) -> Path:
        import pynwb

        file = pynwb.NWBFile("d", "i", datetime(2026, 1, 31, tzinfo=UTC))
        device = file.create_device("probe")
        groups = [file.create_electrode_group(name, "d", region, device) for name, region in (("A", "m1"), ("B", "s1"))]
        for group in groups:
            file.add_electrode(location=group.location, group=group)
        if spikes is None:
            spikes = [np.arange(0.5, 12, 0.1), np.arange(0.55, 12, 0.2)]
        if spikes:
            file.add_unit_column("quality", "of the sorter")
        for k, times in enumerate(spikes):
            seen = {"obs_intervals": changed["observed"][k]} if "observed" in changed else {}
            file.add_unit(
                id=ids[k], spike_times=times, electrodes=[k], electrode_group=groups[k], quality=("good", "mua")[k],
                **seen,
            )  # fmt: skip
        module = file.create_processing_module("behavior", "b")
        wheel = np.sin(np.arange(1000) / 100.0)
        series = pynwb.TimeSeries("wheel", data=wheel, unit="cm", rate=100.0, starting_time=1.0, conversion=2.0)
        module.add(pynwb.behavior.BehavioralTimeSeries(time_series=[series]))
        place = np.stack([wheel, -wheel], 1)
        where = pynwb.behavior.SpatialSeries("place", place, "frame", unit="m", rate=100.0, starting_time=1.0)
        module.add(pynwb.behavior.Position(spatial_series=[where]))
        for name in changed.get("speeds", ()):  # acquisition, or a module
            speed = pynwb.TimeSeries("speed", data=wheel, unit="cm/s", rate=100.0, starting_time=1.0)
            place_of = file.create_processing_module(name, "m").add if name != "acquisition" else file.add_acquisition
            place_of(speed)
        file.add_trial_column("choice", "c")
        for k in range(4):
            file.add_trial(start_time=2.0 + 2 * k, stop_time=3.0 + 2 * k, choice=("left", "right")[k % 2])
        for begin, end in changed.get("invalid", ()):
            file.add_invalid_time_interval(begin, end)
        path = tmp_path / "made.nwb"
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)
        return path

    return write


def test_what_a_file_holds_is_proposed_and_taken(made: Make) -> None:
    session = load(made(observed=[[[0.0, 5.0], [6.0, 20.0]], [[0.0, 20.0]]], invalid=[(8.0, 8.5)]))
    assert [spec.name for spec in session.specs] == ["wheel_value", "place_x", "place_y", "choice"]
    assert (session.spec("wheel_value").unit, session.spec("place_x").group) == ("cm", "place")
    np.testing.assert_allclose(np.nanmax(session.values["wheel_value"]), 2.0, atol=1e-3)  # by its conversion
    assert session.units.sha256 == UnitTable([5, 9], ["m1", "s1"], [np.nan, np.nan]).sha256
    invalid = 0.98 + np.flatnonzero(~session.valid) * 0.02  # the first sample is on the edge at 1 s
    assert invalid.min() == pytest.approx(5.0)
    assert len(invalid) == 75
    assert session.spec("choice").classes == ("left", "right")
    assert len(session.segments) == 4


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (("eye",), ["speed"]),
        (("acquisition", "eye"), ["acquisition_speed", "eye_speed"]),
        (("eye", "arm"), ["arm_speed", "eye_speed"]),
    ],
)
def test_series_of_one_name_are_told_apart(made: Make, where: tuple[str, ...], names: list[str]) -> None:
    """As raw and worked on, which many files have: by what they lie in."""
    session = load(made(speeds=where))
    assert [spec.name for spec in session.specs if "speed" in spec.name] == names


def test_units_of_a_quality_alone_are_kept(made: Make) -> None:
    path = made()
    assert find(path, Options()).quality == {"good": 1, "mua": 1}
    assert find(path, Options(quality="good")).units.ids.tolist() == [5]


def test_two_probes_are_joined_and_unsorted_times_sorted(made: Make) -> None:
    found = find(made([[3.0, 1.5, 2.25], [2.0]]), Options())
    assert found.t_s.tolist() == [1.5, 2.0, 2.25, 3.0]
    assert found.unit.tolist() == [0, 1, 0, 0]
    notes = " ".join(found.notes)
    assert "units of 2 electrode groups are joined: A (1), B (1)" in notes
    assert "spike times of 1 units were not in order" in notes


@pytest.mark.parametrize(
    ("spikes", "ids", "says"),
    [
        ([], (), "has no units with spike times; spikes have to be sorted"),
        ([[0.5, np.nan], [0.2]], (5, 9), "unit 5: 1 of 2 times are NaN"),
        ([np.arange(100) * 30.0, [0.5]], (5, 9), "looks like samples"),
        ([[0.5, 2.0], [0.7, 3.0]], (5, 5), "unit_ids repeat"),
        ([[0.5, 0.6], [0.7]], (5, 9), "apart; give the time between the two clocks with --offset"),
    ],
)
def test_what_is_wrong_is_one_sentence(made: Make, spikes: list[Any], ids: tuple[int, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(made(spikes, ids))


def test_a_file_that_is_cut_is_refused(made: Make) -> None:
    path = made()
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"is not a readable NWB file .*; copy it again"):
        load(path)


def test_our_own_file_is_imported_with_the_same_counts(made: Make, tmp_path: Path) -> None:
    """What `neds-rt collect` writes, read as any lab's."""
    from neds_core.io import nwb

    session = load(made(), outputs=["place_x", "choice:class"])
    nwb.save(session, tmp_path / "own.nwb", nwb.Origin(0))
    assert load(tmp_path / "own.nwb").of_file() == sha256(tmp_path / "own.nwb")  # taken as it is, it is of that file
    again = load(tmp_path / "own.nwb", outputs=["place_x", "label_choice:class=choice"])
    assert again.of_file() == ""
    np.testing.assert_array_equal(again.counts, session.counts)
    np.testing.assert_array_equal(again.segments, session.segments)
    for name in ("place_x", "choice"):
        np.testing.assert_array_equal(again.values[name], session.values[name])
