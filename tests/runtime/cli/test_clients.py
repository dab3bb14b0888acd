"""The clients that are given away: one Python file, Node and C++. None of them acts on an old value."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import zmq

from runtime import client as reader, wire
from runtime.cli.client import one_file
from runtime.wire import Decode, Flag, Output

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "clients"
MAX_AGE_MS, HELD_S, HOUR_NS = 60.0, 0.25, 3_600_000_000_000
NEVER = 54321.0  # the value of a message that nobody may act on
PYTHON = """import sys
from neds_client import Latest, value_of

with Latest(sys.argv[1]) as link:
    while not link.ended:
        message = link.receive(60.0)
        value = None if message is None else value_of(message, sys.argv[2])
        print("stop" if value is None else f"{message.seq} {value}", flush=True)
"""


class _Here(ast.NodeTransformer):
    """What the client calls `wire.NAME` is NAME in one file."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        return ast.Name(node.attr, node.ctx) if isinstance(node.value, ast.Name) and node.value.id == "wire" else node


def definitions(source: str) -> list[str]:
    """What a module defines, in order; its docstring and imports are left out."""
    heads = (ast.Import, ast.ImportFrom, ast.Expr)
    return [ast.dump(_Here().visit(node)) for node in ast.parse(source).body if not isinstance(node, heads)]


def test_the_one_file_is_what_the_sources_say() -> None:
    sources = [inspect.getsource(module) for module in (wire, reader)]
    assert definitions(one_file()) == [each for source in sources for each in definitions(source)]


