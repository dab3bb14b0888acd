"""A command as it runs where the system grants neither real-time scheduling nor locked memory.

`python -m benchmarks.latency.ungranted COMMAND` gives up both rights and becomes the command: it keeps its process id.
"""

from __future__ import annotations

import ctypes
import os
import sys

from neds_core.errors import ConfigError

if sys.platform != "win32":
    import resource

DROP_BOUND = 24  # PR_CAPBSET_DROP of prctl(2): not even root has these after the next exec
SYS_NICE, IPC_LOCK = 23, 14  # capabilities(7): real-time scheduling, locked memory


def give_up() -> None:
    """For this process and what it becomes. Raises `ConfigError` where the system is not Linux."""
    if not sys.platform.startswith("linux"):
        raise ConfigError("--normal-priority gives up rights that only Linux has; leave it out")
    for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_MEMLOCK):
        resource.setrlimit(limit, (0, 0))
    for right in (SYS_NICE, IPC_LOCK):
        ctypes.CDLL(None).prctl(DROP_BOUND, right, 0, 0, 0)  # refused where it is not held: then nothing is to drop


if __name__ == "__main__":
    give_up()
    os.execv(sys.argv[1], sys.argv[1:])
