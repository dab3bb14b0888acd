"""A host made of namespaces: a network, a name and a clock of its own. It lasts as long as the process that holds it.

`python -m benchmarks.latency.two_hosts.host hold NAME AHEAD_S` makes one and waits until its parent is gone;
`... host enter PID COMMAND` becomes a command inside it, with the same process id.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from pathlib import Path

from neds_core.errors import ConfigError

NET, NAME, TIME = 0x40000000, 0x04000000, 0x00000080  # CLONE_NEWNET, CLONE_NEWUTS, CLONE_NEWTIME of clone(2)
INSIDE = {"net": NET, "uts": NAME, "time_for_children": TIME}
HOLDING = "holding"


def hold(name: str, ahead_s: int) -> None:
    """Make a host whose clocks are ahead of this machine's, and keep it until the parent is gone."""
    parent = os.getppid()
    _call("unshare", NET | NAME | TIME)
    socket.sethostname(name)
    Path("/proc/self/timens_offsets").write_text(f"monotonic {ahead_s} 0\nboottime {ahead_s} 0\n")
    print(HOLDING, flush=True)
    while os.getppid() == parent:
        time.sleep(0.2)


def enter(pid: int) -> None:
    """Put this process, which has one thread, into the host that another one holds."""
    for name, kind in INSIDE.items():
        with Path(f"/proc/{pid}/ns/{name}").open("rb") as file:
            _call("setns", file.fileno(), kind)


def enter_network(pid: int) -> None:
    """Put this thread into the network of another process."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as file:
        _call("setns", file.fileno(), NET)


def _call(name: str, *given: int) -> None:
    """A call of the C library. Raises `ConfigError` where the system refuses."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*given) != 0:
        raise ConfigError(f"this system does not allow {name} of namespaces ({os.strerror(ctypes.get_errno())})")


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(sys.argv[2], int(sys.argv[3]))
    else:
        enter(int(sys.argv[2]))
        os.execv(sys.argv[3], sys.argv[3:])
