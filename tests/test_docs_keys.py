"""The tables of keys in rig.md, training.md and calibration.md are held to the structs, and their examples load."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from calibration.fitting.config import CalibrateConfig
from neds_core import toml as training
from neds_core.config import PretrainConfig, TrainConfig
from runtime import config as rigs
from runtime.config import RigConfig

ROOT = Path(__file__).parents[1]
RIG = (ROOT / "docs" / "rig.md").read_text(encoding="utf-8")
TRAIN = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
CALIBRATE = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
SHARED = ("model.", "masks.", "linear.")  # those of a training, with its defaults where the page names no other
UNITS = {"_ms": "ms", "_s": "s", "_hz": "Hz", "_bins": "bins"}


@dataclass(frozen=True)
class Key:
    """One key of a TOML file: `default` is its value, or None where it is required."""

    default: str
    range: str


def said(value: Any) -> str:
    """A default as the tables write it: a TOML value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(said(v) for v in value)}]"
    return repr(value)


def bounds(kind: Any) -> str:
    """The range of a type as the tables write it."""
    match kind:
        case inspect.BoolType():
            return "`true`, `false`"
        case inspect.LiteralType(values=values):
            return ", ".join(f'`"{v}"`' for v in sorted(map(str, values)))
        case inspect.StrType(pattern=pattern):
            return f"`{pattern}`" if pattern else "text"
        case inspect.VarTupleType(item_type=inspect.StructType()):
            return "list of tables"
        case inspect.VarTupleType(item_type=item):
            return bounds(item) if isinstance(item, inspect.VarTupleType) else f"each {bounds(item)}"
        case inspect.TupleType(item_types=items):
            return f"each {bounds(items[0])}"
        case inspect.DictType(value_type=value):
            return f"each {bounds(value)}"
        case inspect.IntType() | inspect.FloatType():
            return _number(kind)
        case inspect.UnionType(types=(item, inspect.NoneType())):
            return bounds(item)
    raise AssertionError(f"a new kind of key: {kind}")


