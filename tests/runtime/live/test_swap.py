"""A swap in a real run: a player, `neds-rt run`, a subscriber, and callers of which one is killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import zmq

from calibration.swap import roll_back, swap
from neds_core import checkpoint as checkpoints
from neds_core.files import sha256
from runtime.client import unpack
from runtime.io import chain, log_file
from runtime.io.control import Answer, State, ask
from runtime.wire import Decode, Flag

NEDS_RT = Path(sys.executable).with_name("neds-rt")
ROOT = Path(__file__).parents[3]
START_S = 120.0  # a busy machine is not a failure
NULL = Flag.GAP | Flag.HOLD | Flag.IDLE | Flag.END
RIG = """rig = "swaps"
checkpoint = "{home}/tiny.safetensors"
[input]
spikes = "x"
markers = "y"
[score]
recording = "{home}/session.npz"
[control]
port = 0
probation_s = 0.0
"""
ASKS_AND_DIES = """
import os, signal, sys, time, zmq, msgspec
from runtime.io.control import Swap
socket = zmq.Context().socket(zmq.REQ)
socket.connect(sys.argv[1])
socket.send(msgspec.msgpack.encode(Swap(sys.argv[2], sys.argv[3])))
time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass
class Heard:
    """A run that is over: its messages, its summary, and what callers were answered."""

    messages: list[Decode]
    summary: dict[str, Any]
    answers: list[Answer]
    home: Path


