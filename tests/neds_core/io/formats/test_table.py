"""Tables of spikes, behaviour and trials, held to pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.io import load
from neds_core.io.formats import table
from neds_core.io.importing.options import Options

pandas: Any = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spikes of units 3 and 11, a speed and an angle at 50 Hz 10 s late, and 9 trials."""
    at, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    spikes = pandas.DataFrame({"time": np.sort(rng.uniform(0, 60, 900)), "unit": rng.choice([3, 11], 900)})
    spikes.to_csv(at / "spikes.csv", index=False)
    spikes.sample(frac=1, random_state=1).to_csv(at / "shuffled.tsv", index=False, sep="\t")
    spikes.rename(columns={"unit": "cluster_id"}).to_parquet(at / "spikes.parquet")
    spikes.assign(sample=np.rint(spikes.time * 30_000).astype(int)).drop(columns="time").to_csv(
        at / "samples.csv", index=False
    )
    t = np.arange(0, 40, 0.02)
    behaviour = {"t": t, "speed [cm/s]": np.abs(np.sin(t)), "head (deg)": (t * 50) % 360, "who": "mouse"}
    pandas.DataFrame(behaviour).to_csv(at / "behaviour.csv", index=False)
    start = np.arange(12.0, 48, 4)
    pandas.DataFrame({"start": start, "stop": start + 2, "side": list("lrlrlrlrl")}).to_csv(
        at / "trials.csv", index=False
    )
    return at


def taken(folder: Path, name: str, **options: Any) -> Session:
    return load(
        folder / name, behaviour=[{"file": str(folder / "behaviour.csv"), "offset_s": 10.0}],
        trials=str(folder / "trials.csv"), **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["spikes.csv", "shuffled.tsv", "spikes.parquet"])
