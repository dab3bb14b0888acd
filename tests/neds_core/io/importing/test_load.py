"""Which reader suits, what a missing library is answered with, and the keys of the page."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest

from neds_core.errors import ConfigError, DataError
from neds_core.io import load, nwb
from neds_core.io.importing.load import find
from neds_core.io.importing.options import Options
from neds_core.io.importing.recipe import Recipe

ROOT = Path(__file__).parents[4]
FORMATS = ROOT / "neds_core" / "io" / "formats"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ASKED = re.compile(r'library\("(\w+)[\w.]*", "(\w+)"\)')


def test_an_option_that_is_none_is_answered_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"load: .*bins.*; the options are bin_ms, outputs, trials"):
        load(tmp_path, bins=3)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.nwb does not exist; check the path"):
        load(str(tmp_path / "none.nwb"))


def test_two_probes_are_joined_to_the_last_spike(tmp_path: Path) -> None:
    """Two Phy folders; ids are counted apart, and each spike keeps its time."""
    rng, each = np.random.default_rng(0), {}
    for k, (name, rate) in enumerate((("imec0", 30_000), ("imec1", 25_000))):
        folder = tmp_path / name
        folder.mkdir()
        samples, clusters = np.sort(rng.integers(0, rate * 60, 700)), rng.choice([0, 4, 9], 700)
        np.save(folder / "spike_times.npy", samples)
        np.save(folder / "spike_clusters.npy", clusters)
        (folder / "params.py").write_text(f"sample_rate = {rate}\n")
        each |= {uid + k * 1_000_000: samples[clusters == uid] / rate for uid in (0, 4, 9)}
    places = tmp_path / "imec0", tmp_path / "imec1"
    found = find(places[0], Options(also=(str(places[1]),)))
    assert found.units.ids.tolist() == list(each)
    assert (np.diff(found.t_s) >= 0).all()
    for row, times in enumerate(each.values()):
        np.testing.assert_array_equal(found.t_s[found.unit == row], times)
    assert "units of 2 sources are joined" in found.notes[0]
    session = load(places[0], also=[str(places[1])], outputs=["none"])
    assert session.counts.sum() == 1400
    own = tmp_path / "own.nwb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynwb's of other libraries
        nwb.save(session, own, nwb.Origin(0))
        with pytest.raises(DataError, match=r"own.nwb holds more than spikes, and only spikes are joined"):
            load(places[0], also=[str(own)])


def test_a_probe_that_adds_nothing_is_refused(tmp_path: Path) -> None:
    """The same one twice, also as a copy; one on a clock far away; and one that is silent where behaviour is known."""
    rng = np.random.default_rng(0)
    for name, first in (("a", 0.0), ("b", 0.0), ("late", 5000.0), ("beyond", 50.0)):
        lines = [f"{t:.6f},{u}" for t, u in zip(np.sort(rng.uniform(first, 120 + first, 400)), range(400), strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["time,unit", *lines]))
    (tmp_path / "copy.csv").write_bytes((tmp_path / "a.csv").read_bytes())
    speed = [f"{k / 20},{k % 7}" for k in range(600)]
    (tmp_path / "speed.csv").write_text("\n".join(["time,speed", *speed]))
    a, taken = tmp_path / "a.csv", {"behaviour": [{"file": str(tmp_path / "speed.csv")}]}
    for name in ("a", "copy"):
        with pytest.raises(DataError, match=rf"{name}.csv holds the spikes of .*a.csv, each a second time"):
            load(a, also=[str(tmp_path / f"{name}.csv")], outputs=["none"])
    for options in ({"outputs": ["none"]}, taken):
        with pytest.raises(DataError, match=r"spikes of .*late.csv last from 50\d\d.* s and those of .*a.csv"):
            load(a, also=[str(tmp_path / "late.csv")], **options)
    with pytest.raises(DataError, match=r"beyond.csv has no spike in the session; put its times on the clock"):
        load(a, also=[str(tmp_path / "beyond.csv")], **taken)
    assert load(a, also=[str(tmp_path / "b.csv")], **taken).counts.any(0).sum() > 100


@pytest.mark.parametrize("offset_s", [0.0, -2.5])
def test_an_offset_moves_behaviour_and_no_trials(tmp_path: Path, offset_s: float) -> None:
    """And says so, as a table of trials is often of the computer that the behaviour is of."""
    (tmp_path / "spikes.csv").write_text("\n".join(["time,unit", *(f"{k / 10 + 0.01},1" for k in range(600))]))
    (tmp_path / "speed.csv").write_text("\n".join(["time,speed", *(f"{k / 20},{k % 7}" for k in range(600))]))
    (tmp_path / "trials.csv").write_text("start,stop\n5,6\n")
    behaviour = [{"file": str(tmp_path / "speed.csv"), "offset_s": offset_s}]
    given = msgspec.convert({"behaviour": behaviour, "trials": str(tmp_path / "trials.csv")}, Options)

    found = find(tmp_path / "spikes.csv", given)

    assert found.traces[0].t_s[0] == offset_s
    assert found.trials is not None
    assert found.trials.start_s.tolist() == [5.0]
    said = "times of trials.csv are not moved: they are taken as of the spikes' clock"
    assert (said in found.notes) == bool(offset_s)


def test_the_extra_that_a_reader_names_brings_its_library() -> None:
    """So the pip command in its sentence helps."""
    asked = [each for path in FORMATS.glob("*.py") for each in ASKED.findall(path.read_text(encoding="utf-8"))]
    assert len(asked) >= 5
    for module, extra in asked:
        assert any(re.match(rf"{module}\b", each) for each in EXTRAS[extra]), (module, extra)


def test_every_key_of_a_recipe_is_on_the_page_with_its_default() -> None:
    page = (ROOT / "docs" / "import.md").read_text(encoding="utf-8").partition("## `import.toml`")[2]
    rows = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \|", page, re.MULTILINE))
    said = {key: default for keys, default in rows.items() for key in re.findall(r"\w+", keys)}
    fields = msgspec.structs.fields(Recipe)
    assert set(said) == {field.name for field in fields}
    words = {None: "unset", (): "`[]`", "": '`""`'}
    for field in fields:
        if field.required:
            assert said[field.name] == "required"
        else:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            want = "`{}`" if default == {} else words.get(default, f"`{default}`")
            assert said[field.name] == want
