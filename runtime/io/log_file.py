"""A `RunLog` on disk: one .npz of arrays, with JSON inside for what is no array."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from neds_core.errors import ConfigError, DataError
from runtime.core.latency import Latency
from runtime.core.run_log import COLUMNS, FORMAT, Header, LoggedEvent, Outcome, RunLog, Trace
from runtime.core.values import SPIKES, Mark

JSON = "run.json"
LATER = (  # columns that older logs lack
    "sd", "stands", "newest_ns", "began_ns", "busy_ns", "before_ns", "after_ns", "cpu_ns", "gc_ns", "faults", "miss",
    "warm_ns",
)  # fmt: skip
KEPT = ("t_ns", "unit")  # of SPIKES
ROW_BYTES = 256  # of a token beside its counts: values, times, flags, measured behaviour


class _Numbered(msgspec.Struct, frozen=True):
    format: int


class _Format(msgspec.Struct, frozen=True):
    """As much of any version's JSON as says which version it is."""

    header: _Numbered


class _Rest(msgspec.Struct, frozen=True):
    """What is no column."""

    header: Header
    outcome: Outcome
    marks: list[Mark]
    events: list[LoggedEvent]
    latency: dict[str, str]
    behaviours: list[str]


def prepare(path: Path) -> None:
    """Refuse a place where a log cannot be written or would overwrite what is no log of a run, before the run.

    Raises `ConfigError` with the remedy.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"--save-log {path}: its folder does not exist; make it first")
    if path.exists() and not _is_log(path):
        raise ConfigError(f"--save-log {path}: exists and is no log of a run; name another file or remove it")
    partial = _partial(path)
    try:
        partial.open("wb").close()
        partial.unlink()
    except OSError as error:
        raise ConfigError(
            f"--save-log {path}: cannot be written there ({error.strerror}); name another folder"
        ) from None


def refuse_full(path: Path, n_tokens: int, n_units: int) -> None:
    """Raise `ConfigError` where the disk may not hold the log of so many tokens."""
    needed, free = n_tokens * (2 * n_units + ROW_BYTES), shutil.disk_usage(path.parent).free
    if needed > free:
        raise ConfigError(
            f"--save-log {path}: the log may take {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free there; "
            "make room or lower score.log_s"
        )


def _is_log(path: Path) -> bool:
    """Whether a file is one that `save` wrote, or empty."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return f"{JSON}.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return path.stat().st_size == 0


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def save(log: RunLog, path: Path) -> None:
    """Write a log whole, beside its place first: a file of that name is a whole log or none of ours."""
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            write(log, file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write(log: RunLog, file: IO[bytes]) -> None:
    """Write a log to an open file."""
    rest = _Rest(
        log.header, log.outcome, log.marks, log.events, {n: v.encoded() for n, v in log.latency.items()},
        list(log.behaviours),
    )  # fmt: skip
    arrays: dict[str, Any] = {name: getattr(log, name)[: log.n] for name in COLUMNS}
    for k, trace in enumerate(log.behaviours.values()):
        arrays[f"behaviour.{k}.t_ns"], arrays[f"behaviour.{k}.values"] = np.array(trace.t_ns), np.array(trace.values)
    arrays["source_delay_ms"] = log.source_delay_ms
    arrays[JSON] = np.frombuffer(msgspec.json.encode(rest), np.uint8)
    if log.kept:
        kept = np.concatenate(log.kept)
        arrays |= {f"kept.{field}": kept[field] for field in KEPT}
    np.savez_compressed(file, **arrays)


def load(path: Path) -> RunLog:
    """Read what `save` wrote. Raises `DataError` where the file is none."""
    try:
        with path.open("rb") as opened:
            return read(opened, path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); look at its disk") from None


def read(opened: IO[bytes], path: Path) -> RunLog:
    """Read what `write` wrote. Raises `DataError`, which calls the file `path`, where it is no log."""
    try:
        with np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = arrays.pop(JSON).tobytes()
        found = msgspec.json.decode(text, type=_Format).header.format
        if found != FORMAT:
            raise DataError(
                f"{path} is of log format {found}, this version reads {FORMAT}; use the version that wrote it"
            )
        rest = msgspec.json.decode(text, type=_Rest)
        log = _log(rest, arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no log of a run ({error}); give one that neds-rt run --save-log wrote") from None
    return log


def _log(rest: _Rest, arrays: dict[str, np.ndarray]) -> RunLog:
    n, n_units = arrays["counts"].shape
    log = RunLog(rest.header, n, n_units, arrays["values"].shape[1])
    log.n = n
    for name in COLUMNS:
        if name in arrays or name not in LATER:
            getattr(log, name)[:] = arrays[name]
    log.outcome, log.marks, log.events = rest.outcome, rest.marks, rest.events
    log.latency = {name: Latency.decoded(text) for name, text in rest.latency.items()}
    for k, name in enumerate(rest.behaviours):
        trace = log.behaviours[name] = Trace()
        trace.t_ns.frombytes(arrays[f"behaviour.{k}.t_ns"].tobytes())
        trace.values.frombytes(arrays[f"behaviour.{k}.values"].tobytes())
    log.source_delay_ms = arrays["source_delay_ms"]
    if f"kept.{KEPT[0]}" in arrays:
        kept = np.zeros(len(arrays[f"kept.{KEPT[0]}"]), SPIKES)
        for field in KEPT:
            kept[field] = arrays[f"kept.{field}"]
        log.kept = [kept]
    return log
