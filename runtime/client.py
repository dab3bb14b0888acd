"""Read the decoder's messages and never act on an old one. Needs only pyzmq and msgspec.

with Subscriber("tcp://127.0.0.1:5571") as link:
    while not link.ended:
        speed = link.value("wheel_speed")  # None: nothing fresh, do not act
"""

from __future__ import annotations

import math
import time
from functools import cache
from pathlib import Path
from typing import Self, TypeVar

import zmq

from runtime import wire
from runtime.wire import Decode, Flag, Status

WITHHELD = Flag.GAP | Flag.HOLD | Flag.IDLE  # such a message has null values
PROMPT_NS = 20_000_000  # a message that may have waited longer cannot be the first to teach a clock
CLOCK_SLACK_NS = 1_000_000  # a message further in the future is on a clock that is not ours
DRIFT = 2e-4  # two crystals of 100 ppm: the fastest that a clock offset may rise
DRAIN_LIMIT = 1000  # messages read at once, so that a flood cannot hold the caller
OPTIONS = ((zmq.LINGER, 0), (zmq.MAXMSGSIZE, 1 << 20), (zmq.HEARTBEAT_IVL, 1000), (zmq.HEARTBEAT_TIMEOUT, 3000))
NEWEST_ONLY = ((zmq.CONFLATE, 1), (zmq.SUBSCRIBE, b""))
SMALL_BUFFERS = ((zmq.RCVHWM, 100), (zmq.RCVBUF, 1 << 16))  # what waits there is old when a stalled reader returns

T = TypeVar("T")
_reader = cache(wire.decoder)


def unpack(payload: bytes, kind: type[T]) -> T | None:
    """One message of a struct type, from msgpack or JSON; None if it is not one."""
    try:
        return _reader(kind, json=payload[:1] == b"{").decode(payload)
    except (ValueError, RecursionError):  # msgspec's errors and bad UTF-8 are ValueErrors
        return None


def value_of(message: Decode, name: str) -> float | None:
    """One continuous output in its unit, None if it was withheld. KeyError if there is no such output."""
    if message.flags & WITHHELD:
        return None
    output = message.outputs.get(name)
    if output is None or output.probs is not None:
        raise KeyError(f"no continuous output {name!r} among {sorted(message.outputs)}")
    return output.value if output.value is not None and math.isfinite(output.value) else None


def moment_of(message: Decode, name: str) -> int:
    """The moment that an output speaks of, ns on the publisher's clock. KeyError if there is no such output."""
    return message.t_end_ns + round((message.outputs[name].lead_ms or 0.0) * 1e6)


