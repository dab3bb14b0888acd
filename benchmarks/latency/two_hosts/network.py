"""Two hosts on this machine, joined by a veth pair with netem, or by a relay where the kernel has no netem."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.latency.drive import Hosts
from benchmarks.latency.two_hosts.host import HOLDING
from benchmarks.latency.two_hosts.relay import DEVICE, OPEN
from neds_core.errors import ConfigError, StreamError
from runtime.children import Child
from runtime.start import command

SENDER, LOOP = "10.77.0.1", "10.77.0.2"
AHEAD_S = 1000  # the sender's clock before the loop's: what the loop has to find out
START_S, SHORT_S = 60.0, 10.0
HOST = "benchmarks.latency.two_hosts.host"
NETEM, RELAY = "veth and netem", "a relay in user space (this kernel has no netem)"


@dataclass(frozen=True, slots=True)
class Network:
    """What happens to a packet in each direction: delay_ms +- jitter_ms, evenly, and the share that is lost."""

    name: str
    delay_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0

    def words(self) -> str:
        """In words."""
        lost = f", {self.loss:.1%} lost" if self.loss else ""
        return f"{self.delay_ms:g} ms +- {self.jitter_ms:g} ms each way{lost}"


NETWORKS = (Network("near", 1.0, 0.3, 0.001), Network("far", 10.0, 5.0))


def missing() -> str:
    """Why two hosts cannot be made on this machine, '' = they can."""
    if not sys.platform.startswith("linux"):
        return "two hosts are made of Linux namespaces, and this system is not Linux"
    if os.geteuid() != 0:
        return "two hosts need root, to make network namespaces; run it with sudo"
    if gone := [name for name in ("ip", "unshare") if shutil.which(name) is None]:
        return f"two hosts need the command {gone[0]}; install iproute2 and util-linux"
    kinds = [name for name in ("net", "uts", "time") if not Path(f"/proc/self/ns/{name}").exists()]
    if kinds:
        return f"this kernel has no namespaces of {' and '.join(kinds)}"
    tried = subprocess.run(["unshare", "--net", "--uts", "--time", "true"], capture_output=True, check=False)
    return "this machine does not allow namespaces (unshare was refused)" if tried.returncode else ""


@contextmanager
def joined(network: Network, folder: Path) -> Iterator[tuple[Hosts, str]]:
    """Two hosts and the network between them until the end; yields them and what joins them.

    They are gone with their processes: nothing is left behind. Raises `ConfigError` where they cannot be made.
    """
    if why := missing():
        raise ConfigError(why)
    with ExitStack() as stack:
        holds = [
            stack.enter_context(Child(folder, "hold", name, ahead, name=f"{name} host", program=command(HOST)))
            for name, ahead in (("sender", AHEAD_S), ("loop", 0))
        ]
        for each in holds:
            each.until(f"({HOLDING})", START_S)
        pids = [each.process.pid for each in holds]
        sender, loop = (tuple(command(HOST, "enter", pid)) for pid in pids)
        by = NETEM if _veth(network, sender, loop, pids[1]) else RELAY
        if by == RELAY:
            given = *pids, network.delay_ms, network.jitter_ms, network.loss
            program = command("benchmarks.latency.two_hosts.relay")
            stack.enter_context(Child(folder, *given, name="relay", program=program)).until(f"({OPEN})", START_S)
        for host, address in ((sender, SENDER), (loop, LOOP)):
            _ip(host, "addr", "add", f"{address}/30", "dev", DEVICE)
            _ip(host, "link", "set", "lo", "up")
            _ip(host, "link", "set", DEVICE, "up")
        yield Hosts(sender, loop, AHEAD_S * 10**9, (SENDER,)), by


def _veth(network: Network, sender: tuple[str, ...], loop: tuple[str, ...], pid: int) -> bool:
    """Join them with a veth pair; False where the kernel has no netem, and nothing is left of the pair."""
    tc = shutil.which("tc")
    if tc is None:
        return False
    _ip(sender, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", str(pid))
    rule = ["delay", f"{network.delay_ms}ms", f"{network.jitter_ms}ms", "loss", f"{100 * network.loss}%"]
    for host in (sender, loop):
        if _run(host, tc, "qdisc", "add", "dev", DEVICE, "root", "netem", *rule):
            _ip(sender, "link", "del", DEVICE)
            return False
    return True


def _ip(host: tuple[str, ...], *words: str) -> None:
    if said := _run(host, shutil.which("ip") or "ip", *words):
        raise StreamError(f"ip {' '.join(words)} was refused: {said}")


def _run(host: tuple[str, ...], *words: str) -> str:
    """What a command inside a host says where it fails, '' = it did not."""
    done = subprocess.run([*host, *words], capture_output=True, text=True, timeout=SHORT_S, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
