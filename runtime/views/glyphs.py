"""Large letters, running traces and their time axis out of Unicode blocks and braille."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

Cells = list[list[int]]  # [rows][columns]: which of its 2 x 4 dots a cell has
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


@dataclass(frozen=True, slots=True)
class Frame:
    """Where traces are drawn: width x rows cells, the span_ns before right_ns, from low to high."""

    right_ns: int
    span_ns: int
    low: float
    high: float
    width: int
    rows: int = 2

    def columns(self, trace: Iterable[tuple[int, float | None]]) -> Iterator[tuple[int, int, list[int | None]]]:
        """Each column of dots that holds points of a trace (t_ns, value): its place, its time, their levels."""
        column_ns = max(1, self.span_ns // (2 * self.width))
        newest = self.right_ns // column_ns  # columns are fixed in time, so that a trace scrolls without shimmering
        first, scale = newest - 2 * self.width + 1, (4 * self.rows - 1) / (self.high - self.low)
        found: dict[int, list[int | None]] = {}
        for t_ns, value in trace:
            if first <= (at := t_ns // column_ns) <= newest:
                found.setdefault(at, []).append(None if value is None else round((value - self.low) * scale))
        return ((at - first, at, levels) for at, levels in sorted(found.items()))


def line(trace: Iterable[tuple[int, float | None]], frame: Frame) -> Cells:
    """A trace (t_ns, value) as a line. A column of dots that holds a null is empty, so a gap of one bin is seen."""
    cells = _empty(frame)
    at_before, before = -1, None
    for x, _, levels in frame.columns(trace):
        known = [level for level in levels if level is not None]
        if len(known) != len(levels):
            before = None
            continue
        joined = known if before is None or x != at_before + 1 else [*known, before]
        _draw(cells, x, range(min(joined), max(joined) + 1))
        at_before, before = x, known[-1]
    return cells


def between(
    lower: Iterable[tuple[int, float | None]], upper: Iterable[tuple[int, float | None]], frame: Frame
) -> Cells:
    """The area between two traces, stippled: each second dot."""
    cells = _empty(frame)
    tops = {at: [level for level in levels if level is not None] for _, at, levels in frame.columns(upper)}
    for x, at, levels in frame.columns(lower):
        ends = [*tops.get(at, ()), *(level for level in levels if level is not None)]
        if ends:
            low = min(ends)
            _draw(cells, x, range(low + (low + at) % 2, max(ends) + 1, 2))  # fixed in time, as the columns are
    return cells


def _empty(frame: Frame) -> Cells:
    return [[0] * frame.width for _ in range(frame.rows)]


def _draw(cells: Cells, x: int, levels: Iterable[int]) -> None:
    top = 4 * len(cells) - 1
    for level in levels:
        row, dot = divmod(top - level, 4)
        cells[row][x // 2] |= (0x40 << x % 2) if dot == 3 else 1 << (dot + 3 * (x % 2))


def layered(layers: Sequence[tuple[Cells, str]]) -> list[Text]:
    """Traces over each other, uppermost first, each with its colour: a cell shows the first that has dots in it."""
    lines = []
    for rows in zip(*(cells for cells, _ in layers), strict=True):
        shown = [next(((i, dots) for i, dots in enumerate(cell) if dots), (0, 0)) for cell in zip(*rows, strict=True)]
        text = Text(no_wrap=True)
        for i, run in groupby(shown, key=lambda each: each[0]):
            text.append("".join(chr(0x2800 + dots) for _, dots in run), layers[i][1])
        lines.append(text)
    return lines


def axis(frame: Frame, lead_ns: int = 0) -> str:
    """`frame.width` characters under traces that end lead_ns after now: seconds from now, each over its tick."""
    width, cell_ns = frame.width, frame.span_ns / frame.width
    now = width - 1 - round(lead_ns / cell_ns)
    ahead = f"+{lead_ns / 1e6:g} ms┘" if lead_ns else ""
    if not ahead:
        labels = [(now, "now┘")]
    elif width - 1 - now <= len(ahead):  # no room between the two
        labels = [(width - 1, f"now {ahead}")]
    else:
        labels = [(width - 1, ahead), (now, "now┘")]
    left = f"└-{(frame.span_ns - lead_ns) / 1e9:.3g} s"
    labels.append((len(left) - 1, left))
    labels += [(now - round(s * 1e9 / cell_ns), f"-{s}┘") for s in range(2, int(frame.span_ns / 1e9), 2)]
    row = [" "] * width
    for end, label in labels:  # the first ones have the room
        begin = end + 1 - len(label)
        if begin >= 0 and end < width and set(row[max(0, begin - 1) : end + 2]) <= {" "}:
            row[begin : end + 1] = label
    return "".join(row)
