"""The live terminal view: a subscriber in a process of its own. `python -m runtime.views.terminal ADDRESS RIG`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from datetime import UTC, datetime

import zmq
from rich.console import Console
from rich.live import Live

from runtime.client import Subscriber, unpack
from runtime.console import open_console
from runtime.views.look import STALE_MS
from runtime.views.model import Measured, Shown
from runtime.views.picture import render
from runtime.wire import topic

DRAW_NS = 100_000_000
REST = 2  # times as long as a picture took, at least, from one to the next: it may not take a core


def main(address: str, rig: str) -> None:
    """Show a rig until its run ends, a signal comes, or the process that started this one is gone."""
    stopped: list[int] = []
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda caught, _: stopped.append(caught))
    parent, state, console = os.getppid(), Shown(address, rig), Console()
    with (
        Subscriber(address, rig, max_age_ms=STALE_MS) as link,
        zmq.Context() as context,
        context.socket(zmq.SUB) as socket,
        Live(console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        socket.subscribe(topic("measured", rig))
        socket.connect(address)
        due_ns = 0
        while not (stopped or link.ended or os.getppid() != parent):
            follow(state, link, socket)
            if state.now_ns >= due_ns:
                live.update(render(state, *console.size), refresh=True)
                due_ns = state.now_ns + max(DRAW_NS, REST * (time.monotonic_ns() - state.now_ns))


def follow(state: Shown, link: Subscriber, measured: zmq.Socket[bytes]) -> None:
    """Wait up to one bin for news and take it in."""
    message, status = link.receive(timeout_ms=20), link.status()
    state.now_ns, state.now = time.monotonic_ns(), datetime.now(UTC)
    state.refused, state.missed = link.stale, link.missed
    if message is not None:
        state.take_decode(message)
    if status is not state.status:
        state.status, state.status_at_ns = status, state.now_ns
    while measured.poll(0):
        values = unpack(measured.recv_multipart()[-1], Measured)
        if values is not None:
            state.take_measured(values)


if __name__ == "__main__":
    open_console("replace")  # one place for each character: it is a picture
    with contextlib.suppress(OSError):
        os.nice(10)  # a picture may be late; the decoder may not
    main(*sys.argv[1:3])
