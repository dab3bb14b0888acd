"""A picture of the live view for a page, as SVG. `python -m runtime.views.capture ADDRESS RIG --out X.svg`."""

from __future__ import annotations

import argparse
import math
import re
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

MOST = 1000  # columns, and lines
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


def size_of(text: str) -> tuple[int, int]:
    """Columns and lines of 80x24. Raises `ValueError` for another text, and for a size that no console has."""
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= min(size) <= max(size) <= MOST:
        raise ValueError(
            f"--size {text!r} is no size of a console; give columns x lines from 1 to {MOST}, such as 80x24"
        )
    return size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runtime.views.capture", description=__doc__)
    parser.add_argument("address", help="where the run publishes, as it says at its start")
    parser.add_argument("rig")
    parser.add_argument("--size", default="80x24", help="columns x lines")
    parser.add_argument("--seconds", type=float, default=12.0, help="follow the run for so long, then")
    parser.add_argument("--state", default="RUNNING", help="take the first picture in this state")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        picture = capture(given.address, given.rig, size_of(given.size), given.seconds, given.state)
        given.out.write_text(picture, encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
