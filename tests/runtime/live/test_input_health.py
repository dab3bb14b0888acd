"""Over real LSL: input that cannot be what the decoder was trained on gives no fresh value after a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pylsl
import pytest

from neds_core.checkpoint import load
from neds_core.data.session import split
from neds_core.data.session_file import load as load_session
from neds_core.errors import ConfigError
from runtime.cli.demo import demo
from runtime.client import Subscriber
from runtime.config import InputConfig, LslConfig, OutputConfig, RigConfig
from runtime.core.run_log import RunLog
from runtime.core.state import State
from runtime.io.publish import Publisher
from runtime.io.streams import find_streams
from runtime.live.wiring import Wired, wire
from runtime.wire import Decode

TICK_S = 0.005
WITHIN_S = 17.0
START_S = 60.0
HELD_S = 1.0  # from the first bad spike to the last value

Damage = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
PERMUTED = np.random.default_rng(5).permutation(449).astype(np.int32)
DAMAGES: dict[str, Damage] = {
    "milliseconds": lambda t, u: (t * 1e3, u),
    "another clock": lambda t, u: (t + 1.7e9, u),
    "permuted ids": lambda t, u: (t, PERMUTED[u]),
    "all units silent": lambda t, u: (t[:0], u[:0]),
    "units beyond the map": lambda t, u: (t, u + 449),
}


class Sender(threading.Thread):
    """The demo's test trials one after another, every spike at its place in its bin, and keep-alives."""

    def __init__(self, outlet: pylsl.StreamOutlet) -> None:
        super().__init__(daemon=True)
        part = split(load_session(demo() / "session.npz")).test
        self.counts, self.outlet, self.sent = part.counts[part.bins()], outlet, 0
        self.damage: Damage | None = None
        self.first_bad_s = 0.0
        self.over = threading.Event()
        self.rng = np.random.default_rng(0)

    def run(self) -> None:
        now = pylsl.local_clock()
        edge, k = np.ceil(now / 0.02) * 0.02, 0
        while not self.over.is_set():
            row = self.counts[k % len(self.counts)]
            unit = np.repeat(np.arange(len(row), dtype=np.int32), row)
            t = edge + np.sort(self.rng.uniform(0.0005, 0.0195, len(unit)))
            edge, k = edge + 0.02, k + 1
            time.sleep(max(0.0, edge - pylsl.local_clock()))
            if self.damage is not None:
                self.first_bad_s = self.first_bad_s or pylsl.local_clock()
                t, unit = self.damage(t, unit)
            if len(unit):
                self.outlet.push_chunk(unit[:, None], t.tolist())
                self.sent += len(unit)
            self.outlet.push_sample([-1 - self.sent], edge)


def healthy(lsl_session: str) -> RigConfig:
    """A rig of the demo's checkpoint."""
    return RigConfig(
        "health", str(demo() / "neds.safetensors"), InputConfig(f"health-{lsl_session}", wait_s=10.0),
        output=OutputConfig(decode_port=0, latest_port=0), lsl=LslConfig(session_id=lsl_session),
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(lsl_session: str, make_outlet: Callable[..., pylsl.StreamOutlet]) -> Iterator[tuple[Sender, str]]:
    """A run of the demo's checkpoint in a thread of this process, and its sender."""
    checkpoint, config = load(demo() / "neds.safetensors"), healthy(lsl_session)
    sender = Sender(make_outlet(f"health-{lsl_session}", checkpoint.units))
    with Publisher(config.output, config.rig) as publisher:
        streams = find_streams(config, checkpoint.units, allow_replay=False)
        wired: Wired = wire(config, checkpoint, streams, publisher)
        logs: list[RunLog] = []
        thread = threading.Thread(target=lambda: logs.append(wired.run()), daemon=True)
        thread.start()
        sender.start()
        yield sender, publisher.address
        wired.stop.set()
        thread.join(START_S)
        sender.over.set()
        sender.join(START_S)
    assert logs[0].outcome.stopped_by == "signal"


def until(link: Subscriber, wanted: Callable[[Decode], bool], seconds: float) -> list[Decode]:
    """Messages up to the first that is wanted; fails where none comes."""
    found: list[Decode] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = link.receive(50.0)
        if message is not None:
            found.append(message)
            if wanted(message):
                return found
    pytest.fail(f"never came; the last states were {[m.state for m in found[-5:]]}")


@pytest.mark.parametrize("name", DAMAGES)
def test_no_value_is_fresh_a_second_after_the_first_bad_spike(running: tuple[Sender, str], name: str) -> None:
    sender, address = running
    with Subscriber(address, max_age_ms=1e6) as link:
        until(link, lambda m: m.state == State.RUNNING and m.outputs["wheel_speed"].value is not None, START_S)
        sender.first_bad_s, sender.damage = 0.0, DAMAGES[name]
        late: list[Decode] = []

        def enough(message: Decode) -> bool:
            if message.t_end_ns * 1e-9 > sender.first_bad_s + HELD_S > HELD_S:
                late.append(message)
            return len(late) > 20

        until(link, enough, WITHIN_S)
        sender.damage = None
        assert {m.state for m in late} <= {State.FAULT, State.STALLED}  # stalled: this busy process sends late
        assert State.FAULT in {m.state for m in late}
        assert all(m.outputs["wheel_speed"].value is None for m in late)
        deadline = time.monotonic() + 3.0
        while not (status := link.status()) or not status.reason:
            assert time.monotonic() < deadline, "no status said why"
            link.receive(50.0)


def test_a_loop_that_is_not_granted_what_was_certified_does_not_start(
    running: tuple[Sender, str], lsl_session: str
) -> None:
    """Said before it opens its inlets, in one sentence."""
    checkpoint, config = load(demo() / "neds.safetensors"), healthy(lsl_session)
    with Publisher(config.output, config.rig) as publisher:
        streams = find_streams(config, checkpoint.units, allow_replay=False)
        wired = wire(config, checkpoint, streams, publisher, scheduling="SCHED_FIFO 98")
        with pytest.raises(ConfigError, match="scheduling was certified as SCHED_FIFO 98, and the loop is granted "):
            wired.run(0.1)
