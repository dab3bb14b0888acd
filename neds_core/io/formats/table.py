"""Tables: CSV, TSV and Parquet, one row a spike (time, unit), a sample of behaviour, or a trial (start, stop)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neds_core.errors import ConfigError, DataError, NedsError
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.options import BEHAVIOUR, OF_BEHAVIOUR, Options
from neds_core.io.importing.outputs import plain
from neds_core.io.importing.roles import SAY, candidates, named, pick, rate_of, unit_table
from neds_core.io.importing.spikes import library, of_events, seconds

TEXT = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
ROWS = 2_000_000  # that are read at once


def suits(path: Path) -> bool:
    """Whether it is one file with an ending of a table."""
    return path.suffix.lower() in (*TEXT, *PARQUET) and path.is_file()


def read(path: Path, options: Options) -> Found:
    """A table with a row a spike. Raises `DataError` with the remedy."""
    if options.quality:
        raise DataError(f"{path} is a table, which says nothing of quality; keep the rows you want and leave it out")
    there = _names(path)
    time = pick("time", there, options, str(path))
    if "unit" not in options.names and not candidates("unit", there):
        raise ConfigError(
            f"{path} has no column of units, so it looks like behaviour: give the spikes as SOURCE and this with "
            f"--behaviour; if it holds spikes, name their column with --name unit=NAME (it has {', '.join(there)})"
        )
    unit = pick("unit", there, options, str(path))
    columns = _columns(path, [time, unit])
    if not len(columns[time]):
        raise DataError(f"{path} has no rows, so no spikes; give the table that has them")
    ids = columns.pop(unit)
    if bad := int((~np.isfinite(ids)).sum()) if ids.dtype.kind == "f" else 0:
        raise DataError(f"{path}: {bad} of {len(ids)} rows have no unit; remove them, or write the file again")
    t_s = seconds(columns.pop(time), rate_of(time, options), str(path))
    notes = ("spikes were not in time order, and are sorted",) if (t_s[1:] < t_s[:-1]).any() else ()
    t_s, rows, known = of_events(t_s, ids)
    return Found(
        name=plain(path.stem), format="table", t_s=t_s, unit=rows, units=unit_table(known, str(path)), notes=notes,
        clock=f"time 0 is that of the column {time}",
    )  # fmt: skip


def traces(path: Path, options: Options) -> tuple[Trace, ...]:
    """A table of behaviour: the column of times, and every other column of numbers as a trace."""
    there = _names(path)
    time = pick("time", there, options, str(path), BEHAVIOUR)
    columns = _columns(path, there)
    t_s = seconds(columns.pop(time), rate_of(time, options, SAY.format(OF_BEHAVIOUR)), str(path), OF_BEHAVIOUR)
    found = []
    for column, values in columns.items():
        if values.dtype.kind in "iufb":
            name, unit = named(column)
            found.append(Trace(name, t_s, values.astype(np.float64), unit, f"column {column} of {path.name}"))
    return tuple(found)


def trials(path: Path, options: Options) -> Trials:
    """A table of trials: columns of start and stop, in seconds or what their names say, and every other as it is."""
    there = _names(path)
    start, stop = (pick(role, there, options, str(path)) for role in ("start", "stop"))
    columns = _columns(path, there)
    begin, end = (
        columns.pop(n).astype(np.float64) / (rate_of(n, Options(), "write them in s") or 1.0) for n in (start, stop)
    )
    order = np.argsort(begin, kind="stable")
    others = {name: _values(values)[order] for name, values in columns.items()}
    return Trials(begin[order], end[order], others)


def _values(values: np.ndarray) -> np.ndarray:
    """A column as float64, or str with '' for what is missing."""
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    return np.array(["" if each is None or each != each else str(each) for each in values], np.str_)


def _names(path: Path) -> list[str]:
    """The names of the columns."""
    if path.suffix.lower() in PARQUET:
        return list(_opened(path).schema_arrow.names)
    return list(map(str, _read_csv(path, nrows=0).columns))


def _columns(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Whole columns, read piece by piece."""
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    try:
        for piece in _pieces(path, names):
            for name in names:
                pieces[name].append(piece[name].to_numpy())
    except NedsError:
        raise
    except Exception as error:  # the libraries raise their own kinds, and ValueError and OSError
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as a table ({said}); correct it, or write it again") from None
    return {name: np.concatenate(pieces.pop(name) or [np.zeros(0)]) for name in names}


def _pieces(path: Path, names: list[str]) -> Iterator[Any]:
    if path.suffix.lower() in PARQUET:
        for batch in _opened(path).iter_batches(ROWS, columns=names):
            yield batch.to_pandas()
    else:
        yield from _read_csv(path, usecols=names, chunksize=ROWS)


def _read_csv(path: Path, **how: Any) -> Any:
    pandas = library("pandas", "table")
    try:
        return pandas.read_csv(path, sep=TEXT[path.suffix.lower()], skipinitialspace=True, **how)
    except (ValueError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as a table ({said}); correct it, or write it again") from None


def _opened(path: Path) -> Any:
    library("pandas", "table")
    try:
        return library("pyarrow.parquet", "table").ParquetFile(path)
    except (ValueError, OSError) as error:  # pyarrow's are of these
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no whole Parquet file ({said}); copy it again") from None
