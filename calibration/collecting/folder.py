"""The folder of a collection: its runs, block by block, and the session that is made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from neds_core.errors import ConfigError, DataError
from runtime.core import log_blocks
from runtime.core.run_log import Header, RunLog
from runtime.io import block_file

RUN = re.compile(r"run-(\d+)\.blocks")
SESSION, NWB = "session.npz", "session.nwb"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder holds: the log of each run in order, as far as it is whole, and what is torn, in words."""

    folder: Path
    logs: tuple[RunLog, ...]
    torn: tuple[str, ...]
    number: int  # of the newest run, 0 = none

    def next(self) -> Path:
        """The file of the next run."""
        return self.folder / f"run-{self.number + 1:03d}.blocks"


def read(folder: Path) -> Kept:
    """Read a folder, which need not be there yet. Raises `ConfigError` where it holds what is not ours."""
    if not folder.exists():
        return Kept(folder, (), (), 0)
    if not folder.is_dir():
        raise ConfigError(f"--out: {folder} is no folder; name another")
    strange = [p.name for p in folder.iterdir() if not (RUN.fullmatch(p.name) or p.name.startswith((SESSION, NWB)))]
    if strange:
        raise ConfigError(f"--out: {folder} holds {sorted(strange)[0]!r}, which is of no collection; name another")
    paths = sorted((p for p in folder.iterdir() if RUN.fullmatch(p.name)), key=_number)
    logs, torn = [], []
    for path in paths:
        blocks, lost = block_file.load(path)
        if lost:
            torn.append(f"{path.name}: its last block was torn by a crash and is left out ({lost} bytes)")
        if blocks:
            logs.append(log_blocks.joined(blocks))
    return Kept(folder, tuple(logs), tuple(torn), _number(paths[-1]) if paths else 0)


def _number(path: Path) -> int:
    found = RUN.fullmatch(path.name)
    return int(found[1]) if found else 0


def refuse_other(kept: Kept, header: Header) -> None:
    """Raise `DataError` where what is to be collected does not go on with what the folder holds."""
    for log in kept.logs[-1:]:
        old = log.header
        if old.bin_ns != header.bin_ns:
            what = f"bins of {old.bin_ns * 1e-6:g} ms, this run has {header.bin_ns * 1e-6:g} ms"
        elif old.unit_map_sha != header.unit_map_sha:
            what = f"units {old.unit_map_sha[:12]}, the stream now has {header.unit_map_sha[:12]}"
        elif old.specs != header.specs:
            names = [s.name for s in old.specs if s not in header.specs] or [
                s.name for s in header.specs if s not in old.specs
            ]
            what = f"other outputs than this run's ({names[0] if names else 'their order'} differs)"
        else:
            continue
        raise DataError(f"{kept.folder} holds a collection of {what}; name another with --out")
