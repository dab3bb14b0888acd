"""The folder of a collection: its runs, block by block, and the session that is made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from neds_core.data.session import BehaviourSpec
from neds_core.errors import ConfigError, DataError
from runtime.config import RigConfig
from runtime.core import log_blocks
from runtime.core.run_log import Header, RunLog
from runtime.io import block_file

STREAMS = ("spikes", "markers", "behaviours")  # keys of [input]
RUN = re.compile(r"run-(\d+)\.blocks")
OLD_H = 12.0  # data older than this are of another session
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


def ages_s(kept: Kept, utc_ns: int) -> tuple[float, float] | None:
    """How old the oldest and the newest bin are at a time (ns since 1970), seconds; None = the folder holds none."""
    logs = [log for log in kept.logs if log.n]
    if not logs:
        return None
    first, last = logs[0], logs[-1]
    ends = (first.header.utc_ns + int(first.t_end_ns[0]), last.header.utc_ns + int(last.t_end_ns[last.n - 1]))
    return max(0.0, (utc_ns - ends[0]) * 1e-9), max(0.0, (utc_ns - ends[1]) * 1e-9)


def refuse_old(kept: Kept, utc_ns: int, *, update: bool, resume: bool) -> str:
    """How old the data of a folder are, in words; '' = it holds none.

    Raises `DataError` where they are of another session: the newest are older than `OLD_H`, unless it is to be gone on
    with (resume); of an update, where any are.
    """
    ages = ages_s(kept, utc_ns)
    if ages is None:
        return ""
    oldest, newest = map(_words, ages)
    if update and ages[0] > 3600 * OLD_H:
        raise DataError(
            f"{kept.folder} holds data that are {oldest} old, and an update takes none older than {OLD_H:g} h; name "
            "another with --out"
        )
    if ages[1] > 3600 * OLD_H and not resume:
        raise DataError(
            f"{kept.folder} holds a collection whose newest data are {newest} old; name another with --out, or go on "
            "with this one by --resume"
        )
    return f"{kept.folder} holds data already: the oldest are {oldest} old, the newest {newest}"


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def refuse_rig(kept: Kept, config: RigConfig, specs: tuple[BehaviourSpec, ...], bin_ns: int) -> None:
    """Raise `DataError` where a folder is of another rig, as far as that shows without streams.

    specs, bin_ns: outputs and bins of the base, () = no base.
    """
    for log in kept.logs[-1:]:
        old, now = log.header, msgspec.to_builtins(config.input)
        was = old.config.get("input", {})
        base = tuple(replace(spec, lead_ms=0.0) for spec in specs)  # as they are recorded
        names = [*(s.name for s in base), *(n for n in config.input.behaviours if all(s.name != n for s in base))]
        if old.rig != config.rig:
            what = f"rig {old.rig!r}, this one is {config.rig!r}"
        elif changed := [key for key in STREAMS if was.get(key) != now[key]]:
            what = f"input.{changed[0]} {was.get(changed[0])!r}, this rig has {now[changed[0]]!r}"
        elif old.bin_ns != bin_ns:
            what = f"bins of {old.bin_ns * 1e-6:g} ms, this one would have {bin_ns * 1e-6:g} ms"
        elif old.specs[: len(base)] != base or [s.name for s in old.specs] != names:
            what = f"outputs {', '.join(s.name for s in old.specs)}, and the base now asks for others than those were"
        else:
            continue
        raise DataError(f"{kept.folder} holds a collection of {what}; name another with --out")


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
