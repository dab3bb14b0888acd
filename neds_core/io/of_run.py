"""What a run adds to the session that it took in, in plain arrays for files of other tools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity at each bin's right edge: (T,) or (T, K), NaN = nothing was said. columns: names of the K."""

    name: str
    values: np.ndarray
    unit: str
    about: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Samples:
    """A behaviour as it was received: t_ns (n,) int64 from the start of bin 0, in order; values (n,) float64."""

    name: str
    t_ns: np.ndarray
    values: np.ndarray
    unit: str
    about: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: values (n,), numbers, bool or str."""

    name: str
    values: np.ndarray
    about: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with columns of one length."""

    name: str
    about: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class OfRun:
    """A run beside its session. bins: T rows, one a bin. tables: others, with a column `time` in s from bin 0."""

    decoded: tuple[Series, ...]
    measured: tuple[Samples, ...]
    bins: Table
    tables: tuple[Table, ...]
