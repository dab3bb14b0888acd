"""`neds-rt import`: what it prints, what it writes, and that `import.toml` makes the same session again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core.data import session_file
from neds_core.io.importing import recipe

EXAMPLES = Path(__file__).parents[3] / "examples"
pandas: Any = pytest.importorskip("pandas")
Call, Fails = Callable[..., int], Callable[..., str]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with spikes, and behaviour whose clock is 3 s behind."""
    rng = np.random.default_rng(0)
    spikes = {"time": np.sort(rng.uniform(0, 60, 1200)), "unit": rng.choice([4, 8], 1200)}
    pandas.DataFrame(spikes).to_csv(tmp_path / "spikes.csv", index=False)
    t = np.arange(0, 50, 0.01)
    pandas.DataFrame({"t": t, "x [cm]": np.sin(t), "odd": np.where(t < 10, np.nan, t)}).to_csv(
        tmp_path / "behaviour.csv", index=False
    )
    return tmp_path


def test_it_says_what_it_found_and_can_be_repeated(
    call: Call, lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab)  # paths of a command line start from where it is given, those of a recipe from the recipe
    out = Path("day1") / "session.npz"
    given = ("--behaviour", "behaviour.csv", "--offset", "3", "--bin-ms", "10", "--outputs", "x", "--outputs", "x:rate")
    assert call("import", "spikes.csv", "--out", out, *given) == 0
    said = capsys.readouterr().out
    for text in (
        "spikes (table): 2 units, 1200 spikes",
        "trace     x: 100 Hz, 3.000 to 52.990 s, unit cm, -1 to 1, 0.0% NaN",
        "trace     odd: 100 Hz, 3.000 to 52.990 s, unit not said, 10 to 49.99, 20.0% NaN",
        "proposed  --outputs x --outputs odd",
        "lie outside the behaviour's time",
        "taken     2 units, 5000 bins of 10 ms (50.0 s), 1 segment",
        "bin 0     starts at 2.990000 s of the source's clock",
        "output    x_rate: -0.9996 to 0.9996 cm/s",
    ):
        assert text in said

    first = session_file.load(out)
    assert recipe.load(lab / "day1" / "import.toml").outputs == ("x", "x:rate")
    out.unlink()
    monkeypatch.chdir(lab.parent)
    assert call("import", lab / "day1" / "import.toml") == 0
    again = session_file.load(lab / out)
    np.testing.assert_array_equal(again.counts, first.counts)
    assert (again.specs, again.units.sha256) == (first.specs, first.units.sha256)
    for name in first.values:
        np.testing.assert_array_equal(again.values[name], first.values[name])


def test_a_folder_of_recipe_and_recordings_can_be_moved(call: Call, lab: Path) -> None:
    """Paths below the recipe's folder are written from there."""
    assert call("import", lab / "spikes.csv", "--out", lab / "session.npz", "--outputs", "none") == 0
    text = (lab / "import.toml").read_text()
    assert 'source = "spikes.csv"\nout = "session.npz"\n' in text
    assert "# spikes (table): 2 units, 1200 spikes" in text
    moved = lab.rename(lab.with_name("moved"))
    (moved / "session.npz").unlink()
    assert call("import", moved / "import.toml") == 0
    assert session_file.load(moved / "session.npz").counts.sum() == 1200


def test_two_probes_are_imported_again_from_the_recipe(call: Call, fails: Fails, tmp_path: Path) -> None:
    for k, name in enumerate(("imec0", "imec1")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "spike_times.npy", np.arange(100) * 9001 + k)
        np.save(tmp_path / name / "spike_clusters.npy", np.arange(100) % 3)
        (tmp_path / name / "params.py").write_text("sample_rate = 30000\n")
    places, out = (tmp_path / "imec0", tmp_path / "imec1"), tmp_path / "session.npz"
    assert call("import", *places, "--out", out, "--outputs", "none", "--hold-s", "2", "--derivative-ms", "50") == 0
    first = session_file.load(out)
    assert first.units.ids.tolist() == [0, 1, 2, 1_000_000, 1_000_001, 1_000_002]
    made = recipe.load(tmp_path / "import.toml")
    assert (made.hold_s, made.derivative_ms, made.also) == (2.0, 50.0, (str(places[1].resolve()),))
    assert 'also = ["imec1"]' in (tmp_path / "import.toml").read_text()
    assert call("import", tmp_path / "import.toml") == 0
    np.testing.assert_array_equal(session_file.load(out).counts, first.counts)
    assert "says what is taken; leave" in fails("import", tmp_path / "import.toml", places[1])


def test_behaviour_on_another_clock_ends_with_3_and_the_offset(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given with the wrong sign; the session is written all the same."""
    session = session_file.load(EXAMPLES / "mouse-head-direction" / "session.npz")
    assert session.events is not None
    t_ns, unit = session.events
    pandas.DataFrame({"time": t_ns * 1e-9 + 100.0, "unit": unit}).to_parquet(tmp_path / "spikes.parquet")
    t = (np.arange(session.n_bins) + 1) * 0.02 + 100.0 + 12.5
    pandas.DataFrame({"time": t, "c": session.values["head_direction_cos"]}).to_csv(tmp_path / "b.csv", index=False)
    given = ("--out", tmp_path / "s.npz", "--behaviour", tmp_path / "b.csv")

    assert call("import", tmp_path / "spikes.parquet", *given, "--offset", "12.5") == 3
    assert "give its true --offset, near -13 (it was 12.5)" in capsys.readouterr().err
    assert len(session_file.load(tmp_path / "s.npz").units) == 15
    assert call("import", tmp_path / "spikes.parquet", *given, "--offset", "-12.5") == 0
    assert "3 to 60 s away; an error below 3 s is not seen" in capsys.readouterr().err


def test_what_is_wrong_is_refused(fails: Fails, call: Call, lab: Path) -> None:
    spikes, out = lab / "spikes.csv", lab / "session.npz"
    assert "--out is missing" in fails("import", spikes)
    assert "does not end in .npz" in fails("import", spikes, "--out", lab / "a.nwb")
    assert "does not exist" in fails("import", lab / "none.nwb", "--out", out)
    (lab / "notes.pdf").write_text("")
    assert "is in none of the formats that are read" in fails("import", lab / "notes.pdf", "--out", out)
    assert "bin_ms" in fails("import", spikes, "--out", out, "--bin-ms", "500")
    assert "is not ROLE=NAME" in fails("import", spikes, "--out", out, "--name", "time")
    assert "--offset is there 1 times and --behaviour 0" in fails("import", spikes, "--out", out, "--offset", "1")
    assert "no behaviour and no trials" in fails("import", spikes, "--out", out)
    assert not out.exists()
    assert call("import", spikes, "--out", out, "--outputs", "none") == 0
    assert "says what is taken; change it there" in fails("import", lab / "import.toml", "--bin-ms", "10")
    assert call("import", spikes, "--out", lab / "other.npz", "--outputs", "none") == 0
    assert call("import", lab / "other.import.toml") == 0
    (lab / "third.import.toml").write_text((lab / "other.import.toml").read_text())
    assert "repeats the import of" in fails("import", spikes, "--out", lab / "third.npz", "--outputs", "none")
    (lab / "import.toml").write_text((lab / "import.toml").read_text().replace("bin_ms", "bin_mss"))
    assert "bin_mss: unknown key, did you mean 'bin_ms'?" in fails("import", lab / "import.toml")
