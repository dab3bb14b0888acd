"""One launch of one row: sender, decoder and subscriber as processes, a second's stall of the sender at the end."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.latency import case as cases
from benchmarks.latency.drive import ADDRESS, CONNECTED, START_S
from benchmarks.latency.load import Load
from benchmarks.latency.peers import heard
from benchmarks.latency.peers.decoders import BINS
from benchmarks.latency.peers.heard import Messages, Sent
from benchmarks.latency.peers.loop import Plan
from benchmarks.latency.peers.rows import EZMSG, LOOP, OURS, PUBLISHED, Row, files_of
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from runtime.children import Child
from runtime.config import RigConfig
from runtime.io.lsl_player import LEAD_S
from runtime.start import command

MODULES = {LOOP: "benchmarks.latency.peers.loop", EZMSG: "benchmarks.latency.peers.ezmsg_pipeline"}
ONE_THREAD: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
WARM_UP, AROUND_STALL = 1, 2  # trials played before and after those that are measured
INTO_TRIAL_S, STALL_S, AFTER_S = 0.3, 1.0, 1.1


@dataclass(frozen=True, slots=True)
class Bench:
    """What all launches share. config: the demo's rig. models: the checkpoint of each size. test: the held-out part.

    fitted: folder of the peers that were trained, and of what was exported. trials: measured in each launch.
    """

    config: RigConfig
    models: dict[str, Path]
    fitted: Path
    test: Session
    outputs: tuple[str, ...]
    trials: int


def stretch(test: Session, trials: int, number: int, size: str) -> tuple[Session, np.ndarray]:
    """The trials of a round, others of the held-out part in each, and the places of the measured bins among theirs.

    At the published size they are one segment, without a pause or a reset: a window holds 500 tokens in every measured
    bin.
    """
    warm_up, behind, total = WARM_UP, AROUND_STALL, len(test.segments)
    if size == PUBLISHED:  # and no pauses that make the stall's trials longer
        shortest, stall_ns = int(np.diff(test.segments).min()), round((INTO_TRIAL_S + STALL_S + AFTER_S) * 1e9)
        warm_up, behind = -(-BINS // shortest), 1 - (-stall_ns // (shortest * test.bin_ns))
    n = warm_up + trials + behind
    begin = number * trials % max(1, total - n + 1)
    part = sessions.select(test, slice(begin, begin + n))
    ends = np.diff(part.segments).ravel().cumsum()
    bins = np.arange(ends[warm_up - 1], ends[warm_up + trials - 1])
    return (_unbroken(part) if size == PUBLISHED else part), bins


def _unbroken(part: Session) -> Session:
    """Trials that follow each other in a recording as one."""
    first, last = part.segments[0, 0], part.segments[-1, 1]
    return replace(sessions.select(part, slice(0, 1)), segments=np.array([[first, last]]))


@dataclass(frozen=True, slots=True)
class Launch:
    """What one launch gave. bins: places in `sent` of the measured ones. end_ns: when it was over."""

    played: Session
    messages: Messages
    sent: Sent
    bins: np.ndarray
    end_ns: int


def run(bench: Bench, row: Row, number: int, folder: Path) -> Launch:
    """One launch. Raises `StreamError` where a process fails."""
    os.environ.update(ONE_THREAD)
    played, bins = stretch(bench.test, bench.trials, number, row.size)
    session_file.save(played, folder / "session.npz")
    case = cases.prepare(folder, _config(bench, row, folder / "session.npz"), Load(), 60.0)
    port, out = free_port(), folder / "heard.npy"
    listen = (f"tcp://127.0.0.1:{port}", out, *bench.outputs)
    play = ("play", case.recording, "--prefix", case.prefix, "--wait", START_S, "--parent", os.getpid())
    with (  # the subscriber too from the start, which hears the first message so
        Child(folder, *listen, name="subscriber", program=command("benchmarks.latency.peers.heard")) as subscriber,
        Child(folder, *play, "--pushes", folder / "pushes.npy", name="sender") as sender,
        _decoder(bench, row, case, port) as decoder,
    ):
        decoder.until(ADDRESS, START_S)
        sender.until(CONNECTED, START_S, watch=decoder.check)
        begun_s = time.monotonic() + LEAD_S
        pin(decoder.process.pid)
        stall = _stalled(sender, begun_s + _before_stall_s(played, int(bins[-1])))
        time.sleep(AFTER_S)
        for child in (decoder, subscriber):
            child.check()
        end_ns = time.monotonic_ns()
        decoder.process.kill()  # its summary is not read
    sent = Sent.of(played, np.load(folder / "pushes.npy"), stall)
    return Launch(played, Messages.load(out, len(bench.outputs)), sent, bins, end_ns)


def _config(bench: Bench, row: Row, recording: Path) -> RigConfig:
    """The rig of a row. Random weights have no profile of the units in training, so none is looked at."""
    but = msgspec.structs.replace
    config = but(
        bench.config, checkpoint=str(bench.models[row.size]), health=but(bench.config.health, profile_min=0.0),
        score=but(bench.config.score, recording=str(recording)),
    )  # fmt: skip
    engine = but(config.engine, decoder=row.decoder, weights=row.weights)
    return but(config, engine=engine) if row.program == OURS else config


def _decoder(bench: Bench, row: Row, case: cases.Case, port: int) -> Child:
    if row.program == OURS:
        rig = case.rig.read_text(encoding="utf-8")
        case.rig.write_text(rig.replace("decode_port = 0", f"decode_port = {port}"), encoding="utf-8")
        return Child(case.folder, "run", case.rig, "--allow-replay", "--headless", name="decoder")
    plan = Plan(
        row.name, row.decoder, case.prefix, files_of(row, bench.models, bench.fitted), bench.outputs, case.n_units,
        case.bin_ns, round(case.config.bins.lateness_ms * 1e6), port, free_port(),
    )  # fmt: skip
    (case.folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    return Child(case.folder, case.folder / "plan.json", name="decoder", program=command(MODULES[row.program]))


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _before_stall_s(played: Session, last: int) -> float:
    """From the play's first edge to the stall, a moment into the trial that begins behind the last measured bin."""
    return (heard.edges(played)[last + 1] - played.bin_ns) * 1e-9 + INTO_TRIAL_S


def _stalled(sender: Child, at_s: float) -> tuple[int, int]:
    """Stop the sender at a time of the monotonic clock for `STALL_S`; returns when it stopped and went on, ns."""
    time.sleep(max(0.0, at_s - time.monotonic()))
    os.kill(sender.process.pid, signal.SIGSTOP)
    stop = time.monotonic_ns()
    time.sleep(STALL_S)
    go = time.monotonic_ns()
    os.kill(sender.process.pid, signal.SIGCONT)
    return stop, go


def pin(pid: int) -> None:
    """The main thread of a process on one core; the threads of its inlets are free. ezmsg pins its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {max(os.sched_getaffinity(pid))})


def held_out(launch: Launch, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of the measured bins: what was measured (m, V), NaN = unknown, and what a client had at the deadline (m, V)."""
    rows = launch.sent.row[launch.bins]
    y = np.stack([launch.played.values[name][rows].astype(np.float64) for name in names], axis=1)
    y[~launch.played.valid[rows]] = np.nan
    return y, heard.delivered(launch.sent, launch.messages, launch.bins)
