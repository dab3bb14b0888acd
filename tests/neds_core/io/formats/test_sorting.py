"""Saved sortings and acquisition files are read to the last spike, or refused for a stated reason."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from neds_core.errors import ConfigError, DataError
from neds_core.io.formats import sorting
from neds_core.io.importing import spikes
from neds_core.io.importing.options import Options

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn of one another's versions
RATE_HZ = 30_000
N = 500


def saved(folder: Path, ids: list[object], form: str = "numpy_folder") -> tuple[np.ndarray, np.ndarray, Path]:
    """Samples (n,), units (n,) and the folder of a sorting of three units, of which the second is mua."""
    core = pytest.importorskip("spikeinterface.core", reason="spikeinterface is not installed")
    rng = np.random.default_rng(0)
    samples, unit = np.sort(rng.integers(0, 10 * RATE_HZ, N)), rng.integers(0, 3, N)
    made = core.NumpySorting.from_samples_and_labels([samples], [unit], float(RATE_HZ)).rename_units(ids)
    made.set_property("quality", ["good", "mua", "good"])
    made.set_property("brain_area", ["CA1", "", "VISp"])
    made.save(folder=folder, format=form)
    return samples, unit, folder


@pytest.mark.parametrize(("name", "form"), [("sorted", "numpy_folder"), ("sorted.zarr", "zarr")])
def test_a_saved_sorting(name: str, form: str, tmp_path: Path) -> None:
    samples, unit, folder = saved(tmp_path / name, [4, 9, 7], form)
    assert sorting.suits(folder)
    found = sorting.read(folder, Options())
    np.testing.assert_allclose(found.t_s, samples / RATE_HZ, atol=1e-12, rtol=0)
    np.testing.assert_array_equal(np.bincount(found.unit), np.bincount(unit))
    assert found.units.ids.tolist() == [4, 9, 7]
    assert found.units.region.tolist() == ["CA1", "?", "VISp"]
    assert found.quality == {"good": 2, "mua": 1}
    some = sorting.read(folder, Options(quality="good"))
    assert some.units.ids.tolist() == [4, 7]
    np.testing.assert_allclose(some.t_s[some.unit == 1], samples[unit == 2] / RATE_HZ, atol=1e-12, rtol=0)


def test_an_analyzer_and_a_recording(tmp_path: Path) -> None:
    """The first holds a sorting, the second does not."""
    core = pytest.importorskip("spikeinterface.core", reason="spikeinterface is not installed")
    recording, made = core.generate_ground_truth_recording(durations=[2.0], num_channels=4, num_units=3, seed=0)
    core.create_sorting_analyzer(made, recording, format="binary_folder", folder=tmp_path / "analyzer", sparse=False)
    found, vector = sorting.read(tmp_path / "analyzer", Options()), made.to_spike_vector()
    np.testing.assert_allclose(found.t_s, vector["sample_index"] / made.sampling_frequency, atol=1e-12, rtol=0)
    np.testing.assert_array_equal(found.unit, vector["unit_index"])
    assert found.clock == sorting.FROM_FIRST
    recording.save(folder=tmp_path / "recording")
    with pytest.raises(DataError, match="no sorting; give the folder of the sorting"):
        sorting.read(tmp_path / "recording", Options())


def test_units_with_names_get_their_rows(tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path / "sorted", ["a", "b", "c"])
    found = sorting.read(folder, Options())
    assert found.units.ids.tolist() == [0, 1, 2]
    assert found.notes[0].startswith("units are named by words ('a' first)")


def test_sortings_that_are_refused(tmp_path: Path) -> None:
    core = pytest.importorskip("spikeinterface.core", reason="spikeinterface is not installed")
    _, _, folder = saved(tmp_path / "sorted", [1, 2, 3])
    with pytest.raises(ConfigError, match="says its own rate"):
        sorting.read(folder, Options(rate_hz=1.0))
    (folder / "spikes.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be loaded"):
        sorting.read(folder, Options())
    two = core.NumpySorting.from_samples_and_labels([np.arange(5)] * 2, [np.zeros(5, int)] * 2, 1000.0)
    two.save(folder=tmp_path / "two")
    with pytest.raises(DataError, match="has 2 segments"):
        sorting.read(tmp_path / "two", Options())
    none = core.NumpySorting.from_samples_and_labels([np.zeros(0, int)], [np.zeros(0, int)], 1000.0)
    none.save(folder=tmp_path / "none")
    with pytest.raises(DataError, match="has no spikes"):
        sorting.read(tmp_path / "none", Options())


def nev(path: Path, spikes: list[tuple[int, int, int]]) -> Path:
    """A Blackrock file of specification 2.3: spikes as (tick of 1/30,000 s, electrode, unit of it)."""
    width = 104  # bytes of a packet: 8 and 48 samples of a waveform
    electrodes = sorted({electrode for _, electrode, _ in spikes} | {1})
    head = struct.pack("<8s2BHIIII8H", b"NEURALEV", 2, 3, 1, 336 + 32 * len(electrodes), width, RATE_HZ, RATE_HZ,
                       2026, 1, 4, 1, 0, 0, 0, 0)  # fmt: skip
    head += struct.pack("<32s256sI", b"test", b"", len(electrodes))
    for electrode in electrodes:
        head += struct.pack("<8sHBBHHhhBBH8s", b"NEUEVWAV", electrode, 1, 1, 250, 0, 0, 0, 0, 2, 48, b"")
    packets = [struct.pack("<IHBB96s", tick, electrode, unit, 0, b"") for tick, electrode, unit in spikes]
    path.write_bytes(head + b"".join(packets))
    return path


def test_a_blackrock_file(tmp_path: Path) -> None:
    """Ids of electrode and unit, what was not sorted and noise by their numbers, times by the file's own clock."""
    pytest.importorskip("neo", reason="neo is not installed")
    rng = np.random.default_rng(1)
    ticks = np.sort(rng.integers(0, 60 * RATE_HZ, 300)).tolist()
    sent = [(t, int(rng.choice([1, 3, 96])), int(rng.choice([0, 1, 2, 255]))) for t in ticks]
    found = sorting.read(nev(tmp_path / "a.nev", sent), Options())
    np.testing.assert_allclose(found.t_s, np.array(ticks) / RATE_HZ, atol=1e-12, rtol=0)
    got = sorted(
        zip(np.rint(found.t_s * RATE_HZ).astype(int).tolist(), found.units.ids[found.unit].tolist(), strict=True)
    )
    assert got == sorted((t, 1000 * electrode + unit) for t, electrode, unit in sent)
    assert found.quality == {"noise": 3, "sorted": 6, "unsorted": 3}
    assert len(sorting.read(tmp_path / "a.nev", Options(quality="sorted")).units) == 6