def boot_id() -> str:
    """Names this machine's monotonic clock; empty where the system has no such name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


class Latest:
    """Reader of the one-frame port, for clients that look now and then: the newest message, if fresh.

    Fresh: within its validity, and its bin ended at most `max_age_ms` ago. Messages not handed out
    are counted: `stale`, `missed` (lost, or skipped for a newer one), `malformed`. `restarts` counts
    new runs of the publisher; `ended` says that the run is over. For one thread.
    """

    def __init__(
        self, address: str = f"tcp://127.0.0.1:{wire.LATEST_PORT}", max_age_ms: float = 60.0, *, options=NEWEST_ONLY
    ) -> None:
        self.stale = self.missed = self.malformed = self.restarts = 0
        self.ended = False
        self._max_age_ns = max_age_ms * 1e6
        self._boot = boot_id()
        self._last: Decode | None = None  # read last
        self._pending: Decode | None = None  # the same, until it is handed out
        self._status: Status | None = None
        self._offset_ns: int | None = None  # our clock minus that of a publisher on another boot
        self._offset_at_ns = self._empty_ns = 0  # when it was learnt; when nothing was waiting
        self._socket = zmq.Context().socket(zmq.SUB)
        for option, setting in (*OPTIONS, *options):
            self._socket.setsockopt(option, setting)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"address {address!r}: {error}; expected tcp://HOST:PORT") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.context.destroy(linger=0)

    def receive(self, timeout_ms: float = 100.0) -> Decode | None:
        """The newest unread message if it is fresh, waiting at most `timeout_ms` for one; else None."""
        deadline_ns = time.monotonic_ns() + int(timeout_ms * 1e6)
        while True:
            emptied = self._drain()
            message, self._pending = self._pending, None
            if message is not None and self.fresh(message):
                return message
            self.stale += message is not None
            left_ns = deadline_ns - time.monotonic_ns()
            if left_ns <= 0 or not self._socket.poll(math.ceil(left_ns / 1e6)):
                return None
            if emptied:  # what is there now has just arrived
                self._empty_ns = time.monotonic_ns()

    def value(self, name: str, timeout_ms: float = 100.0) -> float | None:
        """One continuous output of the next fresh message; None if there is none or it was withheld."""
        message = self.receive(timeout_ms)
        return None if message is None else value_of(message, name)

    def fresh(self, message: Decode) -> bool:
        """Whether this message may still be acted on, now."""
        now_ns = time.monotonic_ns()
        if self._boot and message.boot_id == self._boot:  # the LSL clock is this machine's monotonic clock
            valid = now_ns < message.valid_until_ns
        else:
            now_ns -= self._offset_ns or 0
            valid = self._offset_ns is not None and now_ns - message.t_pub_ns < message.valid_for_ms * 1e6
        known_clock = now_ns - message.t_pub_ns >= -CLOCK_SLACK_NS
        return valid and known_clock and now_ns - message.t_end_ns <= self._max_age_ns

    def _drain(self) -> bool:
        """Read what is waiting and keep the newest; True if nothing is left."""
        for _ in range(DRAIN_LIMIT):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self._empty_ns = time.monotonic_ns()
                return True
            self._take(frames)
        return False

    def _take(self, frames: list[bytes]) -> None:
        message = unpack(frames[-1], Decode)
        if message is None or message.schema != wire.SCHEMA:
            self.malformed += 1
        elif message != self._last:
            self._follow(message)
            self._learn_clock(message.t_pub_ns)
            self.missed += self._pending is not None
            self._pending = self._last = message
            self.ended = bool(message.flags & Flag.END)

    def _follow(self, message: Decode) -> None:
        """Count what is missing between the last message and this one, or a new run."""
        last = self._last
        if last is None:
            return
        same_boot = message.boot_id == last.boot_id
        if same_boot and message.seq > last.seq and message.t_pub_ns >= last.t_pub_ns and not self.ended:
            self.missed += message.seq - last.seq - 1
            return
        self.restarts += 1
        self._status = None
        if not (same_boot and message.boot_id):  # a boot without a name may be another one
            self._offset_ns = None

    def _learn_clock(self, t_pub_ns: int) -> None:
        """Keep the smallest offset seen; the first may not come from a message that lay waiting."""
        now_ns = time.monotonic_ns()
        offset_ns = now_ns - t_pub_ns
        if self._offset_ns is not None:
            offset_ns = min(offset_ns, self._offset_ns + round(DRIFT * (now_ns - self._offset_at_ns)))
        elif now_ns - self._empty_ns > PROMPT_NS:
            return
        self._offset_ns, self._offset_at_ns = offset_ns, now_ns


class Subscriber(Latest):
    """Reader of one rig's decode and status topics; an empty `rig` is the first one heard."""

    def __init__(
        self, address: str = f"tcp://127.0.0.1:{wire.DECODE_PORT}", rig: str = "", max_age_ms: float = 60.0
    ) -> None:
        self._rig = rig.encode()
        topics = [wire.topic(kind, rig) if rig else wire.topic(kind, "")[:-1] for kind in ("decode", "status")]
        super().__init__(address, max_age_ms, options=(*SMALL_BUFFERS, *((zmq.SUBSCRIBE, topic) for topic in topics)))

    def status(self) -> Status | None:
        """The newest status of this run; None before the first, which takes up to a second."""
        self._drain()
        return self._status

    def _take(self, frames: list[bytes]) -> None:
        parts = frames[0].split(b"/")  # neds/1/kind/rig/
        if len(frames) != 2 or len(parts) != 5:
            self.malformed += 1
            return
        self._rig = self._rig or parts[3]
        if parts[3] != self._rig:
            return
        if parts[2] == b"decode":
            super()._take(frames)
        elif status := unpack(frames[1], Status):
            self._status = status
        else:
            self.malformed += 1
