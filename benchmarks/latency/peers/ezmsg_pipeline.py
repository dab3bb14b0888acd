"""The same decoders as units of an ezmsg graph: two LSL inlets, binning, decoding, and ezmsg's own ZeroMQ sender.

As the guides of ezmsg, ezmsg-lsl and ezmsg-zmq set one up: all units in one process (messages pass by reference),
inlets that wait in liblsl, LSL's own clock, `wait_for_sub` off. It is driven by its data: nothing closes a bin but a
later sample. `python -m benchmarks.latency.peers.ezmsg_pipeline PLAN.json`
"""

from __future__ import annotations

import os
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

from benchmarks.latency.peers.loop import ADDRESS, Binning, Closed, Decoding, Plan, ns
from runtime import wire
from runtime.io import system
from runtime.io.lsl_resolve import REPLAY_SESSION, configure


class Settings(ez.Settings):
    """What is to be decoded."""

    plan: Plan


class BinningUnit(ez.Unit):
    """Samples to closed bins, each a message."""

    SETTINGS = Settings
    INPUT_SPIKES = ez.InputStream(Any)
    INPUT_MARKERS = ez.InputStream(Any)
    OUTPUT_BINS = ez.OutputStream(Closed)

    async def initialize(self) -> None:
        self.binning = Binning(self.SETTINGS.plan)

    @ez.subscriber(INPUT_SPIKES)
    @ez.publisher(OUTPUT_BINS)
    async def spikes(self, message: Any) -> AsyncGenerator[tuple[Any, Closed], None]:
        self.binning.bins.feed(ns(message.axes["time"].data), message.data[:, 0])
        for closed in self.binning.closed(0):
            yield self.OUTPUT_BINS, closed

    @ez.subscriber(INPUT_MARKERS)
    async def markers(self, message: Any) -> None:
        self.binning.trials.note(message.data[:, 0].tolist(), ns(message.axes["time"].data).tolist())


class DecodingUnit(ez.Unit):
    """Closed bins to the bytes of messages."""

    SETTINGS = Settings
    INPUT_BINS = ez.InputStream(Closed)
    OUTPUT_ESTIMATE = ez.OutputStream(ZMQMessage)

    async def initialize(self) -> None:
        self.decoding = Decoding(self.SETTINGS.plan)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # this thread decodes
        print(ADDRESS.format(self.SETTINGS.plan.address), file=sys.stderr, flush=True)

    @ez.subscriber(INPUT_BINS)
    @ez.publisher(OUTPUT_ESTIMATE)
    async def bins(self, message: Closed) -> AsyncGenerator[tuple[Any, ZMQMessage], None]:
        yield self.OUTPUT_ESTIMATE, ZMQMessage(data=self.decoding.decode(message))


def inlet(name: str) -> LSLInletUnit:
    """A stream of this machine, on LSL's clock, as it was stamped."""
    found = LSLInfo(name=name)
    return LSLInletUnit(LSLInletSettings(info=found, use_lsl_clock=True, processing_flags=pylsl.proc_none))


def run(plan: Plan) -> None:
    """Until it is ended."""
    configure(REPLAY_SESSION, "machine")
    topic = wire.topic("decode", "peer").decode()
    units = {
        "SPIKES": inlet(f"{plan.prefix}-spikes"),
        "MARKERS": inlet(f"{plan.prefix}-markers"),
        "BINNING": BinningUnit(Settings(plan)),
        "DECODING": DecodingUnit(Settings(plan)),
        "SENDER": ZMQSenderUnit(ZMQSenderSettings(plan.address, topic, multipart=True, wait_for_sub=False)),
    }
    spikes, markers, binning, decoding, sender = units.values()
    edges = (
        (spikes.OUTPUT_SIGNAL, binning.INPUT_SPIKES),
        (markers.OUTPUT_SIGNAL, binning.INPUT_MARKERS),
        (binning.OUTPUT_BINS, decoding.INPUT_BINS),
        (decoding.OUTPUT_ESTIMATE, sender.INPUT),
    )
    system.raise_priority()
    ez.run(units, connections=edges, graph_address=("127.0.0.1", plan.graph_port), auto_start=True)


if __name__ == "__main__":
    run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
