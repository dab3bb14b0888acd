"""Watching senders while a run goes on: markers whose sender is gone, and one that comes back."""

from __future__ import annotations

import threading

import pylsl

from neds_core.errors import StreamError
from runtime.io.lsl_inlets import MarkerInlet

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
