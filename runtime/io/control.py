"""The control socket of a run: requests in, one answer each, in a thread of its own. Data only: nothing is executed."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, Literal, Self

import msgspec
import zmq
from msgspec import Meta, Struct

from neds_core.errors import NedsError, StreamError
from runtime.io import system

HOST = "127.0.0.1"
LONGEST, DROPPED = 8192, 1 << 20  # bytes of a request: longer ones are refused, and from DROPPED on not even read
TICK_MS = 100
CLOSE_S = 2.0  # how long the end of a run waits for a request that is being answered


class Swap(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="request", tag="swap"):
    """Decode with another checkpoint: an absolute path on the machine of the run, and the SHA-256 of the file.

    swap_at: '' = as the rig says. force: also where its gate has not passed. expect: SHA-256 of what must be decoding,
    '' = any.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    swap_at: Literal["", "iti", "now"] = ""
    force: bool = False
    expect: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""


class Rollback(Struct, frozen=True, forbid_unknown_fields=True, tag_field="request", tag="rollback"):
    """Decode with the decoder before the newest again, or drop one that waits to take over."""


class State(Struct, frozen=True, forbid_unknown_fields=True, tag_field="request", tag="state"):
    """Say what decodes."""


class Freeze(Struct, frozen=True, forbid_unknown_fields=True, tag_field="request", tag="freeze"):
    """Take no other decoder from here on, or take one again. A rollback and a fallback go on."""

    on: bool = True


Request = Swap | Rollback | State | Freeze


class Waiting(Struct, frozen=True):
    """A decoder that waits to take over."""

    why: str
    model: str
    model_sha: str


class Running(Struct, frozen=True):
    """What decodes, from the bin `since` on; exchanges: how many there were in this run; previous: SHA-256 of the one
    that a rollback goes back to, '' = none; probation: bins that are left of it; chain: the file of the chain; path: of
    its checkpoint, as the run was told it; frozen: no swap is taken; setting: engine.decoder of the run, which each
    checkpoint publishes by, '' = an older run does not say."""

    rig: str
    decoder: str
    model: str
    model_sha: str
    since: int
    why: str  # swap | rollback | fallback, '' = the run began with it
    gated: bool
    exchanges: int
    previous: str
    probation: int
    chain: str
    waiting: Waiting | None = None
    path: str = ""
    frozen: bool = False
    setting: str = ""


class Answer(Struct, frozen=True):
    """ok: it is done or under way; said: one sentence. by_gate: refused because no gate has passed."""

    ok: bool
    said: str
    by_gate: bool = False
    running: Running | None = None


_requests = (msgspec.msgpack.Decoder(Request), msgspec.json.Decoder(Request))
_answers = msgspec.msgpack.Decoder(Answer)


def read(payload: bytes) -> Request | str:
    """A request, from msgpack or JSON, or why it is none in one sentence."""
    if len(payload) > LONGEST:
        return f"the request has {len(payload)} bytes, more than {LONGEST}; send a path, not a file"
    try:
        return _requests[payload[:1] == b"{"].decode(payload)
    except (ValueError, RecursionError) as error:  # msgspec's errors and bad UTF-8 are ValueErrors
        return f"the request cannot be read ({' '.join(str(error).split())}); see docs/wire.md"


class Control:
    """The socket, opened with `with`. Requests wait until `serve`, and those of a client that dies are answered too."""

    def __init__(self, port: int) -> None:
        """port: 0 takes a free one."""
        self.port, self.address = port, ""
        self._context = zmq.Context()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Raises `StreamError` where the port is taken."""
        socket = self._socket = self._context.socket(zmq.REP)
        for option, value in ((zmq.LINGER, 0), (zmq.MAXMSGSIZE, DROPPED), (zmq.RCVHWM, 16)):
            socket.setsockopt(option, value)
        try:
            if self.port == 0:
                self.port = socket.bind_to_random_port(f"tcp://{HOST}")
            else:
                socket.bind(f"tcp://{HOST}:{self.port}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise StreamError(
                f"port {self.port} on {HOST} cannot be bound ({zmq.strerror(error.errno or 0)}); another run may hold "
                "it: stop it or set control.port (0 takes a free one)"
            ) from None
        self.address = f"tcp://{HOST}:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.close():  # a socket is one thread's at a time
            self._context.destroy(linger=0)

    def serve(self, answer: Callable[[Request], Answer], look: Callable[[], None]) -> None:
        """Answer requests from here on. look: called between requests, ten times a second."""
        self._thread = threading.Thread(target=self._run, args=(answer, look), name="control", daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Take no more requests; returns whether none is being answered any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, answer: Callable[[Request], Answer], look: Callable[[], None]) -> None:
        system.beside_the_loop()
        told = ""
        while not self._over.is_set():
            if self._socket.poll(TICK_MS):
                self._reply(answer)
            try:
                look()
            except Exception as error:  # the loop goes on decoding, whatever is wrong here
                if repr(error) != told:
                    logging.getLogger(__name__).exception("control")
                told = repr(error)

    def _reply(self, answer: Callable[[Request], Answer]) -> None:
        """One answer for one request, whatever it is."""
        frames = self._socket.recv_multipart()
        payload = frames[0] if len(frames) == 1 else b""
        request = read(payload)
        try:
            found = Answer(False, request) if isinstance(request, str) else answer(request)
        except NedsError as error:
            found = Answer(False, str(error))
        except Exception as error:
            logging.getLogger(__name__).exception("control")
            found = Answer(False, f"the run could not do it ({type(error).__name__}: {error}); it goes on as before")
        as_json = payload[:1] == b"{"
        with contextlib.suppress(zmq.ZMQError):  # the client has gone
            self._socket.send(msgspec.json.encode(found) if as_json else msgspec.msgpack.encode(found), zmq.NOBLOCK)


def ask(address: str, request: Request, timeout_s: float = 60.0) -> Answer:
    """Send a request to a run and wait for the answer. Raises `StreamError` where none comes."""
    context = zmq.Context()
    try:
        socket = context.socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(msgspec.msgpack.encode(request))
        if not socket.poll(round(timeout_s * 1e3)):
            raise StreamError(f"no run answers at {address} within {timeout_s:g} s; start it, or correct control.port")
        return _answers.decode(socket.recv())
    except zmq.ZMQError as error:
        raise StreamError(f"address {address!r}: {error}; expected tcp://127.0.0.1:PORT") from None
    except msgspec.DecodeError:
        raise StreamError(f"what answers at {address} is no run of neds-rt; correct control.port") from None
    finally:
        context.destroy(linger=0)
