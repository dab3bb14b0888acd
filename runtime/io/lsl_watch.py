"""Watching senders while a run goes on: markers whose sender is gone, one that comes back, spikes after a gap."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pylsl

from neds_core.errors import StreamError
from runtime.core.values import NO_TIME
from runtime.io.lsl_inlets import MarkerInlet

AGAIN_NS = 1_000_000_000  # between two looks at a sender that could not be asked
GONE_S = 3.0  # a sender that has not answered liblsl's questions for so long is gone


class MarkerWatch:
    """Looks for the sender of markers in the background. `inlet` is the one to read, also after it came back."""

    def __init__(self, inlet: MarkerInlet) -> None:
        self.inlet = inlet
        self.lost = False
        self._info = inlet.info
        self._seen = self._over = False
        self._opening: threading.Thread | None = None
        self._opened: MarkerInlet | None = None
        self._resolver = pylsl.ContinuousResolver("name", inlet.info.name(), forget_after=GONE_S)

    def look(self) -> str:
        """Called once a second. Returns what has changed: `lost`, `back` or ''."""
        if self._opened is not None:
            self.inlet.clock.stop()
            self._opened.bad += self.inlet.bad
            self._opened.bad_labels += self.inlet.bad_labels
            self.inlet, self._info, self._opened = self._opened, self._opened.info, None
        found = [info for info in self._resolver.results() if info.source_id()]
        if self._info.source_id() in {info.source_id() for info in found}:
            self._seen, lost, self.lost = True, self.lost, False
            return "back" if lost else ""
        if found:
            self._open(found[0])  # liblsl itself takes up only a sender with the same source_id
        if self.lost or not (self._seen or found):
            return ""
        self.lost = True  # also where another is there already: it knows nothing of the open segment
        return "lost"

    def close(self) -> None:
        """The run is over: an inlet that was opened again ends with it."""
        self._over = True
        for inlet in (self.inlet, self._opened):
            if inlet is not None:
                inlet.clock.stop()

    def _open(self, info: pylsl.StreamInfo) -> None:
        if self._opening is not None and self._opening.is_alive():
            return

        def take_up() -> None:
            try:
                self._opened = opened = MarkerInlet(info).__enter__()
            except (StreamError, pylsl.util.TimeoutError, pylsl.util.LostError):
                return  # gone again; the next look tries anew
            if self._over:
                opened.clock.stop()

        self._opening = threading.Thread(target=take_up, name="markers-back", daemon=True)
        self._opening.start()


class Recheck:
    """Looks in the background at a sender that may be another one now.

    What a look finds counts only for the newest doubt: during the look the sender may have been restarted once more.
    """

    def __init__(self, same: Callable[[], bool]) -> None:
        """same: False where the sender cannot be asked; raises `StreamError` where it is another one."""
        self._same = same
        self._doubt = self._asked = 0  # numbers of the newest doubt, and of the one that the newest look is for
        self._asked_ns = NO_TIME
        self._found: tuple[int, str | None] | None = None  # number of the doubt, and what `answer` returns
        self._thread: threading.Thread | None = None

    def doubt(self) -> None:
        """Something happened that a look begun before does not cover."""
        self._doubt += 1

    def answer(self, now_ns: int) -> str | None:
        """'' = the sender is the same, a sentence = it is another one and why, None = not known yet.

        Called once a pass; begins a look where none is under way and one is due.
        """
        found = self._found
        if found is not None and found[0] == self._doubt and found[1] is not None:
            return found[1]
        due = self._asked != self._doubt or now_ns - self._asked_ns >= AGAIN_NS
        if due and (self._thread is None or not self._thread.is_alive()):
            self._asked, self._asked_ns = self._doubt, now_ns
            self._thread = threading.Thread(target=self._look, args=(self._doubt,), name="recheck", daemon=True)
            self._thread.start()
        return None

    @property
    def unanswered(self) -> bool:
        """Whether the newest look was in vain."""
        return self._found == (self._doubt, None)

    def _look(self, doubt: int) -> None:
        try:
            found = "" if self._same() else None
        except StreamError as error:
            found = str(error)
        self._found = (doubt, found)
