"""Kill -9 at each stage of a live calibration: the run goes on decoding, what was collected stays, nothing is half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from calibration.rehearsal import halves
from calibration.rehearsal.heard import Listener
from neds_core import checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.files import sha256
from neds_core.io import recording
from runtime.children import Child
from runtime.io import block_file, chain
from runtime.io.control import State, ask
from tests.calibration.conftest import TINY
from tests.calibration.rigs import inside, same

WAIT_S = 120.0  # a busy machine is not a failure
CHAIN_S = 1800  # all of it, at the most, and as long is played
RIG = """rig = "kills"
checkpoint = "{base}"
[input]
spikes = "{p}-spikes"
markers = "{p}-markers"
wait_s = 60.0
behaviours = {{wheel_speed = "{p}-wheel_speed"}}
[bins]
lateness_ms = 900.0
[output]
budget_ms = 1000.0
valid_ms = 2000.0
decode_port = 0
latest_port = 0
[control]
port = 0
probation_s = 6.0
"""  # a player that is not run for a moment is no failure
ASKS_AND_DIES = """
import os, signal, sys, time, zmq, msgspec
from runtime.io.control import Swap
socket = zmq.Context().socket(zmq.REQ)
socket.connect(sys.argv[1])
socket.send(msgspec.msgpack.encode(Swap(sys.argv[2], sys.argv[3], force=True)))
time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDLESS = TINY.replace("steps = 6", "steps = 1000000").replace("check_every = 2", "check_every = 2\npatience = 1000000")
STAGES = ("collecting", "fitting", "loading", "probation")
LEAST = 32  # trials that are asked for


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def files(folder: Path) -> dict[str, str]:
    """What lies in a folder and below, by SHA-256."""
    return {str(p.relative_to(folder)): sha256(p) for p in folder.rglob("*") if p.is_file()}


@dataclass
class Morning:
    """A player and a run that go on, and what was seen of each kill: files before and after, messages until then."""

    home: Path
    played: Session
    listener: Listener
    run: Child
    control: str
    kills: dict[str, tuple[dict[str, str], dict[str, str], int]] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.home / "today" / "today.safetensors"

    def calibrate(self, config: str = "calibrate.toml") -> Child:
        """The command, always the same one but for how long it fits."""
        options = ("--trials", LEAST, "--from", self.home / "base.safetensors", "--out", self.out)
        given = ("--config", self.home / config, "--allow-replay", "--json")
        return Child(self.home, "calibrate", self.home / "rig.toml", *options, *given)

    def killed(self, stage: str, process: subprocess.Popen[bytes], others: tuple[int, ...] = ()) -> None:
        """Kill, let what is left of it end, and wait until the run has decoded more."""
        before = files(self.out.parent)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others), "a child outlives its parent")
        n = self.listener.heard().decoded()
        until(lambda: self.listener.heard().decoded() > n + 20, f"the run does not decode after a kill while {stage}")
        self.kills[stage] = before, files(self.out.parent), n

    def outcomes(self) -> list[str]:
        """What the chain says."""
        return [link.outcome for link in chain.read(self.home / "swaps.jsonl")]

    def trials(self) -> int:
        """Trials that are on the disk."""
        path = self.home / "today" / "today-session" / "run-001.blocks"
        blocks = block_file.load(path)[0] if path.exists() else []
        return sum(m.event == "segment_end" for block in blocks for m in block.marks)


def children(process: subprocess.Popen[bytes]) -> tuple[int, ...]:
    """The fits that it has started; what a library starts for a moment is none."""
    found = []
    with suppress(OSError):
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if b"\0calibration\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return tuple(found)


def goes(morning: Morning) -> None:
    """Killed while it collects and while it fits; done; killed callers while it is loaded and on probation."""
    with morning.calibrate() as first:
        until(lambda: morning.trials() >= 3, "no trial came")
        morning.killed("collecting", first.process)
    with morning.calibrate("endless.toml") as second:
        second.until("stage: (rows and read-outs)", WAIT_S)
        fits = children(second.process)
        assert fits
        morning.killed("fitting", second.process, fits)
    with morning.calibrate() as third:
        until(lambda: third.process.poll() is not None, "the fit does not end")
    assert third.process.returncode in (0, 3), third.lines
    assert any("holds enough already" in line for line in third.lines)
    path = str(morning.out)
    asker = subprocess.Popen([sys.executable, "-c", ASKS_AND_DIES, morning.control, path, sha256(morning.out)])
    asker.wait(WAIT_S)
    morning.killed("loading", asker)
    until(lambda: morning.listener.heard().messages[-1].model_sha == sha256(morning.out), "it never took over")
    running = ask(morning.control, State(), WAIT_S).running
    assert running is not None
    assert running.probation > 0
    asker = subprocess.Popen([sys.executable, "-c", ASKS_AND_DIES, morning.control, path, sha256(morning.out)])
    asker.wait(WAIT_S)
    morning.killed("probation", asker)
    until(lambda: morning.outcomes()[-1] == "kept", "its probation never ended")


