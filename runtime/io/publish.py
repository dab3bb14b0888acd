"""Estimates out over ZeroMQ: decode and status on one port, the newest alone on another."""

from __future__ import annotations

import contextlib
from types import TracebackType

import msgspec
import zmq

from neds_core.errors import StreamError
from runtime.config import OutputConfig
from runtime.wire import Decode, Event, Status, topic

FIRST = zmq.SNDMORE | zmq.NOBLOCK  # of a message of two frames


def library() -> str:
    """The version of the native library."""
    return zmq.zmq_version()


class Publisher:
    """PUB sockets that never block: a slow or absent subscriber costs nothing."""

    def __init__(self, config: OutputConfig, rig: str) -> None:
        self.config = config
        self.encoder = msgspec.json.Encoder() if config.format == "json" else msgspec.msgpack.Encoder()
        self.buffer = bytearray(4096)
        self.topics = {kind: topic(kind, rig) for kind in ("decode", "status", "event", "measured")}
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket] = []
        self.address = self.latest_address = ""

    def __enter__(self) -> Publisher:
        try:
            self.decode, self.address = self._bind(self.config.decode_port, "decode_port")
            self.latest, self.latest_address = self._bind(self.config.latest_port, "latest_port")
        except StreamError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets, giving the last messages a moment to leave."""
        for socket in self.sockets:
            socket.close(linger=200)
        self.context.term()

    def _bind(self, port: int, key: str) -> tuple[zmq.Socket, str]:
        socket = self.context.socket(zmq.PUB)
        self.sockets.append(socket)
        socket.setsockopt(zmq.SNDHWM, 500)
        host = "127.0.0.1" if self.config.host == "localhost" else self.config.host
        try:
            if port == 0:
                port = socket.bind_to_random_port(f"tcp://{host}")
            else:
                socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise StreamError(
                f"port {port} on {host} cannot be bound ({zmq.strerror(error.errno or 0)}); another run may hold it: "
                f"stop it or set output.{key} (0 takes a free one)"
            ) from None
        return socket, f"tcp://{host}:{port}"

    def send(self, message: Decode) -> None:
        """Publish one estimate on both ports."""
        self.encoder.encode_into(message, self.buffer)
        with contextlib.suppress(zmq.Again):
            self.decode.send(self.topics["decode"], FIRST)
            self.decode.send(self.buffer, zmq.NOBLOCK)
        with contextlib.suppress(zmq.Again):
            self.latest.send(self.buffer, zmq.NOBLOCK)

    def tell(self, kind: str, message: Status | Event | dict[str, object]) -> None:
        """Publish a status, an event or the measured values."""
        with contextlib.suppress(zmq.Again):
            self.decode.send_multipart([self.topics[kind], self.encoder.encode(message)], flags=zmq.NOBLOCK)