def plx(path: Path, spikes: list[tuple[int, int, int]]) -> Path:
    """A Plexon file of version 106: spikes as (tick of 1/40,000 s, channel, unit of it), without waveforms."""
    channels = sorted({channel for _, channel, _ in spikes})
    head = bytearray(7504)
    struct.pack_into("<4si", head, 0, b"PLEX", 106)
    struct.pack_into("<14id", head, 136, 40_000, len(channels), 1, 1, 32, 8, 2026, 1, 31, 12, 0, 0, 0, 40_000, 0.0)
    struct.pack_into("<4B3H", head, 200, 1, 1, 12, 12, 3000, 5000, 1000)
    parts = [bytes(head)]
    for channel in channels:
        one = bytearray(1020)
        struct.pack_into("<32s32s5i", one, 0, b"sig%03d" % channel, b"", channel, 0, 0, 0, 1)
        parts.append(bytes(one))
    event, slow = bytearray(296), bytearray(296)
    struct.pack_into("<32si", event, 0, b"Strobed", 257)
    struct.pack_into("<32s5i", slow, 0, b"AD01", 0, 1000, 1, 0, 1)
    parts += [bytes(event), bytes(slow)]
    parts += [struct.pack("<HHIHHHH", 1, t >> 32, t % 2**32, channel, unit, 0, 0) for t, channel, unit in spikes]
    path.write_bytes(b"".join(parts))
    return path