@pytest.fixture(scope="module")
def morning(
    session: Session, base_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Morning]:  # fmt: skip
    home, prefix = tmp_path_factory.mktemp("kill"), f"k-{os.getpid()}"
    played = halves.laid_out(
        replace(session, valid=np.ones(session.n_bins, bool)), np.tile(np.arange(60), CHAIN_S // 30)
    )  # of 0.5 s each
    played = replace(played, segment_ids=np.arange(len(played.segments)))
    session_file.save(played, home / "played.npz")
    (home / "base.safetensors").write_bytes(base_path.read_bytes())
    (home / "calibrate.toml").write_text(TINY)
    (home / "endless.toml").write_text(ENDLESS)
    (home / "rig.toml").write_text(RIG.format(p=prefix, base=home / "base.safetensors"))
    (home / "today").mkdir()
    options = ("--allow-replay", "--headless", "--json", "--seconds", CHAIN_S)
    play = ("play", home / "played.npz", "--prefix", prefix, "--parent", os.getpid())
    with ExitStack() as stack:
        stack.enter_context(Child(home, *play))
        run = stack.enter_context(Child(home, "run", home / "rig.toml", *options))
        address = run.until(r"decode and status on (tcp://\S+),", WAIT_S)
        listener = stack.enter_context(Listener(home, address))
        made = Morning(home, played, listener, run, run.until(r"control on (tcp://\S+),", WAIT_S))
        until(lambda: listener.heard().decoded() > 0, "the run decodes nothing")
        goes(made)
        run.process.send_signal(signal.SIGINT)
        until(lambda: run.process.poll() is not None, "the run does not end")
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_leaves_what_there_was(morning: Morning, stage: str) -> None:
    """Files that are there stay as they are, none is half written, and the run has decoded on."""
    before, after, n = morning.kills[stage]
    growing = {name for name in before if stage == "collecting" and name.endswith(".blocks")}
    assert growing or stage != "collecting"
    assert {k: v for k, v in after.items() if k not in growing} == {k: before[k] for k in before.keys() - growing}
    assert not [name for name in after if name.endswith(".partial")]
    assert ("today.safetensors" in after) is (stage in ("loading", "probation"))
    assert len(morning.listener.heard().messages) > n


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of pynwb's libraries
def test_what_was_collected_before_and_after_a_kill_is_what_was_sent(morning: Morning) -> None:
    """Bin by bin, in one session of two runs, which the third command did not collect again. A behaviour whose inlet
    opened within a run's first trial is not known before."""
    folder = morning.home / "today" / "today-session"
    found = session_file.load(folder / "session.npz")
    same(found, recording.load(folder / "session.nwb"))
    sent = sessions.select(morning.played, np.flatnonzero(np.isin(morning.played.segment_ids, found.segment_ids)))
    ours, theirs = inside(found), inside(sent)
    for name in ("counts", "choice"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    missing = np.isnan(ours["wheel_speed"]) & ~np.isnan(theirs["wheel_speed"])
    assert len(set(np.flatnonzero(missing) // 25)) <= 2
    np.testing.assert_array_equal(ours["wheel_speed"][~missing], theirs["wheel_speed"][~missing])
    assert sorted(p.name for p in folder.glob("*.blocks")) == ["run-001.blocks", "run-002.blocks"]
    assert len(found.segments) >= LEAST


@pytest.mark.slow
def test_the_run_never_failed_and_took_over_what_was_judged(morning: Morning) -> None:
    """Every message is of the base or, from one bin on, of the new decoder; the chain has it to the end."""
    assert morning.run.process.returncode == 0, morning.run.lines
    base, new = sha256(morning.home / "base.safetensors"), sha256(morning.out)
    shas = [m.model_sha for m in morning.listener.heard().messages]
    assert shas == sorted(shas, key=[base, new].index)
    assert set(shas) == {base, new}
    assert {m.state for m in morning.listener.heard().messages} <= {"READY", "RUNNING", "IDLE", "DEGRADED", "ENDED"}
    assert checkpoint.load(morning.out).header.gate is not None
    assert morning.outcomes() == ["accepted", "taken", "kept"]
