"""A Phy folder is read to the last spike; what does not fit together is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neds_core.errors import ConfigError, DataError, NedsError
from neds_core.io.formats import phy
from neds_core.io.importing.grid import make
from neds_core.io.importing.options import Options

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "monkey-neuropixels-ks4" / "te8922"
INFO = "cluster_id\tKSLabel\tdepth\tgroup\tn_spikes\tregion\n"
SAMPLES = np.array([0, 30, 30, 45_000, 60_000, 60_000, 90_000], np.uint64)
CLUSTERS = np.array([7, 2, 7, 2, 300, 300, 7], np.uint32)  # 300 has a spike twice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clusters at 30 kHz: 2 good by hand, 7 good by Kilosort, 300 mua by hand against Kilosort."""
    np.save(tmp_path / "spike_times.npy", SAMPLES[:, None])  # Kilosort 2.5 writes a column
    np.save(tmp_path / "spike_clusters.npy", CLUSTERS)
    (tmp_path / "params.py").write_text("dat_path = r'c:\\raw.bin'\nn_channels_dat = 385\nsample_rate = 30000.\n")
    (tmp_path / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tgood\n300\tmua\n")
    (tmp_path / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n2\tmua\n7\tgood\n300\tgood\n")
    rows = "2\tmua\t120.0\tgood\t2\tCA1\n7\tgood\t\t\t3\t\n300\tgood\t80.5\tmua\t2\tVISp\n"
    (tmp_path / "cluster_info.tsv").write_text(INFO + rows)
    return tmp_path


def test_spikes_labels_depths_and_regions(folder: Path) -> None:
    found = phy.read(folder, Options())
    np.testing.assert_array_equal(found.t_s, SAMPLES / 30_000)
    np.testing.assert_array_equal(found.units.ids[found.unit], CLUSTERS)
    assert found.units.ids.tolist() == [2, 7, 300]
    assert found.units.region.tolist() == ["CA1", "?", "VISp"]
    np.testing.assert_array_equal(found.units.depth_um, np.array([120.0, np.nan, 80.5], np.float32))
    assert found.quality == {"good": 2, "mua": 1}
    assert found.notes == ()
    assert found.clock


def test_units_of_one_label(folder: Path) -> None:
    found = phy.read(folder, Options(quality="good"))
    assert found.units.ids.tolist() == [2, 7]
    assert found.unit.tolist() == [1, 0, 1, 0, 1]
    assert found.quality == {"good": 2, "mua": 1}


def test_noise_that_is_taken_is_said(folder: Path) -> None:
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tnoise\n7\tgood\n300\tmua\n")
    said = "1 of 3 units is labelled noise and is taken; leave it out with --quality good"
    assert phy.read(folder, Options()).notes == (said,)
    assert phy.read(folder, Options(quality="good")).notes == ()


def test_labels_that_kilosort_writes_as_groups(folder: Path) -> None:
    """Kilosort 4 names the column of cluster_group.tsv KSLabel; what nobody labelled is unsorted."""
    (folder / "cluster_info.tsv").unlink()
    (folder / "cluster_KSLabel.tsv").unlink()
    (folder / "cluster_group.tsv").write_text("cluster_id\tKSLabel\n2\tgood\n300\tmua\n")
    found = phy.read(folder, Options())
    assert found.quality == {"good": 1, "mua": 1, "unsorted": 1}
    assert found.units.region.tolist() == ["?"] * 3


def test_spikes_out_of_order_are_sorted_and_told(folder: Path) -> None:
    np.save(folder / "spike_times.npy", SAMPLES[::-1])
    np.save(folder / "spike_clusters.npy", CLUSTERS[::-1])
    found = phy.read(folder, Options())
    np.testing.assert_array_equal(found.t_s, SAMPLES / 30_000)
    assert found.notes[0] == "spike_times.npy steps back 4 times; the spikes were sorted by time"


def test_samples_are_refused_until_the_rate_is_known(folder: Path) -> None:
    """Of params.py, or of the option; never of both where they differ."""
    with pytest.raises(ConfigError, match=r"--rate-hz 25000: .*params.py says 30000"):
        phy.read(folder, Options(rate_hz=25_000))
    (folder / "params.py").unlink()
    with pytest.raises(ConfigError, match=r"samples and there is no params\.py .*--rate-hz 30000"):
        phy.read(folder, Options())
    np.testing.assert_array_equal(phy.read(folder, Options(rate_hz=25_000)).t_s, SAMPLES / 25_000)


def test_params_are_read_and_never_run(folder: Path) -> None:
    trap = folder / "trap"
    (folder / "params.py").write_text(f"open({str(trap)!r}, 'w')\nsample_rate = 20000\n")
    assert phy.read(folder, Options()).t_s[-1] == 4.5
    assert not trap.exists()


@pytest.mark.parametrize(
    "text", ["sample_rate = 3e4 * 1\n", "sample_rate = True\n", "x = 1\n", "sample_rate = -1\n", "="]
)
def test_a_rate_that_is_no_number_is_refused(folder: Path, text: str) -> None:
    (folder / "params.py").write_text(text)
    with pytest.raises(DataError, match=r"write sample_rate = 30000.0"):
        phy.read(folder, Options())


def _save(name: str, values: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / name, values)


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_save("spike_times.npy", SAMPLES[:5]), "spike_times.npy has 5 spikes, spike_clusters.npy has 7"),
        (_save("spike_times.npy", SAMPLES[:0]), "is empty"),
        (_save("spike_times.npy", SAMPLES / 30_000), "holds fractions, so times in seconds"),
        (_save("spike_times.npy", np.r_[np.nan, SAMPLES[1:]]), "hold a fraction, NaN"),
        (_save("spike_times.npy", SAMPLES.astype(np.int64) - 1), "has 1 negative samples"),
        (_save("spike_times.npy", np.zeros((7, 2))), r"has the shape \(7, 2\), not \(n,\)"),
        (_save("spike_clusters.npy", np.full(7, "a")), "are text"),
        (lambda folder: (folder / "spike_clusters.npy").unlink(), "spike_clusters.npy is missing"),
        (lambda folder: (folder / "spike_times.npy").write_bytes(b"\x93NUMPY"), "cannot be read"),
        (_write("cluster_info.tsv", INFO + "7\tgood\t\t\t4\t\n"), "counts 4 spikes of cluster 7, .* has 3; save"),
        (_write("cluster_info.tsv", INFO + "7\tgood\tdeep\t\t3\t\n"), "depth 'deep' of cluster 7"),
        (_write("cluster_group.tsv", "group\ngood\n"), "has no column cluster_id"),
        (_write("cluster_group.tsv", "cluster_id\tgroup\n7\tgood\n7\tmua\n"), "cluster 7 is there twice"),
        (_write("cluster_group.tsv", "cluster_id\tgroup\nx\tgood\n"), "cluster_id 'x' is no whole number"),
        (lambda folder: (folder / "cluster_group.tsv").write_bytes(b"\xff\xfe\x00"), "tsv cannot be read"),
    ],
)  # fmt: skip
def test_it_is_refused(folder: Path, change: Callable[[Path], object], said: str) -> None:
    change(folder)
    with pytest.raises(NedsError, match=said):
        phy.read(folder, Options())


def test_a_quality_that_no_unit_has_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no unit has the quality 'best'; there is 'good', 'mua'"):
        phy.read(folder, Options(quality="best"))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the published sorting is not at {DATA}")
def test_a_published_sorting_equals_its_arrays_to_the_last_spike() -> None:
    """79 s of a macaque's Neuropixels probe by Kilosort 4, read with NumPy alone; it has no params.py."""
    samples, clusters = (np.load(DATA / f"spike_{name}.npy") for name in ("times", "clusters"))
    with pytest.raises(ConfigError, match="say how many a second"):
        phy.read(DATA, Options())
    found = phy.read(DATA, Options(rate_hz=30_000))
    np.testing.assert_array_equal(found.t_s, samples / 30_000)
    np.testing.assert_array_equal(found.units.ids[found.unit], clusters)
    assert len(found.units) == len(set(clusters.tolist())) == 311
    pairs = set(zip(samples.tolist(), clusters.tolist(), strict=True))
    made = make(found, Options(outputs=("none",)))
    assert int(made.session.counts.sum()) == len(samples) == 99_519
    assert f"{len(samples) - len(pairs)} spikes are there twice" in " ".join(made.notes)  # also with others in between
