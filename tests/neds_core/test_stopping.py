"""A signal ends a command with one line and the code that shells give, whatever it was doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neds_core.stopping import SIGNALS, Stopped, heard

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def code_of(command: Callable[[], object]) -> object:
    """The exit code of a command that hears signals."""
    with pytest.raises(SystemExit) as ended, heard("prog"):
        command()
    return ended.value.code


def ended(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What `heard` made of it."""
    assert capsys.readouterr().err == f"prog: stopped before it was done ({signal.Signals(number).name})\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_line_and_an_exit_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where somebody makes an end of interrupts; what is half done is not gone on with."""

    def command() -> None:
        try:
            os.kill(os.getpid(), number)
        except (KeyboardInterrupt, Exception):
            pytest.fail("nobody else hears of it")

    assert code_of(command) == 128 + number
    ended(number, capsys)


def test_what_a_signal_broke_on_its_way_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """An import that it came into the middle of fails in its own way."""

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stopped:
            raise ImportError("half a module") from None

    assert code_of(command) == 128 + signal.SIGTERM
    ended(signal.SIGTERM, capsys)


def test_signals_that_come_together_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The second must not cut off what the first has begun to tidy up."""
    tidied = []

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGTERM)
            tidied.append("all")

    assert (code_of(command), tidied) == (128 + signal.SIGHUP, ["all"])
    ended(signal.SIGHUP, capsys)


def test_other_ends_are_as_they_were() -> None:
    with pytest.raises(ValueError, match="mine"), heard("prog"):
        raise ValueError("mine")
    assert code_of(lambda: sys.exit(3)) == 3


def test_nohup_is_kept() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with heard("prog"):
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


SWALLOWS = """
import signal, time
from neds_core import stopping
stopping.PATIENCE_S = 0.1
with stopping.heard("prog"):
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        pass
    time.sleep(60)
"""


def test_a_swallowed_signal_ends_it_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWS], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (143, "prog: stopped before it was done (SIGTERM)\n")
