"""The source of a live run: LSL streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np

from neds_core.errors import StreamError
from runtime.core.values import NO_TIME, Mark
from runtime.io.streams import Streams

WATCH_NS = 1_000_000_000  # between two looks at whether sender and player are still what they were


class LslSource:
    """The inlets of one run, opened with `with`; see `runtime.live.loop.Source`."""

    def __init__(self, streams: Streams, bin_ns: int, player_runs: Callable[[], bool] = lambda: True) -> None:
        """player_runs: False once a player that this run started has ended."""
        self.streams, self.bin_ns, self.player_runs = streams, bin_ns, player_runs
        self.alive_ns: int = NO_TIME
        self.last_marker = ""
        self._refusal = ""
        self._watch_ns = NO_TIME
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # what is open closes where another cannot be opened
            for inlet in self.streams.all():
                stack.enter_context(inlet)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def probe(self) -> None:
        """Start to measure the senders' clocks: the first probe takes most of a second."""
        for inlet in self.streams.all():
            inlet.clock.start()

    def wait(self, timeout_s: float) -> np.ndarray:
        """Wait for spikes (n,) `SPIKES`, at most timeout_s; reused by the next call."""
        spikes = self.streams.spikes.pull(timeout_s)
        self.alive_ns = self.streams.spikes.keep_alive_ns
        return spikes

    def marks(self) -> list[Mark]:
        """Marks that came since the last call."""
        markers = self.streams.markers
        if markers is None:
            return []
        found = markers.pull()
        self.last_marker = markers.last
        return found

    def behaviour(self) -> Iterator[tuple[str, int, float]]:
        """Samples that came since the last call."""
        for name, inlet in self.streams.behaviours.items():
            for t_ns, value in inlet.pull():
                yield name, t_ns, value

    def measured(self, now_ns: int) -> dict[str, float | None]:
        """The newest value of each behaviour, None where it is older than two bins: never an old one as new."""
        since_ns = now_ns - 2 * self.bin_ns
        return {name: inlet.latest(since_ns) for name, inlet in self.streams.behaviours.items()}

    @property
    def clock_jumps(self) -> int:
        """How often the sender's clock has stepped."""
        return self.streams.spikes.clock.jumps

    def counters(self) -> dict[str, int]:
        """What is counted here rather than by the pipeline."""
        markers = self.streams.markers
        return {
            "spikes_lost_upstream": self.streams.spikes.lost_upstream,
            "clock_jumps": self.clock_jumps,
            "bad_markers": markers.bad if markers is not None else 0,
        }

    def over(self, now_ns: int) -> str:
        """Why the run has to end: the recording is over, its player has gone, or the sender sends other units."""
        ended = self.streams.markers is not None and self.streams.markers.ended
        if now_ns - self._watch_ns >= WATCH_NS:
            self._watch_ns = now_ns
            if self.streams.spikes.resumed():
                threading.Thread(target=self._recheck, name="recheck", daemon=True).start()
            if self._refusal:
                return "stream_changed"
            if not ended and not self.player_runs():
                return "player_gone"
        return "recording_end" if ended else ""

    def refusal(self) -> str:
        """Why the spike stream may no longer be decoded, '' = it may."""
        return self._refusal

    def _recheck(self) -> None:
        """After the sender came back: it may send other units under the old name."""
        try:
            self.streams.recheck()
        except StreamError as error:
            self._refusal = str(error)
