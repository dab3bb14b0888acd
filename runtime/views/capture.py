"""A picture of the live view for a page, as SVG. `python -m runtime.views.capture ADDRESS RIG --out X.svg`."""

from __future__ import annotations

import argparse
import math
import time
from io import StringIO
from pathlib import Path

import zmq
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from runtime.client import Subscriber
from runtime.views.look import STALE_MS, look_at
from runtime.views.model import Shown
from runtime.views.picture import render
from runtime.views.terminal import follow
from runtime.wire import topic

THEME = TerminalTheme(  # of xterm, whose green, amber and red are told apart
    (16, 18, 20), (216, 216, 216),
    [(0, 0, 0), (205, 49, 49), (46, 160, 67), (227, 179, 65), (56, 120, 216), (168, 94, 190), (64, 184, 204),
     (216, 216, 216)],
)  # fmt: skip


def capture(address: str, rig: str, size: tuple[int, int], seconds: float, state: str) -> str:
    """The SVG of a console of `size` (columns, lines) once a run was followed for so long and is in this state."""
    shown, end = Shown(address, rig), math.inf
    with Subscriber(address, rig, STALE_MS) as link, zmq.Context() as context, context.socket(zmq.SUB) as measured:
        measured.subscribe(topic("measured", rig))
        measured.connect(address)
        while not link.ended and (time.monotonic() < end or look_at(shown).word != state):
            follow(shown, link, measured)
            end = min(end, time.monotonic() + seconds) if shown.decode else end
    console = Console(record=True, width=size[0], height=size[1], file=StringIO(), force_terminal=True)
    console.print(render(shown, *size))
    return console.export_svg(title=f"neds-rt run, {size[0]} x {size[1]}", theme=THEME)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runtime.views.capture", description=__doc__)
    parser.add_argument("address", help="where the run publishes, as it says at its start")
    parser.add_argument("rig")
    parser.add_argument("--size", default="80x24", help="columns x lines")
    parser.add_argument("--seconds", type=float, default=12.0, help="follow the run for so long, then")
    parser.add_argument("--state", default="RUNNING", help="take the first picture in this state")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    columns, _, lines = given.size.partition("x")
    picture = capture(given.address, given.rig, (int(columns), int(lines)), given.seconds, given.state)
    given.out.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