def test_the_one_file_needs_two_packages() -> None:
    found = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(one_file()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert found - set(sys.stdlib_module_names) == {"msgspec", "zmq"}


@pytest.fixture
def given_away(call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The client that the command writes, as a module."""
    assert call("client", "--out", tmp_path / "neds_client.py") == 0
    spec = importlib.util.spec_from_file_location("neds_client", tmp_path / "neds_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "neds_client", module)
    spec.loader.exec_module(module)
    return module


def message(seq: int, value: float, late_ms: float = 0.0) -> Decode:
    """What this machine published `late_ms` ago."""
    t_pub_ns = time.monotonic_ns() - int(late_ms * 1e6)
    return Decode(
        wire.SCHEMA, seq, seq, t_pub_ns, t_pub_ns, reader.boot_id(), "live", ["spikes"], "neds", "stream",
        {"wheel_speed": Output(value)}, 1.0, 1.0, 1.0, "RUNNING", 0, t_pub_ns + 10**9, 1000.0, "m", "u",
    )  # fmt: skip


def test_the_one_file_reads_and_refuses_as_the_client_does(given_away: ModuleType) -> None:
    """Fresh: handed out. Published two seconds ago: not."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        address = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        with given_away.Latest(address, max_age_ms=1e6) as link:
            assert socket.poll(5000)
            socket.send(msgspec.msgpack.encode(message(1, 4.0)))
            assert link.value("wheel_speed", 5000.0) == 4.0
            socket.send(msgspec.msgpack.encode(message(2, NEVER, late_ms=2000.0)))
            assert link.value("wheel_speed", 300.0) is None
            assert (link.stale, link.missed, link.malformed) == (1, 0, 0)


def test_a_file_of_somebody_else_is_not_replaced(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import this\n")
    assert "mine.py is not a client that this command has written" in fails("client", "--out", tmp_path / "mine.py")


def test_the_clients_are_short() -> None:
    assert all(len(path.read_text().splitlines()) <= 75 for path in EXAMPLES.glob("client.*"))


@dataclass
class Relay:
    """Between a run and its clients: it passes on every message, late or altered where told, and notes what it sent.

    sent: seq -> value, ms from the bin's end to when it left here.
    """

    source: str
    mode: str = "prompt"
    sent: dict[int, tuple[float, float]] = field(default_factory=dict)
    modes: dict[int, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._pass)

    def _pass(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as run, context.socket(zmq.PUB) as clients:
            run.setsockopt(zmq.LINGER, 0)
            run.subscribe(b"")
            run.connect(self.source)
            self.address = f"tcp://127.0.0.1:{clients.bind_to_random_port('tcp://127.0.0.1')}"
            newest = None
            while not self.ended.is_set():
                if run.poll(50):
                    newest = msgspec.msgpack.decode(run.recv(), type=Decode)
                    clients.send(self._treated(newest))
            assert newest is not None
            flags = Flag.END | Flag.IDLE
            clients.send(msgspec.msgpack.encode(msgspec.structs.replace(newest, seq=newest.seq + 1, flags=int(flags))))
            time.sleep(0.5)

    def _treated(self, one: Decode) -> bytes:
        """The message as the mode has it; notes what a client may act on."""
        mode = self.mode
        if mode.endswith("held"):
            time.sleep(HELD_S)  # everything behind it waits too: a link that has stalled
        if mode == "lies":
            return self._lie(one)
        self.modes[one.seq] = mode
        if (value := one.outputs["wheel_speed"].value) is not None:
            self.sent[one.seq] = value, (time.monotonic_ns() - one.t_end_ns) * 1e-6
        return msgspec.msgpack.encode(elsewhere(one) if mode.startswith("elsewhere") else one)

    def _lie(self, one: Decode) -> bytes:
        """What nobody may act on, each in turn, with a value that is on time."""
        one = msgspec.structs.replace(one, outputs={"wheel_speed": Output(NEVER)}, flags=0)
        now_ns = time.monotonic_ns()
        changed = (
            {"flags": int(Flag.HOLD)}, {"flags": int(Flag.GAP)}, {"flags": int(Flag.IDLE)}, {"schema": 2},
            {"valid_until_ns": now_ns - 1}, {"t_end_ns": now_ns - 200_000_000},
            {"t_pub_ns": now_ns + HOUR_NS}, {"outputs": {"wheel_speed": Output(float("inf"))}},
            {"outputs": {"wheel_speed": Output(None)}}, {},
        )[one.seq % 10]  # fmt: skip
        if not changed:
            return b"\xc1 no message"
        return msgspec.msgpack.encode(msgspec.structs.replace(one, **changed))


def elsewhere(one: Decode) -> Decode:
    """The same from another machine, whose clock is an hour ahead."""
    return msgspec.structs.replace(
        one, boot_id="another", t_pub_ns=one.t_pub_ns + HOUR_NS, t_end_ns=one.t_end_ns + HOUR_NS, valid_until_ns=0
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The Python client in an environment with pyzmq and msgspec alone."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    made = subprocess.run([python, "-m", "pip", "install", "-q", "pyzmq", "msgspec"], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"pip cannot install pyzmq and msgspec here: {made.stderr.decode()[-200:]}")
    (home / "neds_client.py").write_text(one_file(), encoding="utf-8")
    (home / "act.py").write_text(PYTHON)
    return [str(python), str(home / "act.py")]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The Node client with its two packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node or no npm")
    home = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "zeromq@6", "@msgpack/msgpack@3"]
    made = subprocess.run(install, cwd=home, check=False, capture_output=True)
    shutil.copy(EXAMPLES / "client.mjs", home)
    loads = subprocess.run(["node", "-e", "require('zeromq')"], cwd=home, check=False, capture_output=True)
    if made.returncode or loads.returncode:
        pytest.skip(f"npm cannot install zeromq here: {(made.stderr or loads.stderr).decode()[-200:]}")
    return ["node", str(home / "client.mjs")]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The C++ client, compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    headers = "#define MSGPACK_NO_BOOST\n#include <msgpack.hpp>\n#include <zmq.hpp>\n"
    here = subprocess.run(
        [compiler, "-xc++", "-fsyntax-only", "-"], input=headers.encode(), check=False, capture_output=True
    )
    if here.returncode:
        pytest.skip("the headers zmq.hpp and msgpack.hpp are missing; install cppzmq-dev and libmsgpack-cxx-dev")
    program = tmp_path_factory.mktemp("cpp") / "client"
    subprocess.run([compiler, "-std=c++17", "-O1", EXAMPLES / "client.cpp", "-o", program, "-lzmq"], check=True)
    return [str(program)]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay behind a live run of the shipped recording, decoded without a break."""
    told = tmp_path_factory.mktemp("run") / "err"
    command = [sys.executable, "-m", "runtime.cli", "run", "--headless", "--no-markers"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with told.open("wb") as err, subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=err) as run:
        try:
            while "latest on " not in told.read_text() and run.poll() is None:
                time.sleep(0.1)
            assert run.poll() is None, told.read_text()
            one = Relay(told.read_text().rsplit("latest on ", 1)[1].split()[0])
            one.thread.start()
            yield one
            one.ended.set()
            one.thread.join()
        finally:
            run.terminate()


@pytest.mark.slow
def test_three_clients_refuse_stale_values(relay: Relay, bare: list[str], node: list[str], compiled: list[str]) -> None:
    """One run, one link: prompt, stalled, lying, and as from another machine, prompt and stalled.

    What a client acts on was sent, with that value, no more than its age limit after its bin's end. As from another
    machine its clock is known to a few ms: 20 ms are allowed for that.
    """
    while not relay.sent:
        time.sleep(0.1)
    commands = {"python": bare, "node": node, "c++": compiled}
    clients = {
        name: subprocess.Popen([*command, relay.address, "wheel_speed"], stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    time.sleep(2.0)
    for mode in ("prompt", "held", "prompt", "lies", "prompt", "elsewhere", "elsewhere held", "elsewhere"):
        relay.mode = mode
        time.sleep(2.0)
    relay.ended.set()
    for name, one in clients.items():
        out, _ = one.communicate(timeout=30)
        assert one.returncode == 0, name
        acted = {int(seq): float(value) for seq, value in (line.split() for line in out.splitlines() if line != "stop")}
        assert [seq for seq, value in acted.items() if value != pytest.approx(relay.sent[seq][0], rel=1e-4)] == [], name
        assert [seq for seq in acted if relay.sent[seq][1] > MAX_AGE_MS + 20.0] == [], name
        assert {relay.modes[seq] for seq in acted} >= {"prompt", "elsewhere"}, name
        assert "stop" in out, name
