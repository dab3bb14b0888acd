"""An ALF folder is read to the last spike, with wheel and trials; what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from neds_core.errors import ConfigError, DataError, NedsError
from neds_core.io.formats import alf
from neds_core.io.formats.alf_behaviour import wheel_of
from neds_core.io.importing.grid import make
from neds_core.io.importing.options import Options

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "ibllib-fixtures" / "alf"
WHEEL_HZ = 100.0


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    """One probe: 2 s of clusters 0, 2 and 3 of 4, on channels 1, 0, 5."""
    folder = tmp_path / "alf" / "probe00"
    folder.mkdir(parents=True)
    np.save(folder / "spikes.times.npy", np.array([0.1, 0.25, 0.25, 0.7, 1.9]))
    np.save(folder / "spikes.clusters.npy", np.array([0, 2, 3, 2, 0], np.uint32)[:, None])
    np.save(folder / "clusters.channels.npy", np.array([1, 1, 0, 5]))
    np.save(folder / "clusters.depths.npy", np.array([20.0, 20.0, 0.0, 100.0]))
    np.save(folder / "channels.brainLocationIds_ccf_2017.npy", np.array([385, 997, 997, 0, 0, 672]))
    (folder / "clusters.metrics.csv").write_text("cluster_id,label\n0,1.0\n2,0.667\n3,1.0\n1,0.0\n")
    return folder


@pytest.fixture
def session_folder(probe: Path) -> Path:
    """The same with a wheel that turns by 0.5 rad/s, and three trials in a table; it is the folder above alf."""
    folder = probe.parent
    t_s = np.arange(0, 2.0, 1 / WHEEL_HZ)
    np.save(folder / "_ibl_wheel.timestamps.npy", t_s)
    np.save(folder / "_ibl_wheel.position.npy", 0.5 * t_s)
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = {"intervals_0": [0.3, 0.9, 1.5], "intervals_1": [0.8, 1.4, 1.9], "choice": [1, -1, np.nan]}
    pandas.DataFrame(table | {"task": ["a", None, "b"], "odd": [[1], [2, 3], []]}).to_parquet(
        folder / "_ibl_trials.table.pqt"
    )
    np.save(folder / "_ibl_trials.goCue_times.npy", np.array([0.4, 1.0, 1.6]))
    return folder.parent


def test_spikes_units_and_regions(probe: Path) -> None:
    found = alf.read(probe, Options())
    assert found.t_s.tolist() == [0.1, 0.25, 0.25, 0.7, 1.9]
    assert found.units.ids[found.unit].tolist() == [0, 2, 3, 2, 0]
    assert found.units.ids.tolist() == [0, 2, 3]
    assert found.units.region.tolist() == ["997", "385", "672"]
    assert found.units.depth_um.tolist() == [20.0, 0.0, 100.0]
    assert found.quality == {"0.67": 1, "good": 2}
    assert alf.read(probe, Options(quality="good")).units.ids.tolist() == [0, 3]
    assert (found.traces, found.trials, found.notes) == ((), None, ())


def test_acronyms_of_a_table_of_channels(probe: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    (probe / "channels.brainLocation.tsv").write_text(
        "allen_ontology\tccf_ap\nCA1\t1\nVISp\t2\n\t3\nx\t0\nx\t0\nroot\t0\n"
    )
    assert alf.read(probe, Options()).units.region.tolist() == ["VISp", "CA1", "root"]


def test_wheel_and_trials(session_folder: Path) -> None:
    """They lie beside the probes, and are found from the folder above and from the probe's."""
    for path in (session_folder, session_folder / "alf" / "probe00"):
        found = alf.read(path, Options())
        (wheel,) = found.traces
        assert (wheel.name, wheel.unit) == ("wheel_velocity", "rad/s")
        assert (wheel.filter, wheel.filter_delay_ms) == ("causal: difference of the last samples over 100 ms", 50.0)
        np.testing.assert_allclose(wheel.values, 0.5, atol=0.5 / WHEEL_HZ / 0.1, rtol=0)  # one sample of the wheel
        assert found.trials is not None
        assert found.trials.start_s.tolist() == [0.3, 0.9, 1.5]
        assert found.trials.columns["task"].tolist() == ["a", "", "b"]
        np.testing.assert_array_equal(found.trials.columns["choice"], [1, -1, np.nan])
        np.testing.assert_array_equal(found.trials.columns["goCue_times"], [0.4, 1.0, 1.6])
        assert found.notes == ("trials.odd is neither numbers nor words and is left out",)
    made = make(found, Options(outputs=("wheel_velocity",))).session
    assert made.segments.shape == (3, 2)


