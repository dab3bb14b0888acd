"""The plain loop: LSL in, bins in numpy, a decoder, ZeroMQ out. One process, one thread, no promise about old data.

`python -m benchmarks.latency.peers.loop PLAN.json` runs until it is ended.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pylsl
import torch
import zmq
from msgspec import Struct

from benchmarks.latency.peers import decoders
from benchmarks.latency.peers.decoders import Files
from runtime import wire
from runtime.io import system
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_resolve import REPLAY_SESSION, configure, resolve
from runtime.wire import SCHEMA, Decode, Output

OPEN_BINS, MOST, WAIT_S = 256, 16_384, 60.0
NEVER = 2**62  # `valid_until_ns` of a sender that says nothing of an end
ADDRESS = "decode and status on {}, of a peer"  # as `neds-rt run` says it


class Plan(Struct, frozen=True):
    """What a peer is to decode. port: of its messages. graph_port: of ezmsg's own server."""

    peer: str
    decoder: str
    prefix: str
    files: Files
    outputs: tuple[str, ...]
    n_units: int
    bin_ns: int
    lateness_ns: int
    port: int
    graph_port: int

    @property
    def address(self) -> str:
        """Where it publishes."""
        return f"tcp://127.0.0.1:{self.port}"


class Bins:
    """Counts by stamp: bin k is [k, k + 1) times bin_ns on the LSL clock. A ring of open bins, in numpy."""

    def __init__(self, n_units: int, bin_ns: int, start_ns: int) -> None:
        self.counts = np.zeros((OPEN_BINS, n_units), np.uint16)
        self.bin_ns, self.open, self.newest_ns = bin_ns, start_ns // bin_ns, 0

    @property
    def edge_ns(self) -> int:
        """Right edge of the oldest open bin."""
        return (self.open + 1) * self.bin_ns

    def feed(self, t_ns: np.ndarray, unit: np.ndarray) -> None:
        """Samples (n,): units below 0 are keep-alives, which say how far the stream has come. Late ones are dropped."""
        if len(t_ns):
            self.newest_ns = max(self.newest_ns, int(t_ns.max()))
            at = t_ns // self.bin_ns
            good = (unit >= 0) & (unit < self.counts.shape[1]) & (at >= self.open) & (at < self.open + OPEN_BINS)
            np.add.at(self.counts, (at[good] % OPEN_BINS, unit[good]), 1)

    def close(self) -> np.ndarray:
        """The counts (U,) of the oldest open bin."""
        slot = self.open % OPEN_BINS
        found, self.counts[slot] = self.counts[slot].copy(), 0
        self.open += 1
        return found


@dataclass(slots=True)
class Trials:
    """Where trials begin and end, by their markers."""

    waiting: list[tuple[int, str]] = field(default_factory=list)
    inside: bool = False

    def note(self, texts: list[str], t_ns: list[int]) -> None:
        """Markers with their stamps."""
        self.waiting += [(t, msgspec.json.decode(text)["event"]) for t, text in zip(t_ns, texts, strict=True)]

    def bin(self, edge_ns: int) -> tuple[bool, bool]:
        """Of the bin that ends there: whether a trial begins with it, and whether it is in one."""
        due = [event for t, event in self.waiting if t < edge_ns]
        self.waiting = [one for one in self.waiting if one[0] >= edge_ns]
        begins, was = "segment_start" in due, self.inside
        self.inside = (was or begins) and not any(event != "segment_start" for event in due)
        return begins, was or begins