class Live:
    """A run that goes on, and somebody who hears every message of it."""

    def __init__(self, home: Path, rig_home: Path, *options: str, rig: str = RIG) -> None:
        self.home, self.messages = home, []
        (home / "rig.toml").write_text(rig.format(home=rig_home))
        command = [NEDS_RT, "run", home / "rig.toml", "--play", "--split", "all", "--headless", "--json"]
        command += ["--save-log", home / "run.npz", *options]
        with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        address = self._until(r"decode and status on (tcp://\S+),")
        self.control = self._until(r"control on (tcp://\S+),")
        self.thread = threading.Thread(target=self._hear, args=(address,))
        self.thread.start()

    def _until(self, pattern: str) -> str:
        deadline, path = time.monotonic() + START_S, self.home / "err"
        while (found := re.search(pattern, path.read_text())) is None:
            assert self.process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)
        return found[1]

    def _hear(self, address: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.subscribe(b"neds/1/decode/")
            socket.connect(address)
            while not (self.messages and self.messages[-1].flags & Flag.END) and (
                socket.poll(1000) or self.process.poll() is None
            ):
                if socket.poll(0) and (message := unpack(socket.recv_multipart()[1], Decode)) is not None:
                    self.messages.append(message)

    def decodes(self, sha: str, n: int = 20) -> None:
        """Wait for some messages with values of a checkpoint, the newest ones."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if sum(m.model_sha == sha and not m.flags & NULL for m in self.messages[-40:]) >= n:
                return
            assert self.process.poll() is None, (self.home / "err").read_text()
            time.sleep(0.02)
        pytest.fail(f"{sha} never decoded")

    def over(self, answers: list[Answer]) -> Heard:
        """End it as Ctrl-C does, or let it end, and collect what there is."""
        assert self.process.wait(START_S) == 0, (self.home / "err").read_text()
        self.thread.join()
        summary = msgspec.json.decode((self.home / "out").read_text().splitlines()[-1])
        return Heard(self.messages, summary, answers, self.home)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(START_S)
        self.thread.join()


def goes(live: Live, gated: Callable[..., Path], first: str) -> Heard:
    """A caller is killed as soon as it has asked; another swaps again; one is refused; one goes back."""
    one, two = gated(1), gated(2)
    live.decodes(first)
    dead = subprocess.run([sys.executable, "-c", ASKS_AND_DIES, live.control, one, sha256(one)], cwd=ROOT, timeout=60)
    assert dead.returncode == -signal.SIGKILL
    live.decodes(sha256(one))
    answers = [swap(live.control, two), swap(live.control, gated(1, "NEED"))]
    live.decodes(sha256(two))
    answers += [roll_back(live.control), ask(live.control, State())]
    live.decodes(sha256(one))
    return live.over(answers)


WITHOUT = pytest.param(["--no-markers"], marks=pytest.mark.slow, id="continuous")


@pytest.fixture(scope="module", params=[pytest.param([], id="trials"), WITHOUT])
def heard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rig_home: Path,
    gated: Callable[..., Path],
) -> Iterator[Heard]:  # fmt: skip
    live = Live(tmp_path_factory.mktemp("swap"), rig_home, "--seconds", "16", *request.param)
    try:
        yield goes(live, gated, sha256(rig_home / "tiny.safetensors"))
    finally:
        live.stop()


def test_every_message_is_of_the_decoder_that_it_names(heard: Heard, rig_home: Path) -> None:
    """From the exact bin on, with the values that were logged, and said once."""
    log, turns = log_file.load(heard.home / "run.npz"), heard.summary["exchanges"]
    assert [each["why"] for each in turns] == ["swap", "swap", "rollback"]
    starts = [(0, sha256(rig_home / "tiny.safetensors")), *((each["token"], each["model_sha"]) for each in turns)]
    for before, message in zip(heard.messages, heard.messages[1:], strict=False):
        sha = next(sha for token, sha in reversed(starts) if message.token >= token)
        assert message.model_sha == sha
        assert bool(message.flags & Flag.SWAP) is (message.model_sha != before.model_sha)
        assert bool(message.flags & Flag.UNGATED) is (message.token < turns[0]["token"])
        if not message.flags & NULL:
            assert message.outputs["wheel_speed"].value == log.values[message.token, 0]
    assert sum(bool(m.flags & Flag.SWAP) for m in heard.messages) == 3


def test_no_bin_is_lost_or_comes_twice(heard: Heard) -> None:
    tokens = dict(heard.summary["tokens"])
    tokens.pop("scored")
    assert tokens["closed"] == sum(n for name, n in tokens.items() if name != "closed")
    seqs, bins = [m.seq for m in heard.messages], [m.token for m in heard.messages[:-1]]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert bins == sorted(set(bins))
    assert len(bins) <= tokens["closed"] <= bins[-1] + 2


def test_each_decoder_says_what_it_says_offline_from_its_first_bin_on(heard: Heard) -> None:
    """In z-scores; of the first one over all of its bins, of the others from where they were primed."""
    assert heard.summary["streamed_vs_offline_max_abs"] <= 1e-5
    assert [each["streamed_vs_offline_max_abs"] <= 1e-5 for each in heard.summary["exchanges"]] == [True] * 3
    log = log_file.load(heard.home / "run.npz")
    for each in log.outcome.exchanges:
        primed = each.primed >= 0
        assert primed is not bool(log.header.config["bins"]["use_markers"])
        assert primed or log.reset[each.token]
        assert np.isfinite(log.values[each.token]).all()


def test_callers_are_answered_and_the_chain_has_it_all(heard: Heard, gated: Callable[..., Path]) -> None:
    swapped, refused, back, state = heard.answers
    assert (swapped.ok, back.ok) == (True, True)
    assert (refused.ok, refused.by_gate) == (False, True)
    assert state.running is not None
    assert (state.running.model_sha, state.running.why) == (sha256(gated(1)), "rollback")
    links = [(link.why, link.outcome, link.token) for link in chain.read(heard.home / "swaps.jsonl")]
    taken = [(each["why"], "taken", each["token"]) for each in heard.summary["exchanges"]]
    assert [link for link in links if link[1] == "taken"] == taken
    assert [link[1] for link in links].count("accepted") == 3


# --- one that is unfit ---

PROBATION = RIG.replace("probation_s = 0.0", "probation_s = 60.0")
TIGHT = PROBATION + "probation_misses = 0\n[output]\nbudget_ms = 1.0\n[bins]\nlateness_ms = 0.1\n"


def unfit(kind: str, gated: Callable[..., Path], home: Path) -> Path:
    """A checkpoint whose gate has passed, and whose values are not finite, or which steps too slowly for its budget."""
    if kind == "slow":
        return gated(3, layers=300, band=100)
    made = checkpoints.load(gated(3))
    with torch.no_grad():
        for spec in made.specs:
            made.model.head(spec.name).weight.copy_(torch.full_like(made.model.head(spec.name).weight, 3e38))
    checkpoints.save(made, home / "unfit.safetensors")
    return home / "unfit.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rig", "why"),
    [
        ("infinite", PROBATION, "it gave a value that is not finite"),
        ("slow", TIGHT, "its engine missed 1 deadlines"),
    ],
)
def test_a_run_goes_back_by_itself_from_one_that_is_unfit(
    tmp_path: Path, rig_home: Path, gated: Callable[..., Path], kind: str, rig: str, why: str
) -> None:
    """A subscriber never gets a value of what is not finite; from the fallback on messages say so, and so does the
    chain."""
    path, first = unfit(kind, gated, tmp_path), sha256(rig_home / "tiny.safetensors")
    live = Live(tmp_path, rig_home, "--seconds", "60", rig=rig)
    try:
        live.decodes(first)
        answer = swap(live.control, path, "now")
        assert answer.ok or answer.said.endswith("(fallback)"), answer.said  # it may have gone back before it answers
        deadline = time.monotonic() + START_S
        while not any(m.flags & Flag.FALLBACK and not m.flags & NULL for m in live.messages):
            assert live.process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline, "it never went back"
            time.sleep(0.02)
        live.process.send_signal(signal.SIGINT)
        heard = live.over([])
    finally:
        live.stop()
    unfit_sha = sha256(path)
    own = [m for m in heard.messages if m.model_sha == unfit_sha]
    back = heard.messages[heard.messages.index(own[-1]) + 1 :]
    assert own
    assert kind == "slow" or all(m.flags & NULL for m in own)
    assert all(m.model_sha == first and m.flags & Flag.FALLBACK for m in back)
    assert not any(m.flags & Flag.FALLBACK for m in heard.messages if m not in back)
    assert back[0].flags & Flag.SWAP
    links = chain.read(tmp_path / "swaps.jsonl")
    taken = [(link.why, link.to_sha) for link in links if link.outcome == "taken"]
    assert taken == [("swap", unfit_sha), ("fallback", first)]
    assert why in links[-1].said
    assert [each["why"] for each in heard.summary["exchanges"]] == ["swap", "fallback"]
    assert "unfit" in heard.summary["events"]
