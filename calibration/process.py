"""A calibration in a process of its own: how it is started, heard and ended. It says a JSON object a line."""

from __future__ import annotations

import subprocess
from typing import TextIO

import msgspec
from msgspec import Struct

from calibration.command import Order
from calibration.report import Report
from neds_core import errors
from neds_core.errors import DataError
from neds_core.train.log import Progress, Show
from runtime import start
from runtime.io.system import end, ended_by

STOP_S = 2.0


class Line(Struct, frozen=True, omit_defaults=True):
    """One of them is set: a stage begins; so many fits of the linear search; a step; a sentence; the end, either way.

    error: the class of `neds_core.errors` that `refused` is of.
    """

    stage: str = ""
    tick: tuple[int, int] | None = None
    step: Progress | None = None
    say: str = ""
    report: Report | None = None
    refused: str = ""
    error: str = ""


class Teller:
    """Writes lines; a reader that is gone ends the calibration (BrokenPipeError), with nothing written."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def _write(self, line: Line) -> None:
        self.out.write(msgspec.json.encode(line).decode() + "\n")
        self.out.flush()

    def stage(self, name: str) -> None:
        """A new stage."""
        self._write(Line(stage=name))

    def tick(self, done: int, total: int) -> None:
        """Fits of the linear search."""
        self._write(Line(tick=(done, total)))

    def say(self, line: str) -> None:
        """A sentence."""
        self._write(Line(say=line))

    def step(self, progress: Progress) -> None:
        """A step of training."""
        self._write(Line(step=progress))

    def report(self, report: Report) -> None:
        """It is done, and the checkpoint is written."""
        self._write(Line(report=report))

    def refused(self, error: Exception) -> None:
        """It cannot be done."""
        self._write(Line(refused=str(error), error=type(error).__name__))


def run(order: Order, show: Show) -> Report:
    """Calibrate in a child that ends with this call, however it ends. Raises the error that the child was refused with.

    `neds_core.errors.DataError` where the child was ended from outside: nothing is then written.
    """
    child = subprocess.Popen(
        start.command("calibration", msgspec.json.encode(order).decode()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C of the terminal is for the parent alone
    )
    assert child.stdout is not None
    last = Line()
    try:
        with child.stdout:
            for text in child.stdout:
                last = msgspec.json.decode(text, type=Line)
                _show(last, show)
        child.wait()
    finally:
        end(child, STOP_S)
    if last.refused:
        raise getattr(errors, last.error, DataError)(last.refused)
    if last.report is None:
        how = ended_by(child.returncode)
        raise DataError(f"the calibration ended before it was done ({how}); nothing is written: start it again")
    return last.report


def _show(line: Line, show: Show) -> None:
    if line.stage:
        show.stage(line.stage)
    elif line.tick is not None:
        show.tick(*line.tick)
    elif line.step is not None:
        show.step(line.step)
    elif line.say:
        show.say(line.say)