class Publisher:
    """Messages as `neds-rt run` sends them, but nothing in them says for how long they hold, or what was missing."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.seq, self.encoder = plan, 0, msgspec.msgpack.Encoder()
        self.topic = wire.topic("decode", "peer")

    def payload(self, edge_ns: int, values: np.ndarray, took_ns: int) -> bytes:
        """The message of a bin, stamped now."""
        plan, now = self.plan, now_ns()
        self.seq += 1
        outputs = {name: Output(value=float(v)) for name, v in zip(plan.outputs, values, strict=False)}
        message = Decode(
            schema=SCHEMA, seq=self.seq, token=edge_ns // plan.bin_ns - 1, t_end_ns=edge_ns, t_pub_ns=now, boot_id="",
            source="replay", inputs=["spikes"], decoder=plan.decoder, engine=plan.peer, outputs=outputs, age_ms=None,
            infer_ms=took_ns * 1e-6, edge_to_pub_ms=(now - edge_ns) * 1e-6, state="RUNNING", flags=0,
            valid_until_ns=NEVER, valid_for_ms=NEVER * 1e-6, model_sha="", unit_map_sha="",
        )  # fmt: skip
        return self.encoder.encode(message)


@dataclass(frozen=True, slots=True)
class Closed:
    """Bins of a trial: edge of the newest, counts (n, U) oldest first, and whether the trial begins with them."""

    edge_ns: int
    counts: np.ndarray
    begins: bool


class Binning:
    """Samples and markers to closed bins: what the plain loop and the ezmsg pipeline share."""

    def __init__(self, plan: Plan) -> None:
        self.bins, self.trials = Bins(plan.n_units, plan.bin_ns, now_ns()), Trials()

    def closed(self, due_ns: int) -> Iterator[Closed]:
        """Close the bins that the stream has passed, or whose edge is before due_ns; those of trials, oldest first."""
        while self.bins.newest_ns >= self.bins.edge_ns or due_ns >= self.bins.edge_ns:
            edge = self.bins.edge_ns
            counts, (begins, inside) = self.bins.close(), self.trials.bin(edge)
            if inside:
                yield Closed(edge, counts[None], begins)


class Decoding:
    """Closed bins to messages. What a decoder compiles or allocates in its first steps is done at once."""

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(1)
        self.decoder = decoders.create(plan.decoder, plan.files, plan.outputs)
        self.publisher = Publisher(plan)
        for n in (1, 1, 1, 2, 2):
            self.decoder.step(np.zeros((n, plan.n_units), np.uint16))
        self.decoder.reset()

    def decode(self, bins: Closed) -> bytes:
        """The message of their newest."""
        began = time.perf_counter_ns()
        if bins.begins:
            self.decoder.reset()
        values = self.decoder.step(bins.counts)
        return self.publisher.payload(bins.edge_ns, values, time.perf_counter_ns() - began)


def joined(bins: list[Closed]) -> Closed:
    """Bins that closed at once, one at least, as one: those of the newest trial."""
    start = max((k for k, one in enumerate(bins) if one.begins), default=0)
    counts = np.concatenate([one.counts for one in bins[start:]])
    return Closed(bins[-1].edge_ns, counts, bins[start].begins)


def run(plan: Plan) -> None:
    """Decode for ever: a bin closes when a sample stamped at or after its edge has come, or lateness_ns after it."""
    decoding, socket = Decoding(plan), zmq.Context().socket(zmq.PUB)
    socket.bind(plan.address)
    configure(REPLAY_SESSION, "machine")
    infos = [resolve(f"{plan.prefix}-{name}", WAIT_S) for name in ("spikes", "markers")]
    system.raise_priority()
    gc.collect()
    gc.disable()
    spikes, markers = (pylsl.StreamInlet(info, processing_flags=pylsl.proc_none) for info in infos)
    markers.open_stream(timeout=WAIT_S)
    print(ADDRESS.format(plan.address), file=sys.stderr, flush=True)
    spikes.open_stream(timeout=WAIT_S)
    into, binning = np.zeros((MOST, 1), np.int32), Binning(plan)
    while True:
        left_s = (binning.bins.edge_ns + plan.lateness_ns - now_ns()) * 1e-9
        _, stamps = spikes.pull_chunk(
            timeout=max(0.0, left_s), max_samples=MOST, dest_obj=into, min_samples=1, as_numpy=True
        )
        binning.bins.feed(ns(np.asarray(stamps)), into[: len(stamps), 0])
        texts, when = markers.pull_chunk(timeout=0.0)
        if texts:
            binning.trials.note([text[0] for text in texts], ns(np.array(when)).tolist())
        if found := list(binning.closed(now_ns() - plan.lateness_ns)):
            socket.send_multipart([decoding.publisher.topic, decoding.decode(joined(found))], zmq.NOBLOCK)


def ns(stamps: np.ndarray) -> np.ndarray:
    """LSL stamps (n,) in seconds as int64 ns."""
    return np.rint(stamps * 1e9).astype(np.int64)


if __name__ == "__main__":
    run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