def _number(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f"{kind.ge:.15g} to {kind.le:.15g}"
    ends = {"at least": kind.ge, "above": kind.gt, "at most": kind.le, "below": kind.lt}
    return ", ".join(f"{word} {end:.15g}" for word, end in ends.items() if end is not None)


def keys(kind: type[msgspec.Struct]) -> dict[str, Key]:
    """Every key below a struct, dotted."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return _below(described, "")


def _below(struct: inspect.StructType, prefix: str) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for field in struct.fields:
        name, kind = f"{prefix}{field.encode_name}", field.type
        if isinstance(kind, inspect.StructType):
            found |= _below(kind, f"{name}.")
            continue
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        words = {msgspec.NODEFAULT: "required", None: "unset"}
        known = isinstance(default, Hashable) and default in words
        found[name] = Key(words[default] if known else f"`{said(default)}`", bounds(kind))
        if isinstance(kind, inspect.VarTupleType) and isinstance(kind.item_type, inspect.StructType):
            found |= _below(kind.item_type, f"{name}.")
    return found


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading: key -> unit, default, range, what it does."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section[1].splitlines()]
    return {row[0].strip(" `"): row[1:] for row in rows if len(row) == 5 and row[0].lstrip().startswith("`")}


def one_and_many() -> dict[str, dict[str, Key]]:
    """The keys of `train.toml` by the heading that they stand under."""
    one, many = keys(TrainConfig), keys(PretrainConfig)
    return {
        "Keys of one recording and of many": {k: v for k, v in one.items() if k in many},
        "Keys of one recording": {k: v for k, v in one.items() if k not in many},
        "Keys of many recordings": {k: v for k, v in many.items() if k not in one},
    }


def of_calibration() -> dict[str, Key]:
    """The keys of `calibrate.toml` that are not those of a training, or have another default."""
    one, own = keys(TrainConfig), keys(CalibrateConfig)
    return {k: v for k, v in own.items() if not k.startswith(SHARED) or one[k] != v}


TABLES = [
    (RIG, "Keys", keys(RigConfig)),
    (CALIBRATE, "Keys", of_calibration()),
    *((TRAIN, heading, found) for heading, found in one_and_many().items()),
]
NAMES = ["rig", "calibration", *one_and_many()]
each_table = pytest.mark.parametrize(("page", "heading", "found"), TABLES, ids=NAMES)


@each_table
def test_the_table_has_every_key_and_no_other(page: str, heading: str, found: dict[str, Key]) -> None:
    assert set(table(page, heading)) == set(found)


@each_table
def test_the_table_has_the_defaults(page: str, heading: str, found: dict[str, Key]) -> None:
    assert {k: row[1] for k, row in table(page, heading).items()} == {k: v.default for k, v in found.items()}


@each_table
def test_the_table_has_the_ranges(page: str, heading: str, found: dict[str, Key]) -> None:
    def same(text: str) -> str:  # the order of alternatives is the page's
        return ", ".join(sorted(text.removeprefix("each ").split(", ")))

    assert {k: same(row[2]) for k, row in table(page, heading).items()} == {k: same(v.range) for k, v in found.items()}


@each_table
def test_the_table_has_the_unit_that_the_name_ends_in(page: str, heading: str, found: dict[str, Key]) -> None:
    wrong = {
        name: row[0]
        for name, row in table(page, heading).items()
        for ending, unit in UNITS.items()
        if name.endswith(ending) and row[0] != unit
    }
    assert wrong == {}


def test_both_kinds_of_training_share_their_defaults() -> None:
    """One table serves both."""
    one, many = keys(TrainConfig), keys(PretrainConfig)
    assert {k: one[k] for k in one.keys() & many.keys()} == {k: many[k] for k in one.keys() & many.keys()}


def examples(page: str) -> list[str]:
    """The TOML blocks of a page."""
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)


def set_keys(text: str, known: set[str]) -> set[str]:
    """Those of the known keys that a TOML text sets."""
    found: set[str] = set()

    def walk(value: Any, name: str) -> None:
        if name in known:
            found.add(name)
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else key)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, name)

    walk(tomllib.loads(text), "")
    return found


def test_the_rig_example_sets_every_key() -> None:
    known = set(keys(RigConfig))
    assert set_keys(examples(RIG)[0], known) == known


def test_the_training_example_sets_every_key() -> None:
    known = set(keys(TrainConfig))
    assert set_keys(examples(TRAIN)[0], known) == known


def test_the_example_of_many_recordings_sets_every_key_of_its_own() -> None:
    known = set(one_and_many()["Keys of many recordings"])
    assert set_keys(examples(TRAIN)[1], known) == known


def test_the_calibration_example_sets_every_key_of_its_own() -> None:
    known = set(of_calibration())
    assert set_keys(examples(CALIBRATE)[0], known) == known


def test_the_rig_example_loads(tmp_path: Path) -> None:
    (tmp_path / "session.npz").touch()
    (tmp_path / "rig.toml").write_text(examples(RIG)[0])

    assert rigs.load(tmp_path / "rig.toml").rig == "rig-3"


def test_the_training_example_loads(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(examples(TRAIN)[0])

    assert training.load(tmp_path / "train.toml", TrainConfig).outputs == ("wheel_speed", "choice")


def test_the_example_of_many_recordings_loads(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(examples(TRAIN)[1])

    assert training.load(tmp_path / "train.toml", PretrainConfig).fit.sessions_per_step == 2


def test_the_calibration_example_has_the_defaults() -> None:
    """It may be copied whole."""
    found = training.parse(examples(CALIBRATE)[0], CalibrateConfig, "the page")

    assert msgspec.structs.replace(found, outputs=(), select=()) == CalibrateConfig()


@pytest.mark.parametrize("change", [lambda row: row.replace("`5.0`", "`6.0`"), lambda row: row.replace("1000", "999")])
def test_a_wrong_row_is_found(change: Callable[[str], str]) -> None:
    """The parser of tables does not pass everything."""
    name = "bins.lateness_ms"
    _, default, span, _ = table(change(RIG), "Keys")[name]
    assert Key(default, span) != keys(RigConfig)[name]