def test_a_plexon_file(tmp_path: Path) -> None:
    """Also beyond the 32 bits of its clock, after 30 hours."""
    pytest.importorskip("neo", reason="neo is not installed")
    ticks = [5, 40_000, 40_000, 2**32 + 7, 2**32 + 40_007]
    sent = list(zip(ticks, [1, 1, 12, 12, 1], [1, 0, 2, 2, 1], strict=True))
    found = sorting.read(plx(tmp_path / "a.plx", sent), Options())
    np.testing.assert_allclose(found.t_s, np.array(ticks) / 40_000, atol=1e-9, rtol=0)
    assert found.units.ids[found.unit].tolist() == [1001, 1000, 12002, 12002, 1001]
    assert found.quality == {"sorted": 2, "unsorted": 1}


def open_ephys(folder: Path, electrodes: dict[str, list[tuple[int, int]]]) -> Path:
    """A folder of Open Ephys's own format: for each electrode spikes as (sample at 30 kHz, unit); and a signal."""
    folder.mkdir()
    head = b"header.format = 'Open Ephys Data Format';\nheader.num_channels = 1;\nheader.sampleRate = 30000;\n"
    head += b"header.bitVolts = 0.2;\nheader.version = 0.4;\nheader.date_created = '1-Feb-2026 10203';\n"
    for number, (name, sent) in enumerate(electrodes.items()):
        spikes = [
            struct.pack("<BqqHHHHHH3B2fH", 4, t, 0, 100, 1, 40, unit, number, 0, 0, 0, 0, 0.0, 0.0, 30_000)
            + bytes(80) + struct.pack("<fHH", 1000.0, 0, 0)
            for t, unit in sent
        ]  # fmt: skip
        (folder / f"{name}.spikes").write_bytes(head.ljust(1024) + b"".join(spikes))
    records = [struct.pack("<qHH", 900 + 1024 * k, 1024, 0) + bytes(2048 + 10) for k in range(3)]
    (folder / "100_CH1.continuous").write_bytes(head.ljust(1024) + b"".join(records))
    return folder


def test_an_open_ephys_folder(tmp_path: Path) -> None:
    """Ids count electrodes by their names; times are samples of the acquisition, whatever the signal's first."""
    pytest.importorskip("neo", reason="neo is not installed")
    sent = {"SE0": [(1000, 0), (1500, 2), (3000, 2)], "SE1": [(1200, 1), (1500, 1)]}
    found = sorting.read(open_ephys(tmp_path / "oe", sent), Options())
    np.testing.assert_allclose(found.t_s, np.array([1000, 1200, 1500, 1500, 3000]) / RATE_HZ, atol=1e-12, rtol=0)
    assert sorted(found.units.ids[found.unit].tolist()) == [0, 2, 2, 1001, 1001]
    assert found.quality == {"sorted": 2, "unsorted": 1}


def test_acquisition_files_that_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason="neo is not installed")
    with pytest.raises(DataError, match="has no spikes"):
        sorting.read(nev(tmp_path / "a.nev", []), Options())
    with pytest.raises(DataError, match="has 2 segments, each with a clock of its own"):  # it was set to 0 in between
        sorting.read(nev(tmp_path / "a.nev", [(100, 1, 1), (300_000, 1, 1), (50, 1, 1)]), Options())
    whole = (tmp_path / "a.nev").read_bytes()
    (tmp_path / "b.nev").write_bytes(whole[:100])
    with pytest.raises(DataError, match="cannot be read"):
        sorting.read(tmp_path / "b.nev", Options())
    (tmp_path / "c.pl2").write_bytes(b"")
    with pytest.raises(DataError, match=r"save it as .plx"):
        sorting.read(tmp_path / "c.pl2", Options())
    (tmp_path / "oe" / "recording1").mkdir(parents=True)
    (tmp_path / "oe" / "recording1" / "structure.oebin").write_text("{}")
    assert sorting.suits(tmp_path / "oe")
    with pytest.raises(DataError, match="no spikes of Open Ephys's binary format"):
        sorting.read(tmp_path / "oe", Options())


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(spikes.importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r"needs neo, which is not installed; pip install 'neds-rt\[neo\]'"):
        sorting.read(nev(tmp_path / "a.nev", [(1, 1, 1)]), Options())
