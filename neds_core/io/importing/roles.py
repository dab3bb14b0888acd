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
UNITS_PER_S = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), 1e6),  # both signs of micro
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1e9),
    **dict.fromkeys(("min", "minute", "minutes"), 1 / 60),
}
SAY = "say how many a second with {} (1 if they are seconds)"
ENDING = re.compile(r"_(s|ms|us|ns)$")
IN_BRACKETS = re.compile(r"(?P<name>.*\S)\s*[\[(](?P<unit>[^\])]*)[\])]")


def pick(role: str, there: Iterable[str], options: Options, origin: str, of: str = "") -> str:
    """The name of what plays a role. Raises `ConfigError` where none is there, or several.

    of: "behaviour." in a file of behaviour, as --name has it.
    """
    known = list(there)
    if wanted := options.names.get(role):
        same = [wanted] if wanted in known else [name for name in known if wanted in (_without(name), named(name)[0])]
        if len(same) != 1:
            has = ", ".join(known) or "nothing"
            raise ConfigError(f"names: {origin} has {len(same) or 'no'} {wanted!r} for {of}{role}; it has {has}")
        return same[0]
    found = candidates(role, known)
    if len(found) == 1:
        return found[0]
    what = f"{' and '.join(found)} could each be" if found else "nothing there is called"
    raise ConfigError(
        f"{origin}: {what} the {role}; say which with --name {of}{role}=NAME, in Python "
        f'names={{"{role}": NAME}}{" beside its file" if of else ""} (it has {", ".join(known[:20]) or "nothing"})'
    )


def candidates(role: str, known: list[str]) -> list[str]:
    """Names that a role usually has; without any, those that are so but for a unit: `time (s)`, `t [ms]`."""
    lower, usual = {name.lower(): name for name in known}, CALLED.get(role, (role,))
    if found := [lower[name] for name in usual if name in lower]:
        return found
    return [name for name in known if ENDING.sub("", plain(_without(name)).lower()) in usual]


def rate_of(name: str, options: Options, remedy: str = SAY.format("--rate-hz")) -> float | None:
    """How many a second the times are that are called so: the options' rate, or what the name says; None = neither.

    remedy: what to do about others. Raises `ConfigError` for a unit in brackets that is none of time.
    """
    if options.rate_hz:
        return options.rate_hz
    if not (unit := named(name)[1]):
        return next((rate for ending, rate in PER_S.items() if name.lower().endswith(ending)), None)
    if unit.lower() not in UNITS_PER_S:
        raise ConfigError(f"the times of {name!r} are in {unit!r}, which is none of s, ms, us, ns and min; {remedy}")
    return UNITS_PER_S[unit.lower()]


def unit_table(ids: np.ndarray, origin: str) -> UnitTable:
    """A table of units (U,) of which nothing but the ids is known. Raises `DataError` for ids that are no numbers."""
    try:
        found = whole_numbers(ids, "unit ids")
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
    return UnitTable(found, np.full(len(found), "?"), np.full(len(found), np.nan))


def _without(column: str) -> str:
    """A column's name without its unit in brackets, as it is written."""
    match = IN_BRACKETS.fullmatch(column.strip())
    return match["name"] if match else column.strip()


def named(column: str) -> tuple[str, str]:
    """Name and unit of a column such as `speed [cm/s]` or `angle (rad)`; the unit is '' where it has none."""
    match = IN_BRACKETS.fullmatch(column.strip())
    return (plain(match["name"]), match["unit"].strip()) if match else (plain(column), "")
