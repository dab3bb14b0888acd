"""The unit table of a stream that no checkpoint knows: taken where it is the one that its hash says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pylsl
import pytest
from hypothesis import given, strategies as st

from neds_core.data.session import UnitTable
from neds_core.errors import StreamError
from runtime.io.lsl_description import Declared, Description, Unit, declared, describe_channel, unit_rows
from runtime.io.unit_maps import of_rows, table

regions = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=5)
depths = st.none() | st.floats(-9_999, 9_999, width=32)


def description(rows: tuple[Unit, ...], sha: str) -> Description:
    return Description("events_unit", "live", True, True, sha, 100.0, rows)


@given(ids=st.lists(st.integers(-5, 10**9), min_size=1, max_size=6, unique=True), data=st.data())
def test_a_table_is_what_was_described(ids: list[int], data: st.DataObject) -> None:
    """Depths to a tenth of a micrometre, as the hash has them."""
    n = len(ids)
    found = [data.draw(st.lists(each, min_size=n, max_size=n)) for each in (regions, depths)]
    depth = np.array([np.nan if d is None else d for d in found[1]], np.float32)
    units = UnitTable(np.array(ids), np.array(found[0], np.str_), depth)

    got = table("s", description(unit_rows(units), units.sha256))

    assert got.sha256 == units.sha256
    np.testing.assert_array_equal(got.ids, units.ids)
    assert got.region.tolist() == units.region.tolist()
    np.testing.assert_allclose(got.depth_um, units.depth_um, atol=0.051)  # a tenth, rounded, in float32
    assert unit_rows(of_rows(unit_rows(units))) == unit_rows(units)


ROWS = (Unit("3", "ca1", "nan"), Unit("10", "vis", "20.0"))
SHA = of_rows(ROWS).sha256


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ((), "sends no unit table, so its units have no identity"),
        ((ROWS[0], Unit("10a", "vis", "20.0")), "has a unit table that cannot be read"),
        ((ROWS[0], Unit("10", "vis", "deep")), "has a unit table that cannot be read"),
        ((ROWS[0], ROWS[0]), "sends a source_id twice"),
        ((ROWS[0], Unit("10", "vis")), "does not give its unit_map_sha256; send depth_um of each unit"),
        (ROWS[::-1], "does not give its unit_map_sha256"),
    ],
)
def test_a_table_that_says_not_who_the_units_are_is_refused(rows: tuple[Unit, ...], why: str) -> None:
    with pytest.raises(StreamError, match=why):
        table("s", description(rows, SHA))


def test_depths_that_nobody_knows_need_not_be_sent() -> None:
    units = of_rows([("3", "ca1", "nan"), ("10", "vis", "nan")])
    rows = tuple(Unit(row.source_id, row.region) for row in unit_rows(units))
    assert table("s", description(rows, units.sha256)).sha256 == units.sha256


@pytest.fixture
def info() -> Callable[..., pylsl.StreamInfo]:
    """A stream's description with these channels."""

    def make(**channels: Declared) -> pylsl.StreamInfo:
        made = pylsl.StreamInfo("s", "Behaviour", len(channels), 100.0, pylsl.cf_float32, "s")
        for label, said in channels.items():
            describe_channel(made, label, said)
        return made

    return make


def test_each_channel_says_what_it_is(info: Callable[..., pylsl.StreamInfo]) -> None:
    x, y = Declared("mm/s", "signed", "", 0.0), Declared(filter="boxcar 60 ms", filter_delay_ms=30.0)
    made = info(x=x, y=y)
    assert [declared(made, k) for k in (0, 1, 2)] == [x, y, Declared()]


@pytest.mark.parametrize(("key", "text"), [("filter_delay_ms", "a little"), ("future_ms", "-5"), ("future_ms", "inf")])
def test_ms_that_are_none_are_refused(info: Callable[..., pylsl.StreamInfo], key: str, text: str) -> None:
    made = info(x=Declared("mm"))
    made.desc().child("channels").child("channel").append_child_value(key, text)
    with pytest.raises(StreamError, match=f"stream 's' declares {key} '{text}'; give a number"):
        declared(made, 0)
