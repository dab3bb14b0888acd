"""The LSL clock of this machine, and the offset of a sender's clock from it."""

from __future__ import annotations

import socket
import statistics
import threading
from collections import deque

import pylsl
from pylsl.util import LostError, TimeoutError as LslTimeout

from neds_core.errors import StreamError

SAME_CLOCK_S = 1e-3  # a stream of this host within this offset stamps with this very clock
PROBE_S = 2.0
JUMP_NS = 5_000_000


def now_ns() -> int:
    """The LSL clock of this machine in ns."""
    return round(pylsl.local_clock() * 1e9)


class ClockMap:
    """Offset from a sender's clock to ours, probed off the loop and frozen between probes.

    A stream of this host whose offset is within 1 ms uses this very clock: its offset is 0
    by fact, not by estimate.
    """

    def __init__(self, inlet: pylsl.StreamInlet, info: pylsl.StreamInfo) -> None:
        self.inlet, self.name = inlet, info.name()
        self.same_host = info.hostname() == socket.gethostname()
        self.offset_ns = 0
        self.jumps = 0
        self._recent: deque[float] = deque(maxlen=15)
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._probe, name="lsl-clock", daemon=True)

    def start(self) -> None:
        """Probe in the background: at once (the first takes most of a second), then every 2 s."""
        if not self._thread.is_alive():
            self._thread.start()

    def wait(self, timeout_s: float = 10.0) -> None:
        """Until the first probe is done. Raises `StreamError` where it never is."""
        if not self._ready.wait(timeout_s):
            raise StreamError(f"the sender of {self.name!r} does not answer clock probes; restart it")

    def stop(self) -> None:
        """End the probes."""
        self._stop.set()

    def _probe(self) -> None:
        self._update(8.0)
        while not self._stop.wait(PROBE_S):
            self._update(1.0)

    def _update(self, timeout_s: float) -> None:
        try:
            offset = self.inlet.time_correction(timeout_s)
        except (LslTimeout, LostError):
            return  # the last offset holds; liveness is judged by samples, never by probes
        self._recent.append(offset)
        newest = list(self._recent)[-2:]
        if self._ready.is_set() and all(abs(o * 1e9 - self.offset_ns) > JUMP_NS for o in newest):
            self.jumps += 1  # one probe may be a hiccup, two are a clock that stepped
            self._recent = deque(newest, self._recent.maxlen)
        middle = statistics.median(self._recent)
        if self.same_host and abs(middle) < SAME_CLOCK_S:
            middle = 0.0
        self.offset_ns = round(middle * 1e9)
        self._ready.set()
