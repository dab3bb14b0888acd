"""What a token costs in counts, which no machine changes: messages, compiled calls, system calls, memory that stays.

The real loop, pipeline, engine and publisher run over a scripted source, with subscribers over ZeroMQ.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from numba.core.dispatcher import Dispatcher

from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import SPECS, for_a_run
from benchmarks.latency.load import Load, made_up
from runtime import config as rigs
from runtime.core.binning import Binner
from runtime.core.engine import Decoder
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.timeline import timeline
from runtime.engines import create as engines, prepare
from runtime.io.publish import Publisher
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages
from runtime.live.offline import SessionSource, SteppedClock
from runtime.wire import Decode

BIN_NS = 100_000_000
FILLING, COUNTED, PROFILED = 700, 1000, 100  # tokens: until what holds the last minute is full, and of each count
MSGSPEC_KEEPS = 2000  # freed messages of one size, to use their memory again
OWN_IO = Path("/proc/thread-self/io")


class Counting(Publisher):
    """Notes the kind of each message."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kinds: Counter[str] = Counter()

    def send(self, message: Any) -> None:
        if not self.kinds["decode"]:
            for _ in range(MSGSPEC_KEEPS):
                Decode(*msgspec.structs.astuple(message))
        self.kinds["decode"] += 1
        super().send(message)

    def tell(self, kind: str, message: Any) -> None:
        self.kinds[kind] += 1
        super().tell(kind, message)


@dataclass
class Counted:
    """What was counted over `COUNTED` tokens, and the compiled calls of `PROFILED` more."""

    tokens: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    io: dict[str, int] = field(default_factory=dict)
    compiled: Counter[str] = field(default_factory=Counter)
    profiled: int = 0


def compiled() -> dict[tuple[str, str], str]:
    """File and name -> module and name of every function of ours that Numba compiles."""
    ours = [each for name, each in sys.modules.items() if name.startswith(("kernels.", "runtime."))]
    found = {f for each in ours for f in vars(each).values() if isinstance(f, Dispatcher)}
    where = {f: f.py_func.__code__ for f in found}
    return {
        (code.co_filename, code.co_name): f"{f.__module__.rpartition('.')[2]}.{f.__name__}" for f, code in where.items()
    }


class Observer:
    """Asked once a pass whether the run is to end; counts from one pass to another."""

    def __init__(self, pipeline: Pipeline, publisher: Counting) -> None:
        self.pipeline, self.publisher, self.found = pipeline, publisher, Counted()
        self._passes = 0

    def __call__(self) -> bool:
        self._passes += 1
        if self._passes == FILLING:
            self._before = self._state()
        elif self._passes == FILLING + COUNTED:
            (tokens, kinds, blocks, io), before = self._state(), self._before
            self.found.tokens, self.found.kinds = tokens - before[0], kinds - before[1]
            self.found.blocks = blocks - before[2]
            self.found.io = {name: io[name] - before[3][name] for name in io}
            self._before, self._compiled = self._state(), compiled()
            sys.setprofile(self._profile)
        elif self._passes == FILLING + COUNTED + PROFILED:
            sys.setprofile(None)
            self.found.profiled = self.pipeline.tokens["closed"] - self._before[0]
            return True
        return False

    def _state(self) -> tuple[int, Counter[str], int, dict[str, int]]:
        io = {} if not OWN_IO.exists() else dict(line.split(": ") for line in OWN_IO.read_text().splitlines())
        kept = {name: int(io[name]) for name in ("syscr", "syscw") if name in io}
        return self.pipeline.tokens["closed"], self.publisher.kinds.copy(), sys.getallocatedblocks(), kept

    def _profile(self, frame: Any, event: str, given: object) -> None:
        """Numba reports a compiled call as a call of the function that was compiled."""
        code = frame.f_code
        if event == "call" and (name := self._compiled.get((code.co_filename, code.co_name))):
            self.found.compiled[name] += 1


