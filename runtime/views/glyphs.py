"""Large letters and running traces out of Unicode blocks and braille."""

from __future__ import annotations

from collections.abc import Iterable

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
    points: Iterable[tuple[int, float | None]], right_ns: int, span_ns: int, low: float, high: float, width: int
) -> list[str]:
    """`ROWS` lines of `width` cells: points (t_ns, value) of the span_ns before right_ns, scaled from low to high.

    A column of dots that holds a null stays empty, so that a gap of one bin is seen.
    """
    column_ns = span_ns // (2 * width)
    newest = right_ns // column_ns  # columns are fixed in time, so that a trace scrolls without shimmering
    columns: dict[int, list[float | None]] = {}
    for t_ns, value in points:
        columns.setdefault(t_ns // column_ns - newest + 2 * width - 1, []).append(value)
    top = 4 * ROWS - 1
    cells = [[0] * width for _ in range(ROWS)]
    before: int | None = None
    for x in range(2 * width):
        levels = [round((v - low) / (high - low) * top) for v in columns.get(x, ()) if v is not None]
        if len(levels) != len(columns.get(x, ())) or not levels:
            before = None
            continue
        joined = levels if before is None else [*levels, before]
        for level in range(min(joined), max(joined) + 1):
            row, dot = divmod(top - level, 4)
            cells[row][x // 2] |= (0x40 << x % 2) if dot == 3 else 1 << (dot + 3 * (x % 2))
        before = levels[-1]
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]
