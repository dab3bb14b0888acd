"""The product's own commands as child processes of a simulation: collect, calibrate, run."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from neds_core.errors import DataError, StreamError
from runtime import start
from runtime.io.system import end, ended_by

START_S, STOP_S, LOOK_S = 120.0, 60.0, 0.05
Watch = Callable[[], None]  # raises where going on has no use

RIG = """# Written by a simulation: spikes and behaviour are made up.
rig = "simulation"
checkpoint = "{checkpoint}"

[input]
spikes = "{prefix}-spikes"
markers = "{prefix}-markers"
wait_s = 30.0

[input.behaviours]
{behaviours}

[bins]
lateness_ms = 10.0

[output]
decode_port = 0
latest_port = 0
"""


def write_rig(path: Path, prefix: str, names: tuple[str, ...], checkpoint: Path | None) -> Path:
    """The rig of a simulation's streams, as a file."""
    behaviours = "\n".join(f'{name} = "{prefix}-behaviour:{name}"' for name in names)
    path.write_text(RIG.format(checkpoint=checkpoint or "", prefix=prefix, behaviours=behaviours), encoding="utf-8")
    return path


class Child:
    """`neds-rt COMMAND ...` with its output in files under `folder`; it ends with this block, however that ends."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.name = str(arguments[0])
        self.out, self.err = folder / f"{self.name}.out", folder / f"{self.name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            command = start.command("runtime.cli", *arguments)
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        end(self.process, STOP_S)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raise `StreamError` if it has ended."""
        if not self.runs:
            raise StreamError(self._said())

    def _said(self) -> str:
        lines = self.err.read_text(errors="backslashreplace").strip().splitlines() or ["it said nothing"]
        how = ended_by(self.process.returncode)
        return f"neds-rt {self.name} of this simulation has ended ({how}): {lines[-1].removeprefix('neds-rt: ')}"

    def said(self, pattern: str, watch: Watch) -> str:
        """The first group of what it says on stderr, as soon as it does. Raises `StreamError`."""
        deadline = time.monotonic() + START_S
        while (found := re.search(pattern, self.err.read_text())) is None:
            watch()
            self.check()
            if time.monotonic() > deadline:
                raise StreamError(f"neds-rt {self.name} was not ready within {START_S:g} s; the machine is too busy")
            time.sleep(LOOK_S)
        return found[1]

    def wait(self, watch: Watch, codes: tuple[int, ...] = (0,)) -> Any:
        """Wait for its end; returns the JSON of its last line. Raises `DataError` for another exit code."""
        while self.runs:
            watch()
            time.sleep(LOOK_S)
        if self.process.returncode not in codes:
            raise DataError(self._said())
        return msgspec.json.decode(self.out.read_text().splitlines()[-1])

    def stop(self, watch: Watch) -> Any:
        """Ask a run to end; returns its summary."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(watch)
