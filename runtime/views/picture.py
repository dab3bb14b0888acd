"""The whole picture, for a console of a given size: what matters most is highest, and is the last to go.

From the top down: state and alarm with its sentence, latency and misses, flags, decoded values, classes, losses, plain
counts, facts. The values have traces where there is room; these go first, then the lines from the bottom up.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from runtime.views import outputs, words
from runtime.views.glyphs import big
from runtime.views.look import AMBER, MODES, Look, look_at
from runtime.views.model import Shown

NEVER = 10**6
ROOMY = (100, 30)  # columns and rows from which on there are a frame and large letters


class Plan(NamedTuple):
    """How rich a picture is. rows: of each trace, 0 = values alone; bars: a line for each class; gaps: between groups;
    grid: values side by side; tail: how many of losses, counts and facts are kept.
    """

    rows: int
    bars: bool = False
    gaps: bool = False
    grid: bool = False
    tail: int = 3

    def area(self, n: int, width: int) -> int:
        """Lines of n outputs, more than any console has where they cannot be drawn."""
        if self.rows:
            return NEVER if width < outputs.LEAST_TRACED else n * self.rows + 1 if n else 0
        return outputs.least_rows(n, width) if self.grid else n


PLANS = (  # the first that fits is drawn
    *(Plan(rows, bars=True, gaps=True) for rows in range(10, 3, -1)),
    *(Plan(rows, bars=True) for rows in (5, 4, 3)),
    *(Plan(rows) for rows in (3, 2)),
    *(Plan(0, bars=True, gaps=gaps) for gaps in (True, False)),
    *(Plan(0, tail=tail) for tail in (3, 2)),
    *(Plan(0, grid=True, tail=tail) for tail in (3, 2, 1, 0)),
)


def render(shown: Shown, width: int, height: int) -> RenderableType:
    """At most `height` lines of `width` cells. Pure: no clock, no socket."""
    look, (columns, rows) = look_at(shown), ROOMY
    if width < columns or height < rows:
        top = words.flow(words.state_of(look), width)
        facts = [*words.decoder(look), *words.inputs(look), *words.newest(look)]
        return Group(*body(look, top, words.flow(facts, width), width, height))
    inner = width - 4
    lines = body(look, large(look, inner), words.flow(words.newest(look), inner), inner, height - 2)
    title = words.cut(words.styled(f"neds-rt  {look.mode}  rig {words.plain(shown.rig)}"), inner - 4)
    style = look.tone if look.alarmed else MODES[look.mode]
    return Panel(Group(*lines), title=title, border_style=style, width=width)


def body(look: Look, top: list[Text], facts: list[Text], width: int, height: int) -> list[Text]:
    """`top` and all that fits below it. facts: the lines that matter least."""
    timing = words.flow(words.timing(look), width)
    alarm = words.wrapped(look.sentence, width, f"bold {'black' if look.tone == AMBER else 'white'} on {look.tone}")
    firm = [[*top, *alarm[: max(1, height - len(top) - len(timing))]], timing + words.flow(words.flags(look), width)]
    tail = [words.flow(words.losses(look), width, 2), words.flow(words.counts(look), width, 2), facts]
    n, turns = len(outputs.of_kind(look, classes=False)), outputs.angles(look, width)
    told = {bars: turns + outputs.classes(look, width, bars=bars) for bars in (True, False)}

    def below(plan: Plan) -> list[list[Text]]:
        return [told[plan.bars], [line for lines in tail[: plan.tail] for line in lines]]

    def besides(plan: Plan) -> int:
        """Lines of a plan without those of the continuous outputs."""
        groups = [*firm, *below(plan)]
        return sum(map(len, groups)) + plan.gaps * (sum(map(bool, groups)) - (n == 0))

    plan = next((p for p in PLANS if besides(p) + p.area(n, width) <= height), PLANS[-1])
    if plan.rows and n:
        area = outputs.traces(look, width, plan.rows)
    else:
        room = max(height - besides(plan), min(height - sum(map(len, firm)), plan.area(n, width)))
        area = outputs.values(look, width, room)
    groups = [*firm, area, *below(plan)]
    between = [Text()] if plan.gaps else []
    lines = [each for group in groups if group for each in (*between, *group)][len(between) :]
    return lines[:height]


def large(look: Look, width: int) -> list[Text]:
    """Three lines: the mode in large letters beside what runs, and the alarm's word where there is one."""
    shown = [(look.mode, MODES[look.mode]), *([(look.word, look.tone)] if look.alarmed else [])]
    if 2 * sum(4 * len(word) + 3 for word, _ in shown) > width:
        shown = shown[-1:]
    lines = [Text(no_wrap=True) for _ in range(3)]
    for word, colour in shown:
        for line, letters in zip(lines, big(word).split("\n"), strict=True):
            line.append(f"{letters}   ", f"bold {colour}")
    decoder, engine, model = words.decoder(look)
    beside = (words.state_of(look)[1:], (decoder, engine), (model, *words.inputs(look)))
    return [
        words.cut(line.append_text(Text("   ").join(pieces)), width) for line, pieces in zip(lines, beside, strict=True)
    ]
