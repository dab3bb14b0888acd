"""Stdout and stderr take whatever is printed, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "Mäuschen 7 \N{MOUSE} \udcff"  # the last: a byte of a file's name that is no UTF-8
PROGRAM = """
import json, sys
from runtime.console import open_console
open_console()
for _ in range(2000):
    print(json.dumps({name!r}, ensure_ascii=False))
sys.stdout.flush()
print({name!r}, file=sys.stderr)
sys.exit(3)
"""


def start(**streams: object) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": streams.pop("encoding", "utf-8")}
    command = [sys.executable, "-c", PROGRAM.format(name=NAME)]
    return subprocess.Popen(command, env=env, **({"stderr": subprocess.PIPE} | streams))  # pyright: ignore


def ends_well(process: subprocess.Popen[bytes]) -> None:
    """Its own exit code, and no traceback."""
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait(60) == 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_a_console_that_cannot_show_a_name(encoding: str) -> None:
    """It is escaped, and JSON stays JSON."""
    out, err = start(stdout=subprocess.PIPE, encoding=encoding).communicate(timeout=60)
    lines = out.decode(encoding).splitlines()
    assert (len(lines), {json.loads(line) for line in lines}) == (2000, {NAME})
    assert b"Traceback" not in err
    assert b"7" in err


def test_a_reader_that_has_gone_ends_nothing() -> None:
    """As `| head`: no traceback, and the exit code is the command's own."""
    with start(stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        ends_well(process)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_that_was_closed_ends_nothing() -> None:
    master, terminal = os.openpty()
    with start(stdout=terminal) as process:
        os.close(terminal)
        os.read(master, 10)
        os.close(master)
        ends_well(process)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the streams")
def test_streams_that_were_closed_from_the_start() -> None:
    shell = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, PROGRAM.format(name=NAME)]
    assert subprocess.run(shell, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60).returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_is_not_taken_for_a_reader_that_has_gone() -> None:
    with Path("/dev/full").open("wb") as full, start(stdout=full) as process:
        assert process.stderr is not None
        assert b"No space left on device" in process.stderr.read()
        assert process.wait(60) != 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_words_that_a_full_disk_does_not_take_end_nothing() -> None:
    with Path("/dev/full").open("wb") as full, start(stdout=subprocess.PIPE, stderr=full) as process:
        assert len(process.communicate(timeout=60)[0].splitlines()) == 2000
        assert process.returncode == 3
