"""Large letters and running traces out of Unicode blocks and braille."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from runtime.views.model import Points

TRACE_NS = 6_000_000_000
TRACE_COLUMNS = 120
ROWS = 2  # of text that a trace takes; a braille cell is 2 x 4 dots
FONT = {
    "A": ".#. #.# ### #.# #.#", "C": ".## #.. #.. #.. .##", "D": "##. #.# #.# #.# ##.", "E": "### #.. ##. #.. ###",
    "F": "### #.. ##. #.. #..", "G": ".## #.. #.# #.# .##", "U": "#.# #.# #.# #.# ###",
    "H": "#.# #.# ### #.# #.#", "I": "### .#. .#. .#. ###", "L": "#.. #.. #.. #.. ###", "M": "#.# ### ### #.# #.#",
    "N": "##. #.# #.# #.# #.#", "O": "### #.# #.# #.# ###", "P": "##. #.# ##. #.. #..", "R": "##. #.# ##. #.# #.#",
    "S": ".## #.. .#. ..# ##.", "T": "### .#. .#. .#. .#.", "V": "#.# #.# #.# #.# .#.", "W": "#.# #.# ### ### #.#",
    "Y": "#.# #.# .#. .#. .#.",
}  # fmt: skip


def big(word: str) -> str:
    """A word in letters three rows high."""
    letters = [FONT[letter].split() for letter in word]
    pixels = [".".join(letter[y] for letter in letters) for y in range(5)] + ["." * (4 * len(word) - 1)]
    glyphs = {"..": " ", "#.": "▀", ".#": "▄", "##": "█"}
    rows = [zip(pixels[y], pixels[y + 1], strict=True) for y in (0, 2, 4)]
    return "\n".join("".join(glyphs[a + b] for a, b in row) for row in rows)


def braille(
    points: Iterable[tuple[int, float | None]],
    right_ns: int,
    span_ns: int,
    low: float,
    high: float,
    width: int,
    edges: Sequence[Iterable[tuple[int, float | None]]] = (),
) -> list[str]:
    """`ROWS` lines of `width` cells: points (t_ns, value) of the span_ns before right_ns, scaled from low to high.

    A column of dots that holds a null stays empty, so that a gap of one bin is seen. edges: of a band, dotted.
    """  # fmt: skip
    column_ns = span_ns // (2 * width)
    newest = right_ns // column_ns  # columns are fixed in time, so that a trace scrolls without shimmering
    top = 4 * ROWS - 1
    cells = [[0] * width for _ in range(ROWS)]

    def levels_of(trace: Iterable[tuple[int, float | None]]) -> dict[int, list[int | None]]:
        found: dict[int, list[int | None]] = {}
        for t_ns, value in trace:
            level = None if value is None else round((value - low) / (high - low) * top)
            found.setdefault(t_ns // column_ns - newest + 2 * width - 1, []).append(level)
        return found

    def draw(x: int, levels: Iterable[int]) -> None:
        for level in levels:
            row, dot = divmod(top - level, 4)
            cells[row][x // 2] |= (0x40 << x % 2) if dot == 3 else 1 << (dot + 3 * (x % 2))

    columns, before = levels_of(points), None
    for x in range(2 * width):
        levels = [level for level in columns.get(x, ()) if level is not None]
        if len(levels) != len(columns.get(x, ())) or not levels:
            before = None
            continue
        joined = levels if before is None else [*levels, before]
        draw(x, range(min(joined), max(joined) + 1))
        before = levels[-1]
    for trace in edges:
        for x, found in levels_of(trace).items():
            if 0 <= x < 2 * width and (x + newest) % 4 == 0:  # fixed in time, as the columns are
                draw(x, [level for level in found if level is not None][-1:])
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


@dataclass(frozen=True, slots=True)
class Trace:
    """One running trace, as wide as it may be. edges: of a band around it."""

    points: Points
    right_ns: int
    low: float
    high: float
    style: str
    edges: tuple[Points, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, min(options.max_width, TRACE_COLUMNS))
        lines = braille(self.points, self.right_ns, TRACE_NS, self.low, self.high, width, self.edges)
        yield Text("\n".join(lines), self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(10, options.max_width), min(options.max_width, TRACE_COLUMNS))
