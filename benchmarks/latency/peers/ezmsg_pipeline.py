"""The same decoders as units of an ezmsg graph: two LSL inlets, binning, decoding, and ezmsg's own ZeroMQ sender.

As the guides of ezmsg, ezmsg-lsl and ezmsg-zmq set one up: all units in one process (messages pass by reference),
inlets that wait in liblsl, LSL's own clock, `wait_for_sub` off. It is driven by its data: nothing closes a bin but a
later sample. `python -m benchmarks.latency.peers.ezmsg_pipeline PLAN.json`
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import ezmsg.core as ez  # pyright: ignore[reportMissingImports]
import msgspec
import pylsl
from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit  # pyright: ignore[reportMissingImports]
from ezmsg.zmq.pubsub import ZMQSenderSettings, ZMQSenderUnit  # pyright: ignore[reportMissingImports]
from ezmsg.zmq.util import ZMQMessage  # pyright: ignore[reportMissingImports]

from benchmarks.latency.peers.loop import ADDRESS, Closed, Plan, Stepper, made, ns, warm_up
from runtime.io import system
from runtime.io.lsl_resolve import REPLAY_SESSION, configure


class Settings(ez.Settings):
    """The one stepper, whose bins one unit closes and the other decodes, and what to say when all is ready."""

    stepper: Stepper
    ready: str = ""


class Binning(ez.Unit):
    """Samples to closed bins, each a message."""

    SETTINGS = Settings
    INPUT_SPIKES = ez.InputStream(Any)
    INPUT_MARKERS = ez.InputStream(Any)
    OUTPUT_BINS = ez.OutputStream(Closed)

    @ez.subscriber(INPUT_SPIKES, zero_copy=True)
    @ez.publisher(OUTPUT_BINS)
    async def spikes(self, message: Any) -> AsyncGenerator[tuple[Any, Closed], None]:
        stepper = self.SETTINGS.stepper
        stepper.bins.feed(ns(message.axes["time"].data), message.data[:, 0])
        for closed in stepper.closed(0):
            yield self.OUTPUT_BINS, closed

    @ez.subscriber(INPUT_MARKERS, zero_copy=True)
    async def markers(self, message: Any) -> None:
        self.SETTINGS.stepper.trials.note(message.data[:, 0].tolist(), ns(message.axes["time"].data).tolist())


class Decoding(ez.Unit):
    """Closed bins to the bytes of messages."""

    SETTINGS = Settings
    INPUT_BINS = ez.InputStream(Closed)
    OUTPUT_ESTIMATE = ez.OutputStream(ZMQMessage)

    async def initialize(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # this thread decodes
        print(self.SETTINGS.ready, file=sys.stderr, flush=True)

    @ez.subscriber(INPUT_BINS, zero_copy=True)
    @ez.publisher(OUTPUT_ESTIMATE)
    async def bins(self, message: Closed) -> AsyncGenerator[tuple[Any, ZMQMessage], None]:
        yield self.OUTPUT_ESTIMATE, ZMQMessage(data=self.SETTINGS.stepper.decode(message))


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def inlet(name: str) -> LSLInletUnit:
    """A stream of this machine, on LSL's clock, as it was stamped."""
    found = LSLInfo(name=name)
    return LSLInletUnit(LSLInletSettings(info=found, use_lsl_clock=True, processing_flags=pylsl.proc_none))


def run(plan: Plan) -> None:
    """Until it is ended."""
    configure(REPLAY_SESSION, "machine")
    decoder, address = made(plan), f"tcp://127.0.0.1:{free_port()}"
    warm_up(plan, decoder)
    stepper = Stepper(plan, decoder)
    topic = stepper.publisher.topic.decode()
    units = {
        "SPIKES": inlet(f"{plan.prefix}-spikes"),
        "MARKERS": inlet(f"{plan.prefix}-markers"),
        "BINNING": Binning(Settings(stepper)),
        "DECODING": Decoding(Settings(stepper, ADDRESS.format(address))),
        "SENDER": ZMQSenderUnit(ZMQSenderSettings(address, topic, multipart=True, wait_for_sub=False)),
    }
    spikes, markers, binning, decoding, sender = units.values()
    edges = (
        (spikes.OUTPUT_SIGNAL, binning.INPUT_SPIKES),
        (markers.OUTPUT_SIGNAL, binning.INPUT_MARKERS),
        (binning.OUTPUT_BINS, decoding.INPUT_BINS),
        (decoding.OUTPUT_ESTIMATE, sender.INPUT),
    )
    system.raise_priority()
    ez.run(units, connections=edges, graph_address=("127.0.0.1", free_port()), auto_start=True)


if __name__ == "__main__":
    run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
