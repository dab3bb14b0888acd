"""Lines for people: printed in order, and nobody waits for a terminal that takes none."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import time

import pytest

from runtime.io import notices
from runtime.io.notices import MOST, Notices

WAIT_S = 20.0


def taken(master: int) -> bytes:
    """What a terminal has been sent so far; a read may give less than that."""
    sent = b""
    try:
        while more := os.read(master, 65536):
            sent += more
    except BlockingIOError:
        pass
    except OSError as error:  # Linux: the other end is closed, and everything is read
        if error.errno != errno.EIO:
            raise
    return sent


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_that_is_stopped_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-S: writing blocks until Ctrl-Q. The lines that waited come then, and how many did not."""
    import termios

    monkeypatch.setattr(notices, "CLOSE_S", 0.05)
    master, slave = os.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    with os.fdopen(slave, "w") as terminal:
        lines = Notices(terminal)

        def a_run() -> None:
            with lines:
                for k in range(MOST + 51):
                    lines.say(f"line {k}")

        caller = threading.Thread(target=a_run, daemon=True)
        caller.start()
        caller.join(WAIT_S)
        held = caller.is_alive()
        termios.tcflow(slave, termios.TCOON)
        os.set_blocking(master, False)
        shown, deadline = b"", time.monotonic() + WAIT_S
        while lines._thread.is_alive() and time.monotonic() < deadline:
            shown += taken(master)
            lines._thread.join(0.01)
    shown += taken(master)
    os.close(master)
    assert not held
    said = shown.decode().splitlines()
    n = sum(line.startswith("line ") for line in said)
    assert [line for line in said if line.startswith("line ")] == [f"line {k}" for k in range(n)]
    assert MOST <= n <= MOST + 2
    assert f"{MOST + 51 - n} more messages came while none could be printed; the summary has them" in said


def test_a_line_that_cannot_be_written_is_the_only_one_that_is_lost() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if "first" in text:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    with Notices(stream) as lines:
        lines.say("first")
        lines.say("second \x1b[2J")
    assert stream.getvalue().splitlines()[-1].startswith("second ")
    assert "\x1b" not in stream.getvalue()
