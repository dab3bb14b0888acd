"""A signal that ends a command before it is done: one line, and the exit code that shells give.

It imports next to nothing: signals are heard from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
import time

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
TOGETHER_S = 1.0  # a terminal that closes and its shell send one each, as do `timeout` and its group
PATIENCE_S = 3.0  # then a command that has swallowed the exception is ended without it


class Stopped(BaseException):
    """A signal came. number: which. No `KeyboardInterrupt`: whoever catches those goes on with what is half done."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class heard:  # noqa: N801 (a context manager)
    """Signals end what is inside as `Stopped` does: with one line, also where it broke something on its way.

    The exception is lost where a library swallows it, and where C calls Python (LLVM does, while it compiles): the
    process then ends a little later. SIGHUP stays ignored where it is (nohup).
    """

    def __init__(self, program: str) -> None:
        self.program, self.number, self._first_s, self._said = program, 0, 0.0, False
        self._timer = None

    def __enter__(self) -> None:
        numbers = [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self) for number in numbers}
        self._told, sys.unraisablehook = sys.unraisablehook, self._lost

    def __call__(self, number: int, frame: object) -> None:
        """Raise `Stopped`; at a later second signal end at once."""
        if self.number:
            if time.monotonic() - self._first_s > TOGETHER_S:
                self._leave()
            return
        self.number, self._first_s = number, time.monotonic()
        import threading

        self._timer = threading.Timer(PATIENCE_S, self._leave)
        self._timer.daemon = True
        self._timer.start()
        raise Stopped(number)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        number = error.number if isinstance(error, Stopped) else self.number
        over = error is None or (isinstance(error, SystemExit) and not error.code)  # done before it was heard
        if number and not over:
            self._say(number)
        if self._timer is not None:
            self._timer.cancel()
        sys.unraisablehook = self._told
        for each, handler in self._before.items():
            signal.signal(each, handler)
        if number and not over:
            raise SystemExit(128 + number) from None

    def _say(self, number: int) -> None:
        if self._said:
            return
        self._said = True
        try:
            line = f"{self.program}: stopped before it was done ({signal.Signals(number).name})"
            print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # a terminal that is gone
            pass

    def _leave(self) -> None:
        self._say(self.number)
        os._exit(128 + self.number)

    def _lost(self, lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, Stopped):  # one that nobody could catch is no news
            self._told(lost)
