"""Which reader suits, what a missing library is answered with, and the keys of the page."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from neds_core.errors import ConfigError, DataError
from neds_core.io import load
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
