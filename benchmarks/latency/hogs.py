"""What else a machine may be doing: processes beside a run that take its cores, its memory, or its disk.

`python -m benchmarks.latency.hogs KIND FOLDER` works until SIGTERM, or until its parent is gone. It then prints as JSON
how much it did.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil

from neds_core.errors import ConfigError
from runtime.children import Child
from runtime.io import system
from runtime.start import command

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
TIMES_CACHE, LEAST_BYTES, MOST_SHARE = 2, 256 << 20, 0.25  # of the memory hog: of the cache, and of what is free
PART_BYTES, WRITE_BYTES, FILE_BYTES = 4 << 20, 1 << 20, 64 << 20
LOOK_S, END_S = 0.05, 10.0
SPIN = "import os\np = os.getppid()\nwhile os.getppid() == p:\n for _ in range(1000000): pass"
Work = dict[str, float]
Over = Callable[[], bool]


@contextmanager
def beside(kinds: Sequence[str], folder: Path) -> Iterator[dict[str, Work]]:
    """A hog of each kind until the end, which writes to folder. Yields what each did, filled at the end.

    Raises `StreamError` where one did not last.
    """
    done: dict[str, Work] = {}
    program = command("benchmarks.latency.hogs")
    with ExitStack() as stack:
        hogs = {
            kind: stack.enter_context(Child(folder, kind, folder, name=f"{kind} hog", program=program))
            for kind in kinds
        }
        yield done
        for hog in hogs.values():
            hog.check()
            hog.process.terminate()
        done |= {kind: hog.result(within_s=END_S) for kind, hog in hogs.items()}


def check(kinds: Sequence[str]) -> None:
    """Raise `ConfigError` for a kind that there is not, and for one that is named twice."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--hog {kind!r} is not known; choose one of {', '.join(KINDS)}")
        if kinds.count(kind) > 1:
            raise ConfigError(f"--hog {kind} was given twice; give it once")


def cpu(folder: Path, over: Over) -> Work:
    """A process for each core that never waits."""
    spinning = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(os.cpu_count() or 1)]
    try:
        while not over():
            time.sleep(LOOK_S)
        took = sum(sum(psutil.Process(each.pid).cpu_times()[:2]) for each in spinning)
    finally:
        for each in spinning:
            system.end(each)
    return {"processes": len(spinning), "cpu_s": round(took, 1)}


def memory(folder: Path, over: Over) -> Work:
    """Reads and writes more memory than the last-level cache holds, from end to end and again."""
    held = np.ones(memory_bytes() // 8)
    each, passed = PART_BYTES // 8, 0
    while not over():
        for at in range(0, len(held), each):
            held[at : at + each] += 1.0
            passed += each
            if over():
                break
    return {"mb": held.nbytes >> 20, "gb_passed": round(passed * 16e-9, 2)}


def memory_bytes() -> int:
    """Of the memory hog: twice the last-level cache, 256 MiB at least, and at most a quarter of what is free."""
    caches = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    largest = max((int(text[:-1]) << {"K": 10, "M": 20}[text[-1]] for text in caches if text[-1] in "KM"), default=0)
    return int(min(max(TIMES_CACHE * largest, LEAST_BYTES), MOST_SHARE * psutil.virtual_memory().available))


def disk(folder: Path, over: Over) -> Work:
    """Writes 1 MiB and waits until the disk has it, again and again, in one file of 64 MiB."""
    part, writes = os.urandom(WRITE_BYTES), 0
    with (folder / "hog.bin").open("wb") as file:
        while not over():
            if file.tell() >= FILE_BYTES:
                file.seek(0)
            file.write(part)
            file.flush()
            os.fsync(file.fileno())
            writes += 1
    return {"mb_written": writes * WRITE_BYTES >> 20, "fsyncs": writes}


KINDS = {"cpu": cpu, "memory": memory, "disk": disk}


def main(kind: str, folder: Path) -> None:
    """Work until SIGTERM or until the parent is gone; print what was done."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    parent = os.getppid()
    print(msgspec.json.encode(KINDS[kind](folder, lambda: bool(asked) or os.getppid() != parent)).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