def test_intervals_without_a_table(session_folder: Path) -> None:
    """Sessions before 2022; a trial without an end is left out"""
    folder = session_folder / "alf"
    (folder / "_ibl_trials.table.pqt").unlink()
    np.save(folder / "_ibl_trials.intervals.npy", np.array([[0.3, 0.8], [0.9, np.nan], [1.5, 1.9]]))
    found = alf.read(session_folder, Options())
    assert found.trials is not None
    assert found.trials.stop_s.tolist() == [0.8, 1.9]
    assert found.trials.columns["goCue_times"].tolist() == [0.4, 1.6]
    assert found.notes == ("1 of 3 trials have no start or no end and are left out",)


def test_the_newest_revision_counts(probe: Path) -> None:
    for name, shift in (("#2022-01-31#", 1.0), ("#2024-05-06#", 2.0)):
        (probe / name).mkdir()
        np.save(probe / name / "spikes.times.0b5c-11.npy", np.array([0.1, 0.25, 0.25, 0.7, 1.9]) + shift)
    np.testing.assert_array_equal(alf.read(probe.parent, Options()).t_s, np.array([0.1, 0.25, 0.25, 0.7, 1.9]) + 2.0)


def test_units_of_two_probes_stay_apart(probe: Path) -> None:
    other = probe.parent / "probe01" / "pykilosort"
    other.mkdir(parents=True)
    np.save(other / "spikes.times.npy", np.array([0.2, 0.3]))
    np.save(other / "spikes.clusters.npy", np.array([0, 0]))
    found = alf.read(probe.parent, Options())
    assert found.units.ids.tolist() == [0, 2, 3, 1_000_000]
    assert found.t_s.tolist() == [0.1, 0.2, 0.25, 0.25, 0.3, 0.7, 1.9]
    assert "probe01/pykilosort from 1000000" in found.notes[0]
    np.save(probe.parent / "probe01" / "spikes.times.npy", np.array([0.2, 0.3]))
    with pytest.raises(DataError, match="more than one sorting of probe01"):
        alf.read(probe.parent, Options())


