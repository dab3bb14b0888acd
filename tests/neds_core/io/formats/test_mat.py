"""MATLAB files of both kinds, held to what SciPy and h5py wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.errors import ConfigError, DataError
from neds_core.io import load

scipy_io: Any = pytest.importorskip("scipy.io")
h5py: Any = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)
EACH = [np.sort(RNG.uniform(0, 20, n)) for n in (200, 0, 350)]
TIMES = np.arange(1, 19, 0.01)
START = np.arange(2.0, 18, 2)
NAMES = {"trace_time": "t", "start": "trial.start", "stop": "trial.stop"}


def v7(path: Path, **more: Any) -> Path:
    cells = np.empty((3, 1), object)
    for k, times in enumerate(EACH):
        cells[k, 0] = times[:, None]
    trial = {"start": START, "stop": START + 1, "side": np.arange(8) % 2}
    held = {"spikes": cells, "t": TIMES[:, None], "xy": np.stack([np.sin(TIMES), np.cos(TIMES)]), "trial": trial}
    scipy_io.savemat(path, held | more)
    return path


def v73(path: Path) -> Path:
    """As MATLAB lays it out: 512 bytes of its own, axes reversed, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_dataset("spikes", (1, 3), dtype=h5py.ref_dtype)
        for k, times in enumerate(EACH):
            item = file.create_dataset(f"#refs#/{k}", data=times[None] if len(times) else np.zeros(2, np.uint64))
            if not len(times):
                item.attrs["MATLAB_empty"] = np.uint8(1)
            cells[0, k] = item.ref
        file["t"], file["xy"] = TIMES[None], np.stack([np.sin(TIMES), np.cos(TIMES)]).T
        for name, values in (("start", START), ("stop", START + 1), ("side", np.arange(8) % 2)):
            file[f"trial/{name}"] = values[None].astype(float)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(128))
    return path


@pytest.mark.parametrize("write", [v7, v73])
def test_cells_traces_and_trials(write: Any, tmp_path: Path) -> None:
    session = load(write(tmp_path / "day.mat"), names=NAMES)
    for u, times in enumerate(EACH):
        bins = np.rint(times * 1e9).astype(np.int64) // 20_000_000 - 49  # the first sample is on the edge at 1 s
        want = np.bincount(bins[(bins >= 0) & (bins < session.n_bins)], minlength=session.n_bins)
        np.testing.assert_array_equal(session.counts[:, u], want)
    assert session.units.ids.tolist() == [1, 2, 3]
    edges = np.minimum(1.0 + np.arange(session.n_bins) * 0.02, TIMES[-1])
    np.testing.assert_allclose(session.values["xy_0"], np.sin(edges), atol=1e-6)
    np.testing.assert_allclose(session.values["xy_1"], np.cos(edges), atol=1e-6)
    assert (len(session.segments), session.spec("trial_side").classes) == (8, ("0", "1"))


def test_two_vectors_are_spikes_too(tmp_path: Path) -> None:
    t = np.sort(RNG.uniform(0, 9, 300))
    path = v7(tmp_path / "day.mat", times=t, clu=RNG.integers(4, 6, 300))
    session = load(path, names={"time": "times", "unit": "clu"}, outputs=["none"])
    assert (session.units.ids.tolist(), int(session.counts.sum())) == ([4, 5], 300)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"spikes": "nothing"}, "'nothing' is no cell array in .*; there is spikes, t, xy, trial.start"),
        ({"time": "t", "unit": "u"}, "has no 'u' for unit; it has spikes, t, xy"),
        ({"time": "t", "unit": "trial.side"}, "t has 1800 values and trial.side 8"),
        ({"trace_time": "xy"}, "'xy' is no vector"),
    ],
)
def test_a_wrong_name_is_answered_with_those_there(tmp_path: Path, names: dict[str, str], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says):
        load(v7(tmp_path / "day.mat"), names=names)


def test_two_cell_arrays_are_told_apart_by_name(tmp_path: Path) -> None:
    other = np.empty((1, 1), object)
    other[0, 0] = np.array([[0.5]])
    path = v7(tmp_path / "day.mat", licks=other)
    with pytest.raises(ConfigError, match="has the cell arrays spikes, licks; say which with --name spikes=NAME"):
        load(path)
    assert int(load(path, names={"spikes": "licks"}, outputs=["none"]).counts.sum()) == 1


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    for write in (v7, v73):
        path = write(tmp_path / "day.mat")
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(DataError, match=r"is no whole .mat file .*; save it again"):
            load(path)
