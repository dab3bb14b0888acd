"""LSL inlets: samples in, `SPIKES`, markers and measured behaviour out. The only place with float seconds."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import pylsl
from pylsl.util import TimeoutError as LslTimeout

from neds_core.errors import StreamError
from runtime.core import samples as reading
from runtime.core.again import Memory
from runtime.core.samples import SANE_S
from runtime.core.values import NO_TIME, SPIKES, Label, Mark
from runtime.core.words import LONGEST, plain, quoted
from runtime.io.keep_alives import MOST_OPEN, SentCount
from runtime.io.lsl_clock import ClockMap, now_ns
from runtime.io.lsl_description import Description
from runtime.io.lsl_resolve import DESCRIBE_S
from runtime.io.markers import is_number, read_marker, usable

MAX_PULL = 65_536
BUFFER_S = 10
UNKNOWN_RATE_HZ = 20_000.0  # sizes the buffer of a stream that declares no rate
MOST_BUFFERED = 4_000_000  # samples, about 30 MB: 10 s at twice 200,000 spikes/s
MOST_ODD = 100  # names of labels that are kept to be shown
DELAYS_KEPT = 1 << 20
OPEN_S = 10.0  # for a sender that was found to open its stream


class Delays:
    """Arrival minus stamp of the newest samples of a stream, in ms."""

    def __init__(self, capacity: int) -> None:
        self.ms = np.full(capacity, np.nan, np.float32)  # written, so that none of its pages is first used in the loop
        self.n = 0

    def note(self, arrival_ns: int, t_ns: np.ndarray) -> None:
        """Samples stamped t_ns (n,) int64 came at arrival_ns."""
        newest = t_ns[-len(self.ms) :]
        at = (self.n + np.arange(len(newest))) % len(self.ms)
        self.ms[at] = (arrival_ns - newest) * 1e-6
        self.n += len(newest)

    def kept(self) -> np.ndarray:
        """(n,) float32, in no particular order."""
        return self.ms[: self.n]


class Inlet:
    """One LSL stream, opened with `with`; its clock may be started earlier to save time."""

    def __init__(self, info: pylsl.StreamInfo, max_buflen: int = 360, delays_kept: int = 1 << 16) -> None:
        self.info = info
        self.delays = Delays(delays_kept)
        self.odd_stamp_s = np.nan  # the newest stamp that no LSL clock gives
        self.inlet = pylsl.StreamInlet(info, max_buflen=max_buflen, processing_flags=pylsl.proc_none)
        self.clock = ClockMap(self.inlet, info)

    def __enter__(self) -> Self:
        self.clock.start()
        self.clock.wait()
        try:
            self.inlet.open_stream(OPEN_S)
        except (LslTimeout, RuntimeError):
            self.clock.stop()
            name = quoted(self.info.name())
            raise StreamError(
                f"stream {name} was found but sends nothing within {OPEN_S:g} s; restart its sender"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock.stop()

    @property
    def waits(self) -> bool:
        """Whether samples have come that were not pulled yet: sooner said than a pull that finds none."""
        return self.inlet.samples_available() > 0

    def described(self) -> pylsl.StreamInfo:
        """All that the stream says of itself. Raises `StreamError` where its sender does not answer."""
        try:
            return self.inlet.info(DESCRIBE_S)
        except (LslTimeout, RuntimeError):
            name = quoted(self.info.name())
            raise StreamError(f"stream {name} was found but does not answer; restart its sender") from None

    def _note_arrival(self, stamps: list[float] | np.ndarray) -> None:
        """Samples with these LSL stamps have just come."""
        known = np.asarray(stamps, np.float64)
        sane = np.abs(known) < SANE_S
        if not sane.all():
            self.odd_stamp_s = float(known[~sane][-1])
        known = known[sane]
        if len(known):
            self.delays.note(now_ns(), np.rint(known * 1e9).astype(np.int64) + self.clock.offset_ns)


class SpikeInlet(Inlet):
    """Spike events of one LSL stream (layout events_unit), stamps mapped to the local clock in ns.

    Where the stream declares keep-alives, a negative value that fits its count is one (`SentCount`). It carries no
    spike; it moves the watermark and counts what was lost on the way. Other negative values are spikes of no unit.
    A spike that is sent again keeps its stamp and gets the unit `SENT_AGAIN`; a keep-alive that is, says nothing.
    """

    def __init__(self, info: pylsl.StreamInfo, description: Description) -> None:
        super().__init__(info, self._buffer(2.0 * description.rate_hz or UNKNOWN_RATE_HZ), DELAYS_KEPT)
        self.description = description
        self.units = np.zeros((MAX_PULL, 1), np.int32)
        self.spikes = np.zeros(MAX_PULL + MOST_OPEN + 1, SPIKES)
        self.received = 0
        self.keep_alive_ns = NO_TIME
        self._sent = SentCount()
        self._memory = Memory()
        self._same = 0  # spikes with unit and stamp of one before
        self._sent_ns, self._here_ns = np.zeros((2, MAX_PULL), np.int64)
        self._negative = np.zeros((MAX_PULL, 3), np.int64)
        self._read(np.zeros(0), 0)  # compiles, before the loop

    @property
    def lost_upstream(self) -> int:
        """Spikes that the sender counted and that never came."""
        return self._sent.lost

    @staticmethod
    def _buffer(rate_hz: float) -> int:
        """max_buflen for BUFFER_S seconds: an irregular stream keeps 100 samples per unit of it."""
        return max(1, int(np.ceil(min(rate_hz * BUFFER_S, MOST_BUFFERED) / 100)))

    def pull(self, timeout_s: float) -> np.ndarray:
        """Wait for the next samples, at most timeout_s; returns spikes (n,) `SPIKES`, reused.

        `keep_alive_ns` is then the newest keep-alive stamp of this pull, or NO_TIME.
        """
        _, stamps = self.inlet.pull_chunk(
            timeout=timeout_s, max_samples=MAX_PULL, dest_obj=self.units, min_samples=1, as_numpy=True
        )
        self.keep_alive_ns = NO_TIME
        n = len(stamps)
        if n == 0:
            return self.spikes[:0]
        return self._read(stamps, now_ns())

    def _read(self, stamps: np.ndarray, arrival_ns: int) -> np.ndarray:
        """Spikes (m,) `SPIKES` of the samples `units`, with LSL stamps (n,) in s, that came at arrival_ns."""
        n, keep_alives, line = len(stamps), self.description.keep_alive, self.clock.line
        units, sent_ns, here_ns = self.units[:n, 0], self._sent_ns[:n], self._here_ns[:n]
        odd = reading.stamped(stamps, sent_ns, here_ns, *line)
        if odd >= 0:
            self.odd_stamp_s = float(stamps[odd])
        found, refuted = self._memory.look(units, sent_ns), 0
        n_negative, same = reading.negative(units, sent_ns, found, self._negative)
        if keep_alives:
            for k, before, same_before in self._negative[:n_negative].tolist():
                kept, wrong = self._sent.take(
                    int(sent_ns[k]), int(units[k]), self.received + before, self._same + same_before
                )
                if kept:  # not the last: one that comes again is old
                    self.keep_alive_ns = max(self.keep_alive_ns, int(here_ns[k]))
                self.received += len(wrong)
                for claim in wrong:
                    self.spikes[refuted] = self.clock.here(np.array([claim.t_ns]))[0], claim.value
                    refuted += 1
            self._same += same
        count, self.delays.n = reading.gather(
            units, here_ns, found, keep_alives, arrival_ns, self.spikes[refuted:], self.delays.ms, self.delays.n
        )
        self.received += count
        return self.spikes[: refuted + count]

    def resumed(self) -> bool:
        """Whether the sender has gone and come back since the last call: liblsl connects again by itself."""
        return bool(self.inlet.was_clock_reset())


class MarkerInlet(Inlet):
    """Task markers as JSON strings: {"event": ..., "segment": 17, "labels": {...}}."""

    def __init__(self, info: pylsl.StreamInfo) -> None:
        super().__init__(info)
        self.bad = 0
        self.last = ""
        self.last_bad = ""  # the newest one that could not be read, as it came
        self.bad_labels = 0
        self.odd_labels: dict[str, str] = {}  # the newest that cannot be used, by name
        self.ended = False

    def pull(self) -> list[Mark]:
        """New segment marks; anything malformed is counted and dropped."""
        marks: list[Mark] = []
        if not self.waits:
            return marks
        samples, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=256, as_numpy=True)  # as bytes, of any kind
        self._note_arrival(stamps)
        for text, stamp in zip(np.ravel(np.asarray(samples)), np.asarray(stamps).tolist(), strict=True):
            marker = read_marker(text)
            if marker is None or not abs(stamp) < SANE_S:
                self.bad += 1
                self.last_bad = _shown(text)
                continue
            event, segment = marker.event, int(marker.segment)
            self.last = f"{plain(event, LONGEST)} {segment}" if segment >= 0 else plain(event, LONGEST)
            if event == "recording_end":
                self.ended = True
            if event == "segment_start" or event == "segment_end":
                t_ns = round(stamp * 1e9) + self.clock.offset_ns
                first_bin = None if marker.bin is None else int(marker.bin)
                labels = self._labels(marker.labels)
                marks.append(Mark(t_ns, event, segment, labels, first_bin, *self._stands(marker.stands)))
        return marks

    def _stands(self, given: Any) -> tuple[dict[str, float], str]:
        """Where outputs stand, or the first name whose value is no number, `stands` where it is no object at all.

        Each such value is counted as a bad label.
        """
        if given is None:
            return {}, ""
        named = given if isinstance(given, dict) else {"stands": given}
        odd = {name: value for name, value in named.items() if not isinstance(given, dict) or not is_number(value)}
        self._note_odd(odd)
        return ({}, plain(next(iter(odd)), LONGEST)) if odd else ({name: float(v) for name, v in named.items()}, "")

    def _labels(self, given: Any) -> dict[str, Label]:
        """The labels that are a text, a number or a truth; another costs itself, not the mark."""
        if not isinstance(given, dict):
            self.bad_labels += given is not None
            return {}
        odd = {name: value for name, value in given.items() if not usable(value)}
        self._note_odd(odd)
        return {name: value for name, value in given.items() if name not in odd}

    def _note_odd(self, odd: dict[str, Any]) -> None:
        self.bad_labels += len(odd)
        for name, value in odd.items():
            if name in self.odd_labels or len(self.odd_labels) < MOST_ODD:
                self.odd_labels[name] = _shown(str(value))


def _shown(text: bytes | str) -> str:
    """The beginning of a marker, fit for a terminal."""
    begun = text[: 4 * LONGEST]
    return plain(begun.decode(errors="replace") if isinstance(begun, bytes) else begun, LONGEST)


class BehaviourInlet(Inlet):
    """One measured behaviour, for display and scores; it never reaches the decoder."""

    def __init__(self, name: str, info: pylsl.StreamInfo, channel: int = 0) -> None:
        """channel: of the stream, counted from 0."""
        super().__init__(info)
        self.name, self.channel = name, channel
        self._newest = (NO_TIME, np.nan)

    def pull(self) -> list[tuple[int, float]]:
        """What has arrived: (stamp in ns, value)."""
        if not self.waits:
            return []
        samples, stamps = self.inlet.pull_chunk(timeout=0.0, max_samples=1024)
        self._note_arrival(stamps)
        found = [
            (round(stamp * 1e9) + self.clock.offset_ns, float(sample[self.channel]))
            for sample, stamp in zip(samples or [], stamps, strict=True)
            if abs(stamp) < SANE_S
        ]
        if found:
            self._newest = found[-1]
        return found

    def latest(self, since_ns: int) -> float | None:
        """The newest value, or None where it is not finite or its stamp lies before since_ns."""
        t_ns, value = self._newest
        return value if t_ns >= since_ns and np.isfinite(value) else None