@settings(max_examples=40)  # each writes files
@given(
    steps=st.lists(st.floats(0.0, 0.2), min_size=3, max_size=60),
    moves=st.lists(st.floats(-3.0, 3.0), min_size=61, max_size=61),
)
def test_velocity_is_of_the_past_alone(
    steps: list[float], moves: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However irregular the samples: the last position less the last 50 ms before; later ones change nothing."""
    t_s = np.r_[0.0, np.cumsum(steps) + 0.1]
    position = np.array(moves[: len(t_s)])
    folder = tmp_path_factory.mktemp("wheel")
    files = {name: folder / f"wheel.{name}.npy" for name in ("position", "timestamps")}

    def read(n: int) -> dict[float, float]:
        np.save(files["position"], position[:n])
        np.save(files["timestamps"], t_s[:n])
        (trace,) = wheel_of(files, 50.0)
        return dict(zip(trace.t_s.tolist(), trace.values.tolist(), strict=True))

    whole = read(len(t_s))
    for at, value in whole.items():
        now, before = (position[t_s <= t][-1] for t in (at, at - 0.05))
        assert value == pytest.approx((now - before) / 0.05)
    some = read(len(t_s) - 1)
    assert all(whole[at] == value for at, value in some.items() if at < t_s[-2])


def test_times_of_a_few_samples_are_filled_in(probe: Path) -> None:
    """Two rows of sample and time, as in sessions of 2019."""
    np.save(probe.parent / "wheel.position.npy", np.arange(101.0))
    np.save(probe.parent / "wheel.timestamps.npy", np.array([[0, 10.0], [100, 11.0]]))
    (wheel,) = alf.read(probe.parent, Options()).traces
    np.testing.assert_allclose(wheel.values, 100.0, atol=10.0 + 1e-6, rtol=0)  # one sample of 10 ms in 100 ms
    assert (wheel.unit, wheel.t_s[-1]) == ("", pytest.approx(11.0))


def _save(name: str, values: object) -> Callable[[Path], object]:
    return lambda probe: np.save(probe / name, np.asarray(values))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_save("spikes.times.npy", [0.1, 0.2]), "spikes.times has 2 spikes, spikes.clusters 5"),
        (_save("spikes.times.npy", [1, 2, 3, 4, 5]), "whole numbers"),
        (_save("spikes.times.npy", [0.1, np.nan, 0.2, 0.3, 0.4]), "1 of 5 times are NaN"),
        (_save("spikes.times.npy", np.zeros((5, 2))), r"has the shape \(5, 2\)"),
        (_save("spikes.clusters.npy", [0, 0.5, 1, 1, 1]), "hold a fraction"),
        (_save("spikes.clusters.npy", [0, -1, 1, 1, 1]), "has the cluster -1"),
        (lambda probe: (probe / "spikes.clusters.npy").unlink(), "no spikes.clusters"),
        (_save("clusters.depths.npy", [1.0]), "has 1 clusters and spikes.clusters has number 3"),
        (_save("clusters.channels.npy", [0, 0, 0, 6]), "has 6 channels and clusters.channels names 6"),
        (_save("spikes.times.copy.npy", [0.1]), "has spikes.times more than once"),
        (_save("../wheel.position.npy", [0.1]), "has no wheel.timestamps"),
        (lambda probe: (probe / "clusters.metrics.csv").write_bytes(b""), "cannot be read"),
        (lambda probe: (probe / "clusters.metrics.csv").write_text("cluster_id,label\n0,x\n"), "label is no share"),
        (lambda probe: (probe / "spikes.times.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{\n"), "cannot be read"),
    ],
)  # fmt: skip
def test_it_is_refused(probe: Path, change: Callable[[Path], object], said: str) -> None:
    change(probe)
    with pytest.raises(NedsError, match=said):
        alf.read(probe, Options())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_save("_ibl_wheel.position.npy", [0.1]), "has 200 times and wheel.position 1 values"),
        (_save("_ibl_wheel.timestamps.npy", np.r_[1.0, np.arange(199)]), "goes back at sample 1"),
        (_save("_ibl_wheel.timestamps.npy", np.r_[np.nan, np.arange(199)]), "1 values of wheel.timestamps are NaN"),
        (_save("_ibl_wheel.timestamps.npy", np.linspace(0, 0.05, 200)), "less than 100 ms"),
        (_save("_ibl_trials.goCue_times.npy", [0.1]), "trials.goCue_times has 1 rows and trials.intervals 3"),
        (_save("_ibl_trials.intervals.npy", [[1.0, 0.5]] * 3), "3 trials end before they begin"),
        (lambda folder: (folder / "_ibl_trials.table.pqt").write_bytes(b"PAR1"), "cannot be read"),
        (lambda folder: (folder / "_ibl_trials.table.pqt").unlink(), "^$"),
    ],
)  # fmt: skip
def test_behaviour_that_is_refused(session_folder: Path, change: Callable[[Path], object], said: str) -> None:
    change(session_folder / "alf")
    if said == "^$":  # a folder with times of trials alone holds none
        assert alf.read(session_folder, Options()).trials is None
        return
    with pytest.raises(DataError, match=said):
        alf.read(session_folder, Options())


def test_two_tasks_are_told_apart_by_name(session_folder: Path) -> None:
    other = session_folder / "alf" / "task_01"
    other.mkdir()
    np.save(other / "trials.intervals.npy", np.array([[1.0, 1.5]]))
    with pytest.raises(DataError, match=r"has trials in 2 folders .*--name trials=FOLDER"):
        alf.read(session_folder, Options())
    found = alf.read(session_folder, Options(names={"trials": "alf/task_01"}))
    assert found.trials is not None
    assert found.trials.start_s.tolist() == [1.0]
    with pytest.raises(ConfigError, match="holds no trials"):
        alf.read(session_folder, Options(names={"trials": "alf/task_02"}))


def test_a_rate_is_refused(probe: Path) -> None:
    with pytest.raises(ConfigError, match="times of ALF are seconds"):
        alf.read(probe, Options(rate_hz=30_000))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the fixtures of ibllib are not at {DATA}")
def test_a_published_probe_equals_its_arrays_to_the_last_spike() -> None:
    """120 s of a Neuropixels probe, read with NumPy alone."""
    t_s, clusters = (np.load(DATA / "probe00" / f"spikes.{name}.npy") for name in ("times", "clusters"))
    found = alf.read(DATA, Options())
    np.testing.assert_array_equal(found.t_s, t_s)
    np.testing.assert_array_equal(found.units.ids[found.unit], clusters)
    assert len(found.units) == 289
    made = make(found, Options(outputs=("none",))).session
    assert int(made.counts.sum()) == len(t_s) == 124_905


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the fixtures of ibllib are not at {DATA}")
def test_a_published_wheel_turns_as_its_samples_do(tmp_path: Path) -> None:
    """180 s, sampled irregularly: the velocity of lines between the samples, but for a tick of the encoder."""
    with np.load(DATA.parent / "wheel_traces.npz") as held:
        t_s, position = held["wheel1_timestamps_s"], held["wheel1_position"]
    files = {name: tmp_path / f"_ibl_wheel.{name}.npy" for name in ("timestamps", "position")}
    np.save(files["timestamps"], t_s)
    np.save(files["position"], position)
    (wheel,) = wheel_of(files, 100.0)
    now, before = (np.interp(at, t_s, position) for at in (wheel.t_s, wheel.t_s - 0.1))
    tick = float(np.abs(np.diff(position)).max())
    np.testing.assert_allclose(wheel.values, (now - before) / 0.1, atol=2 * tick / 0.1, rtol=0)
    assert np.corrcoef(wheel.values, now - before)[0, 1] > 0.999
