"""Any source to a `Session`: which reader suits it, behaviours from other files, and the grid."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.io.formats import table
from neds_core.io.importing.found import Found, Trace
from neds_core.io.importing.grid import Made, make
from neds_core.io.importing.joined import joined
from neds_core.io.importing.options import NONE, Elsewhere, Options

# Asked in this order; a module has `suits(path) -> bool`, which only looks, and `read(path, options) -> Found`.
READERS = ("nwb", "table", "mat", "xdf", "phy", "alf", "sorting")


def load(path: str | Path, **options: Any) -> Session:
    """A recording in a lab's own format as a `Session`. options: the fields of `Options`, such as bin_ms=20.

    Raises `DataError` or `ConfigError`: one sentence with the remedy.
    """
    try:
        given = msgspec.convert(options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise ConfigError(f"load: {error}; the options are {known}") from None
    return make_of(Path(path), given).session


def make_of(path: Path, options: Options) -> Made:
    """Find and make at once."""
    return make(find(path, options), options)


def find(path: Path, options: Options) -> Found:
    """What a source holds, and the behaviours of the other files that the options name."""
    if table.suits(Path(options.trials)):  # trials of a file of their own
        alone = msgspec.structs.replace(options, trials=NONE)
        found = replace(_spikes(path, alone), trials=table.trials(Path(options.trials), options))
    else:
        found = _spikes(path, options)
    traces = (*found.traces, *(trace for other in options.behaviour for trace in _elsewhere(other)))
    names = [trace.name for trace in traces]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"behaviour {twice!r} is there twice; rename a column in the file of --behaviour")
    moved = [
        f"times of {Path(other.file).name} are moved by {other.offset_s:+g} s"
        for other in options.behaviour
        if other.offset_s
    ]
    if moved and table.suits(Path(options.trials)):
        moved.append(f"times of {Path(options.trials).name} are not moved: they are taken as of the spikes' clock")
    return replace(found, traces=traces, notes=(*found.notes, *moved))


def _spikes(path: Path, options: Options) -> Found:
    """What a source holds, and the units of the others that the options name."""
    places = [path, *map(Path, options.also)]
    parts = [reader_of(place).read(place, options) for place in places]
    return parts[0] if len(parts) == 1 else joined(parts, list(map(str, places)))


def reader_of(path: Path) -> Any:
    """The module that reads a source. Raises `DataError` where there is none."""
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    for name in READERS:
        reader = importlib.import_module(f"neds_core.io.formats.{name}")
        if reader.suits(path):
            return reader
    raise DataError(f"{path} is in none of the formats that are read ({', '.join(READERS)}); docs/import.md has a list")


def _elsewhere(other: Elsewhere) -> Iterator[Trace]:
    """The traces of another file, on the clock of the spikes."""
    path = Path(other.file)
    reader = reader_of(path)
    options = Options(rate_hz=other.rate_hz, names=other.names)
    alone = getattr(reader, "traces", None)  # formats whose files may hold behaviour alone
    traces = alone(path, options) if alone else reader.read(path, options).traces
    if not traces:
        raise DataError(f"{path} holds no behaviour; give another file with --behaviour")
    for trace in traces:
        yield replace(trace, t_s=np.asarray(trace.t_s, np.float64) + other.offset_s)