@contextmanager
def subscribers(*addresses: str) -> Iterator[None]:
    """One on each address, in a thread, which take what comes."""
    over, context = threading.Event(), zmq.Context()
    sockets = [context.socket(zmq.SUB) for _ in addresses]
    for socket, address in zip(sockets, addresses, strict=True):
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(address)

    def take() -> None:
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        while not over.is_set():
            for socket, _ in poller.poll(50):
                socket.recv_multipart()

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.3)  # a subscription takes a moment to arrive
    try:
        yield
    finally:
        over.set()
        thread.join()
        context.destroy(linger=0)


def decoders(name: str) -> Decoder:
    """A small one of a kind, warm."""
    checkpoint = for_a_run(Size(units=12, layers=1, width=16, band=10), BIN_NS)
    decoder = engines.decoder(checkpoint, name, "float32", "cpu")
    prepare.warm_up(decoder.engine, decoder.n_units)
    return decoder


@pytest.fixture(scope="module", params=["neds", "blend"])
def counted(request: pytest.FixtureRequest) -> tuple[str, Counted]:
    """The counts of a run with a decoder of each kind."""
    decoder = decoders(request.param)
    checkpoint = for_a_run(Size(units=12, layers=1, width=16, band=10), BIN_NS)
    seconds = (FILLING + COUNTED + PROFILED + 100) * BIN_NS * 1e-9
    session = made_up(Load(rate=200.0), checkpoint.units, checkpoint.specs, BIN_NS, seconds)
    clock = SteppedClock()
    source = SessionSource(timeline(session), BIN_NS, clock)
    binner = Binner(decoder.n_units, BIN_NS, max_age_ns=10**10, future_ns=2_000_000)
    pipeline = Pipeline(binner, decoder, Rules(markers=True), time.perf_counter_ns)
    header = describe(decoder, rig="counts", source="synthetic", budget_ms=100.0)
    log = RunLog(header, len(session.counts) + 100, decoder.n_units, decoder.engine.layout.n_values)
    output = rigs.OutputConfig(decode_port=0, latest_port=0)
    config = rigs.RigConfig("counts", "", rigs.InputConfig("s"), output=output)
    with Counting(output, "counts") as publisher, subscribers(publisher.address, publisher.latest_address):
        observer = Observer(pipeline, publisher)
        sink = Messages(config, pipeline, source, publisher, "synthetic")
        gc.collect()
        gc.disable()
        try:
            run(source, pipeline, sink, clock, log, Plan(10**12, stop=observer))
        finally:
            sys.setprofile(None)
            gc.enable()
    return request.param, observer.found


def test_a_token_is_one_estimate_and_one_message_of_measured_behaviour(counted: tuple[str, Counted]) -> None:
    """And a status each second of the run's clock."""
    _, found = counted
    assert found.tokens == COUNTED
    assert found.kinds == {"decode": COUNTED, "measured": COUNTED, "status": COUNTED * BIN_NS // 10**9}


def test_the_compiled_calls_of_a_token_are_known(counted: tuple[str, Counted]) -> None:
    """One for its spikes, one for a network, and of a linear decoder one for its features and one for each output.

    Each call more runs the interpreter on caches that the weights have evicted.
    """
    name, found = counted
    calls = {"binning._scatter": 1, "step.decode": 1}
    if name == "blend":
        calls |= {"linear.take_lags": 1, "linear.read": len(SPECS)}
    assert found.profiled == PROFILED
    assert found.compiled == {call: n * PROFILED for call, n in calls.items()}


def test_a_token_leaves_no_memory_behind(counted: tuple[str, Counted]) -> None:
    """Python's small blocks of the whole process; caches and statuses hold some, one a token is a leak."""
    _, found = counted
    assert found.blocks < COUNTED // 2


@pytest.mark.skipif(not OWN_IO.exists(), reason="this system does not count the system calls of a thread")
def test_a_token_wakes_zeromq_at_most_once_for_each_message_and_socket(counted: tuple[str, Counted]) -> None:
    """Estimates leave by two sockets. A write is a wake-up of ZeroMQ's thread; reads are of its commands, now and then.

    Printing, logging or writing a file in the loop would show here.
    """
    _, found = counted
    most = 2 * found.kinds["decode"] + found.kinds["measured"] + found.kinds["status"]
    assert found.io["syscw"] <= most
    assert found.io["syscr"] <= COUNTED // 4
