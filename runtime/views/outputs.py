"""What is decoded, as lines of a view: traces over measured ones, values alone, classes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from rich.text import Text

from runtime.client import WITHHELD
from runtime.views.glyphs import Frame, axis, between, layered, line
from runtime.views.look import Look
from runtime.views.model import Points
from runtime.views.words import NONE, cut, flow, number, plain, said, styled
from runtime.wire import Output, OutputInfo

DECODED, MEASURED, BAND = "bold cyan", "default", "dim cyan"
MEASURED_NS = 1_000_000_000  # a measured value is shown for so long
SCALE = 9  # columns of the numbers beside a trace
WIDEST = 160  # columns of a trace
NARROW = 60  # below so many a trace shows `SHORT_NS`
LONG_NS, SHORT_NS = 10_000_000_000, 6_000_000_000
LEAST_CELL = 26  # columns of a value beside others
LEAST_TRACED = 50  # columns of a view with traces
NOTHING: Points = deque()


class Continuous(NamedTuple):
    """One output at a moment. low, high: of what its trace shows, equal where it shows nothing; digits: after the
    point, by its scale.
    """

    name: str
    unit: str
    value: float | None
    sd: float | None
    measured: float | None
    lead_ms: float
    low: float
    high: float
    digits: int

    @property
    def traced(self) -> bool:
        """Whether there is anything to draw."""
        return self.high > self.low

    def decoded(self, width: int = 0) -> str:
        """Value, in at least so many characters, and sd."""
        spread = "" if self.sd is None else f" ± {number(self.sd, max(0, self.digits - 1))}"
        return f"{number(self.value, self.digits):>{width}}{spread}"

    def called(self) -> str:
        """Name and lead."""
        return f"{plain(self.name)} +{self.lead_ms:g} ms" if self.lead_ms else plain(self.name)


def infos_of(look: Look) -> list[OutputInfo]:
    """What is known of each output; before the first status its name and kind."""
    if look.shown.status:
        return look.shown.status.outputs
    last = look.shown.decode.outputs if look.shown.decode else {}
    kinds = [(name, "continuous" if output.probs is None else "class") for name, output in last.items()]
    return [OutputInfo(name, kind, "", "", "", 0.0, "", []) for name, kind in kinds]


def of_kind(look: Look, *, classes: bool) -> list[OutputInfo]:
    """The outputs that are classes, or those that are not."""
    return [info for info in infos_of(look) if (info.kind == "class") == classes]


def now_of(look: Look) -> int:
    """Now, on the publisher's clock, as seen from the newest message's bin."""
    shown = look.shown
    return (shown.decode.t_end_ns if shown.decode else 0) + shown.now_ns - shown.decode_at_ns


def continuous(look: Look, info: OutputInfo, begin_ns: int) -> Continuous:
    """An output now. begin_ns: where its trace begins."""
    shown, name = look.shown, info.name
    told = shown.decode.outputs.get(name) if shown.decode else None
    fresh = look.decode.outputs.get(name, Output()) if look.decode else Output()
    known = fresh if look.decode and not look.decode.flags & WITHHELD else Output()
    measured = shown.measured.get(name, NOTHING)
    newest_ns = shown.decode.t_end_ns if shown.decode else 0
    seen = measured[-1][1] if look.decode and measured and measured[-1][0] > newest_ns - MEASURED_NS else None
    traces = (shown.decoded, shown.measured, shown.lower, shown.upper)
    values = [v for trace in traces for t, v in trace.get(name, NOTHING) if v is not None and t > begin_ns]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    high = low + 1.0 if values and high <= low else high
    largest = max(abs(low), abs(high))
    digits = min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 3
    lead_ms = (told and told.lead_ms) or info.lead_ms
    return Continuous(name, plain(info.unit), known.value, known.sd, seen, lead_ms, low, high, digits)


def all_continuous(look: Look, span_ns: int = LONG_NS) -> list[Continuous]:
    """Every continuous output now."""
    return [continuous(look, info, now_of(look) - span_ns) for info in of_kind(look, classes=False)]


def values(look: Look, width: int, rows: int) -> list[Text]:
    """The values alone, in at most `rows` lines, side by side where there are more; says how many it leaves out."""
    found, most = all_continuous(look), max(1, width // LEAST_CELL)
    columns = next((n for n in range(1, most + 1) if -(-len(found) // n) <= rows), most)
    shown = found if len(found) <= columns * rows else found[: columns * max(0, rows - 1)]
    cells, lines = in_cells(shown, width // columns - 2 * (columns > 1)), []
    for i in range(0, len(cells), columns):
        lines.append(Text("  ").join(cells[i : i + columns]))
    if len(shown) < len(found) and rows > 0:
        lines.append(cut(styled(f"… {len(found) - len(shown)} more outputs: make the terminal larger", "dim"), width))
    return lines


def least_rows(n: int, width: int) -> int:
    """Lines that n values take at least."""
    return -(-n // max(1, width // LEAST_CELL))


def in_cells(found: list[Continuous], width: int) -> list[Text]:
    """Name, decoded and measured of each in exactly `width` cells; where that is little the unit goes, then the sd."""
    seen = [number(each.measured, each.digits) for each in found]
    richest = [
        (f"decoded {each.decoded(7)} {each.unit}", f"measured {m:>7}") for each, m in zip(found, seen, strict=True)
    ]
    shorter = [(each.decoded(), f"measured {m}") for each, m in zip(found, seen, strict=True)]
    short = [(each.decoded(), f"/ {m}") for each, m in zip(found, seen, strict=True)]
    shortest = [(number(each.value, each.digits), f"/ {m}") for each, m in zip(found, seen, strict=True)]
    called = max((len(each.called()) for each in found), default=0)
    for pairs in (richest, shorter, short, shortest):
        left, right = (max((len(pair[i]) for pair in pairs), default=0) for i in (0, 1))
        room = width - left - right - 4
        if room >= min(called, 14):
            break
    cells = []
    for each, (decoded, measured) in zip(found, pairs, strict=True):
        text = cut(styled(each.called(), "bold"), max(6, min(called, room)), pad=True).append("  ")
        cells.append(cut(text.append(f"{decoded:<{left}}  ", "cyan").append(measured), width, pad=True))
    return cells


def angles(look: Look, width: int) -> list[Text]:
    """A line for each angle of which two outputs are the cosine and the sine, in degrees."""
    sides = {(info.group, info.angle): info.name for info in infos_of(look) if info.angle}
    lines = []
    for (group, side), cos in sides.items():
        if side == "cos" and look.decode and (sin := sides.get((group, "sin"))):
            decoded, measured = (_degrees(look, trace, cos, sin) for trace in (look.shown.decoded, look.shown.measured))
            text = styled(plain(group), "bold").append(f"  decoded {decoded}", "cyan").append(f"   measured {measured}")
            lines.append(cut(text, width))
    return lines


def _degrees(look: Look, traces: dict[str, Points], cos: str, sin: str) -> str:
    newest_ns = look.decode.t_end_ns if look.decode else 0
    ends = [traces[name][-1] for name in (cos, sin) if traces.get(name)]
    x, y = (value for _, value in ends) if len(ends) == 2 else (None, None)
    fresh = all(t > newest_ns - MEASURED_NS for t, _ in ends)
    return NONE if x is None or y is None or not fresh else f"{math.degrees(math.atan2(y, x)) % 360:.0f}°"


def traces(look: Look, width: int, rows: int) -> list[Text]:
    """`rows` lines for each output, what is decoded over what is measured on one scale, and one time axis below."""
    beside = _beside(width)
    across = max(1, min(WIDEST, width - beside - SCALE - 1))
    span_ns = LONG_NS if across >= NARROW else SHORT_NS
    found = all_continuous(look, span_ns)
    lead_ns = round(max(output.lead_ms for output in found) * 1e6)
    right_ns = now_of(look) + lead_ns
    frame = Frame(right_ns, span_ns, 0.0, 1.0, across, rows)
    lines = []
    for output in found:
        scaled = replace(frame, low=output.low, high=output.high) if output.traced else frame
        lines += map(Text.append_text, beside_trace(output, beside, rows), panel(look, output.name, scaled))
    key = styled("decoded", "cyan").append(" over ", "dim").append("measured")
    lines.append(cut(key, beside + SCALE, pad=True).append(" ").append(axis(frame, lead_ns), "dim"))
    return lines


def _beside(width: int) -> int:
    """Columns left of a trace and its scale."""
    return min(34, max(20, width // 3))


def panel(look: Look, name: str, frame: Frame) -> list[Text]:
    """The traces of an output: decoded over measured over the band of one sd."""
    shown = look.shown
    decoded, measured, lower, upper = (
        traces.get(name, NOTHING) for traces in (shown.decoded, shown.measured, shown.lower, shown.upper)
    )
    band = between(lower, upper, frame)
    return layered([(line(decoded, frame), DECODED), (line(measured, frame), MEASURED), (band, BAND)])


def beside_trace(output: Continuous, width: int, rows: int) -> list[Text]:
    """Left of a trace: name, values, and the ends of its scale."""
    name = styled(output.called(), "bold")
    decoded, seen = output.decoded(), number(output.measured, output.digits)
    if rows == 2:
        name = cut(name, max(1, width - len(decoded) - 2), pad=True).append(f" {decoded}", "cyan")
        words = [name, styled(f"measured {seen}").append(f" {output.unit}", "dim")]
    else:
        words = [
            name,
            styled(f"decoded  {output.decoded(7)}", "cyan"),
            styled(f"measured {seen:>7}").append(f" {output.unit}", "dim"),
        ]
    words += [Text() for _ in range(rows - len(words))]
    high, low = (f"{end:.3g}" if output.traced else "" for end in (output.high, output.low))
    ends = [high, *[""] * (rows - 2), low]
    return [
        cut(word, width, pad=True).append(f"{end[:SCALE]:>{SCALE}}{'┤' if end else '│'}", "dim")
        for word, end in zip(words, ends, strict=True)
    ]


def classes(look: Look, width: int, *, bars: bool) -> list[Text]:
    """Each class with its probability: a line and a bar for each, or side by side."""
    lines: list[Text] = []
    withheld = look.decode is None or bool(look.decode.flags & WITHHELD)
    for info in of_kind(look, classes=True):
        output = look.decode.outputs.get(info.name) if look.decode and not withheld else None
        probs = output.probs if output and output.probs else [None] * max(len(info.classes), 1)
        labels = [info.classes[i] if i < len(info.classes) else str(i) for i in range(len(probs))]
        pairs = [(plain(label), prob) for label, prob in zip(labels, probs, strict=True)]
        lines += _bars(plain(info.name), pairs, width) if bars else _row(plain(info.name), pairs, width)
    return lines


def _bars(name: str, pairs: list[tuple[str, float | None]], width: int) -> list[Text]:
    beside = _beside(width)
    left, right = beside // 2, beside + SCALE + 1 - beside // 2  # the bars begin where traces do
    lines = []
    for i, (label, prob) in enumerate(pairs):
        text = cut(styled("" if i else name, "bold"), left - 1, pad=True).append(" ")
        text.append_text(cut(styled(f"{label} {number(prob, 2)}"), right - 1, pad=True)).append(" ")
        lines.append(cut(text.append(_bar(prob, min(40, max(1, width - left - right))), "cyan"), width))
    return lines


def _row(name: str, pairs: list[tuple[str, float | None]], width: int) -> list[Text]:
    pieces = []
    for label, prob in pairs:
        piece = said(label, number(prob, 2)).append(" ").append(_bar(prob, 8), "cyan")
        pieces.append(cut(piece, max(piece.cell_len, len(label) + 14), pad=True))
    return flow([styled(name, "bold"), *pieces], width)


def _bar(prob: float | None, longest: int) -> str:
    return "" if prob is None or not math.isfinite(prob) else "█" * round(longest * min(max(prob, 0.0), 1.0))