def test_counts_and_behaviour_are_those_of_pandas(folder: Path, name: str) -> None:
    session = taken(folder, name)
    spikes = pandas.read_csv(folder / "spikes.csv")
    bins = (np.rint(spikes.time * 1e9).astype(int) // 20_000_000).to_numpy() - 499  # the first sample is at 10.00 s
    for u, unit in enumerate([3, 11]):
        mine = bins[(spikes.unit == unit).to_numpy()]
        want = np.bincount(mine[(mine >= 0) & (mine < session.n_bins)], minlength=session.n_bins)
        np.testing.assert_array_equal(session.counts[:, u], want)
    assert session.units.ids.tolist() == [3, 11]
    behaviour = pandas.read_csv(folder / "behaviour.csv")
    np.testing.assert_array_equal(session.values["speed"], behaviour["speed [cm/s]"].astype(np.float32))
    radians = np.radians(behaviour["head (deg)"].to_numpy())
    np.testing.assert_allclose(session.values["head_cos"], np.cos(radians), atol=1e-6)
    assert (session.spec("speed").unit, len(session.segments)) == ("cm/s", 9)
    assert session.spec("side").classes == ("l", "r")


def test_samples_are_refused_until_their_rate_is_known(folder: Path) -> None:
    with pytest.raises(DataError, match="looks like samples; say how many a second with --rate-hz"):
        taken(folder, "samples.csv")
    want = taken(folder, "spikes.csv")
    assert want.events is not None
    got = taken(folder, "samples.csv", rate_hz=30_000.0)
    assert got.events is not None
    np.testing.assert_allclose(got.events[0], want.events[0], atol=17_000)  # ns, half a sample


def test_it_is_read_piece_by_piece(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = taken(folder, "spikes.csv")
    for name in ("spikes.csv", "spikes.parquet"):
        monkeypatch.setattr(table, "ROWS", 7)
        np.testing.assert_array_equal(taken(folder, name).counts, whole.counts)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("time,unit\n", {}, "has no rows"),
        ("", {}, "cannot be read as a table"),
        ("0.1,3\n0.2,4\n", {}, "nothing there is called the time; say which with --name time=NAME, in Python"),
        ("time (s),x\n0.1,1\n", {}, "no column of units, so it looks like behaviour: .* with --behaviour"),
        ("time (frames),unit\n0.5,1\n", {}, "are in 'frames', which is none of s.* with --rate-hz"),
        ("time,t,unit\n0.1,0.1,1\n", {}, "time and t could each be the time"),
        ("time,unit\n0.1,1\n,1\n", {}, "1 of 2 times are NaN"),
        ("time,unit\n0.1,1\n0.2,\n", {}, "1 of 2 rows have no unit"),
        ("time,unit\n0.1,1\n0.2,a\n", {}, "unit ids are"),
        ("time,unit\n0.1,1.5\n", {}, "unit ids hold a fraction"),
        ("time,unit\nx,1\n", {}, "not numbers"),
        ("time,unit\n0.1,1\n", {"names": {"time": "when"}}, "has no 'when' for time; it has time, unit"),
        ("time,unit\n0.1,1\n", {"quality": "good"}, "says nothing of quality"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, options: dict[str, Any], says: str) -> None:
    (tmp_path / "spikes.csv").write_text(text)
    with pytest.raises((DataError, ConfigError), match=says):
        load(tmp_path / "spikes.csv", outputs=["none"], **options)


def test_a_parquet_that_is_cut_is_refused(folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "spikes.parquet"
    cut.write_bytes((folder / "spikes.parquet").read_bytes()[:-200])
    with pytest.raises(DataError, match="is no whole Parquet file"):
        load(cut)


def test_behaviour_in_samples_names_the_option_that_helps(folder: Path, tmp_path: Path) -> None:
    frames = pandas.read_csv(folder / "behaviour.csv").assign(t=lambda d: (d.t * 50).round().astype(int) + 500)
    frames.to_csv(tmp_path / "frames.csv", index=False)
    other = {"file": str(tmp_path / "frames.csv")}
    with pytest.raises(DataError, match="with --behaviour-rate-hz"):
        load(folder / "spikes.csv", behaviour=[other])
    got = load(folder / "spikes.csv", behaviour=[other | {"rate_hz": 50.0}])
    np.testing.assert_array_equal(got.values["speed"], taken(folder, "spikes.csv").values["speed"])


@pytest.mark.parametrize(
    ("column", "per_s", "name"),
    [
        ("time (s)", 1, ""), ("t [ms]", 1e3, ""), ("time_s", 1, ""), ("Timestamp (µs)", 1e6, ""),
        ("clock (ms)", 1e3, "clock"), ("clock (ms)", 1e3, "clock (ms)"), ("my clock (s)", 1, "my clock"),
    ],
)  # fmt: skip
def test_a_column_of_times_is_known_by_name_and_unit(
    folder: Path, tmp_path: Path, column: str, per_s: float, name: str
) -> None:
    """Behaviour is taken at the same times whatever its times are in, and a name is given with or without its unit."""
    behaviour = pandas.read_csv(folder / "behaviour.csv")
    behaviour.assign(t=behaviour.t * per_s).rename(columns={"t": column}).to_csv(tmp_path / "b.csv", index=False)
    other = {"file": str(tmp_path / "b.csv"), "offset_s": 10.0, "names": {"time": name} if name else {}}
    got, want = load(folder / "spikes.csv", behaviour=[other]), taken(folder, "spikes.csv", outputs=["speed"])
    assert want.n_bins == got.n_bins
    np.testing.assert_array_equal(got.values["speed"], want.values["speed"])


def test_a_time_of_behaviour_that_is_not_found_names_its_own_role(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("when,x\n0.1,1\n")
    says = r"with --name behaviour.time=NAME, in Python names={\"time\": NAME} beside its file \(it has when, x\)"
    with pytest.raises(ConfigError, match=says):
        load(folder / "spikes.csv", behaviour=[{"file": str(tmp_path / "b.csv")}])


def test_trials_in_ms_are_those_in_seconds(folder: Path, tmp_path: Path) -> None:
    trials = pandas.read_csv(folder / "trials.csv")
    ms = trials.assign(start=trials.start * 1e3).rename(columns={"start": "start (ms)", "stop": "stop_s"})
    ms.to_csv(tmp_path / "trials.csv", index=False)
    got, want = (table.trials(at / "trials.csv", Options()) for at in (tmp_path, folder))
    np.testing.assert_array_equal([got.start_s, got.stop_s], [want.start_s, want.stop_s])


def test_names_say_what_their_times_are_in(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("time_ms,unit\n" + "".join(f"{k},1\n" for k in range(0, 3000, 30)))
    session = load(tmp_path / "s.csv", outputs=["none"])
    assert session.events is not None
    assert np.diff(session.events[0]).tolist() == [30_000_000] * 99
