"""What is written as TOML is read again as it was, whatever its keys are called."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from neds_core import toml
from runtime.config import InputConfig, RigConfig

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEY = st.one_of(st.sampled_from(["wheel speed", "hand.x", "", "a-b_1", 'say "hi"', "größe", "\x7f"]), TEXT)
PLAIN = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT,
    st.dictionaries(KEY, st.integers(), max_size=2).map(lambda table: [table]),
)  # fmt: skip
VALUE = st.one_of(PLAIN, st.lists(PLAIN, max_size=3))
TREE = st.dictionaries(KEY, st.recursive(VALUE, lambda below: st.dictionaries(KEY, below, max_size=3)), max_size=4)


@given(TREE)
def test_what_is_written_is_read_again(tree: dict[str, Any]) -> None:
    assert tomllib.loads(toml.written(tree)) == tree


@given(st.dictionaries(KEY.filter(bool), TEXT, max_size=3))
def test_a_rig_whose_behaviours_need_quotes_is_read_again(behaviours: dict[str, str]) -> None:
    rig = RigConfig("rig", "c", InputConfig("s", behaviours=behaviours))
    assert toml.parse(toml.written(msgspec.to_builtins(rig)), RigConfig, "rig.toml") == rig


def test_a_key_stays_bare_where_it_may() -> None:
    assert toml.written({"a-b_1": {"wheel speed": 1, "none": None}}) == '\n[a-b_1]\n"wheel speed" = 1\n\n'


def test_nan_is_spelled_as_toml_spells_it() -> None:
    assert tomllib.loads(toml.written({"a": float("inf"), "b": -float("inf")})) == {
        "a": float("inf"),
        "b": -float("inf"),
    }
    assert str(tomllib.loads(toml.written({"a": float("nan")}))["a"]) == "nan"


def test_what_toml_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="TOML has no NoneType"):
        toml.written({"a": [None]})
