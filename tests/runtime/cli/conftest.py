"""What the tests of commands share: a command of ours in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from runtime.cli import commands, main as cli
from runtime.io import system

built = cache(typer.main.get_command)  # of all commands and their options: 50 ms


@pytest.fixture(autouse=True)
def process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands take over SIGINT, SIGTERM and SIGHUP of their process, and real-time scheduling: pytest's here."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    system.lower_priority()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, lsl_session: str) -> Callable[..., int]:
    """Run a command in this process; returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["neds-rt", *map(str, arguments)])
        monkeypatch.setattr(typer.main, "get_command", built)
        monkeypatch.setattr(commands, "refuse_foreign_packages", lambda: None)  # tests/test_packaging.py has it
        try:  # not pytest.raises: what it keeps would keep the caller's outlets open
            cli.main()
        except SystemExit as ended:
            return 0 if ended.code is None else int(ended.code)
        pytest.fail("it did not end with an exit code")

    return run


@pytest.fixture
def fails(call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused; returns its sentence."""

    def run(*arguments: object) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        capsys.readouterr()

        assert call(*arguments) == 2

        out, err = capsys.readouterr()
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        lines = [line for line in err.splitlines() if not line.startswith("decode and status on ")]
        assert len(lines) == 1, err
        assert lines[0].startswith("neds-rt: ")
        assert "Traceback" not in out + err
        return lines[0].removeprefix("neds-rt: ")

    return run
