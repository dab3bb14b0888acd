"""Traces are drawn to the dot, and their axis to the column."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from runtime.views.glyphs import Cells, Frame, axis, between, layered, line

BLANK = "\u2800"


def lines(cells: Cells) -> list[str]:
    return [text.plain for text in layered([(cells, "default")])]


def trace(values: Sequence[float | None], width: int = 10) -> list[str]:
    """One point to a column of dots, over [0, 1]."""
    points = [(i * 10, value) for i, value in enumerate(values)]
    return lines(line(points, Frame(points[-1][0], 20 * width, 0.0, 1.0, width)))


def test_a_trace_runs_from_bottom_to_top() -> None:
    assert trace([0.0] * 20) == [BLANK * 10, "⣀" * 10]
    assert trace([1.0] * 20) == ["⠉" * 10, BLANK * 10]
    assert trace([0.0] * 19 + [1.0]) == [BLANK * 9 + "⢸", "⣀" * 9 + "⣸"]  # joined by a line


def test_a_null_is_a_gap_and_is_not_bridged() -> None:
    upper, lower = trace([0.0] * 10 + [None] + [1.0] * 9)

    assert lower == "⣀" * 5 + BLANK * 5
    assert upper == BLANK * 5 + "⠈" + "⠉" * 4


def test_a_trace_leaves_on_the_left() -> None:
    points = [(0, 1.0)]
    upper = {right: lines(line(points, Frame(right, 200, 0.0, 1.0, 10)))[0] for right in (0, 190, 200)}
    assert upper == {0: BLANK * 9 + "⠈", 190: "⠁" + BLANK * 9, 200: BLANK * 10}


def test_a_band_is_stippled_where_both_its_edges_are_known() -> None:
    """Each second dot, up to the edges; over a null there is none."""
    low = [(i * 10, None if 8 <= i < 12 else 0.0) for i in range(20)]
    high = [(t, None if value is None else 4 / 7) for t, value in low]
    assert lines(between(low, high, Frame(190, 200, 0.0, 1.0, 10))) == ["⡀⡀⡀⡀⠀⠀⡀⡀⡀⡀", "⡪⡪⡪⡪⠀⠀⡪⡪⡪⡪"]


def test_a_cell_shows_the_uppermost_trace_that_has_dots_in_it() -> None:
    """In its colour: what is decoded over what is measured, over the band."""
    frame = Frame(190, 200, 0.0, 1.0, 10)
    low, high = ([(i * 10, level) for i in range(20)] for level in (0.0, 1.0))
    half = line(low[:10], frame)
    upper, lower = layered([(half, "red"), (line(high[4:], frame), "green"), (between(low, high, frame), "blue")])

    assert [(span.start, span.end, span.style) for span in upper.spans] == [(0, 2, "blue"), (2, 10, "green")]
    assert [(span.start, span.end, span.style) for span in lower.spans] == [(0, 5, "red"), (5, 10, "blue")]


@pytest.mark.parametrize(
    ("width", "lead_ms", "says"),
    [
        (60, 0, "└-10 s   -8┘         -6┘         -4┘         -2┘        now┘"),
        (20, 0, "└-10 s   -4┘    now┘"),
        (60, 60, "└-9.94 s -8┘         -6┘         -4┘         -2┘ now +60 ms┘"),
        (60, 2000, "└-8 s    -6┘         -4┘         -2┘        now┘   +2000 ms┘"),
    ],
)
def test_the_axis_says_how_long_before_now(width: int, lead_ms: float, says: str) -> None:
    """Each label ends at its tick; with a lead the right end lies after now."""
    said = axis(Frame(0, 10_000_000_000, 0.0, 1.0, width), round(lead_ms * 1e6))
    assert len(said) == width
    assert said == says


@given(width=st.integers(1, 200), lead_ms=st.integers(0, 2000))
def test_an_axis_is_as_wide_as_its_traces(width: int, lead_ms: int) -> None:
    said = axis(Frame(0, 10_000_000_000, 0.0, 1.0, width), lead_ms * 1_000_000)
    assert len(said) == width
    assert width < 18 or "now" in said
