"""Which column of a table, or variable of a file, is what: by name, or by what most people call it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from neds_core.data.session import UnitTable, whole_numbers
from neds_core.errors import ConfigError, DataError
from neds_core.io.importing.options import Options
from neds_core.io.importing.outputs import plain

CALLED = {
    "time": ("time", "t", "time_s", "t_s", "spike_time", "spike_times", "timestamp", "timestamps", "times", "time_ms",
             "t_ms", "time_us", "time_ns", "t_ns", "seconds", "sample", "samples"),
    "unit": ("unit", "unit_id", "units", "cluster", "cluster_id", "clusters", "neuron", "neuron_id", "id"),
    "start": ("start", "start_time", "start_s", "onset", "begin", "start_time_s"),
    "stop": ("stop", "stop_time", "stop_s", "end", "end_time", "end_s", "offset", "stop_time_s"),
}  # fmt: skip
PER_S = {"_ms": 1e3, "_us": 1e6, "_ns": 1e9}  # endings of a name that say what its times are in
IN_BRACKETS = re.compile(r"(?P<name>.*\S)\s*[\[(](?P<unit>[^\])]*)[\])]")


def pick(role: str, there: Iterable[str], options: Options, origin: str) -> str:
    """The name of what plays a role. Raises `ConfigError` where none is there, or several."""
    known = list(there)
    if wanted := options.names.get(role):
        if wanted not in known:
            raise ConfigError(f"names: {origin} has no {wanted!r} for {role}; it has {', '.join(known) or 'nothing'}")
        return wanted
    lower = {name.lower(): name for name in known}
    found = [lower[name] for name in CALLED.get(role, (role,)) if name in lower]
    if len(found) == 1:
        return found[0]
    what = f"{' and '.join(found)} could each be" if found else "nothing there is called"
    raise ConfigError(
        f"{origin}: {what} the {role}; say which with --name {role}=NAME (it has {', '.join(known[:20]) or 'nothing'})"
    )


def rate_of(name: str, options: Options) -> float | None:
    """How many a second the times are that are called so: the options' rate, or what the name's ending says."""
    return options.rate_hz or next((rate for ending, rate in PER_S.items() if name.lower().endswith(ending)), None)


def unit_table(ids: np.ndarray, origin: str) -> UnitTable:
    """A table of units (U,) of which nothing but the ids is known. Raises `DataError` for ids that are no numbers."""
    try:
        found = whole_numbers(ids, "unit ids")
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
    return UnitTable(found, np.full(len(found), "?"), np.full(len(found), np.nan))


def named(column: str) -> tuple[str, str]:
    """Name and unit of a column such as `speed [cm/s]` or `angle (rad)`; the unit is '' where it has none."""
    match = IN_BRACKETS.fullmatch(column.strip())
    return (plain(match["name"]), match["unit"].strip()) if match else (plain(column), "")
