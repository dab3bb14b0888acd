"""Which behaviours become outputs: what is proposed of a source, and what a text such as `ry:angle=heading` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from neds_core.data.session import AMBIGUOUS
from neds_core.errors import ConfigError
from neds_core.io.importing.found import Found, Trace
from neds_core.io.importing.options import NONE

How = Literal["value", "rate", "angle", "angle_deg", "class"]
RADIANS, DEGREES = ("rad", "radian", "radians"), ("deg", "degree", "degrees", "°")
SLOWEST_HZ = 5.0  # a trace that is sampled less often is not proposed: events, or a value for a trial
CLASSES_MOST = 16
PLACE = re.compile(r"(?P<point>.+)_[xyz]$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Output:
    """One output: the trace or column of trials that it is made of, how, and what it is called."""

    source: str
    how: How = "value"
    name: str = ""

    @property
    def called(self) -> str:
        """Its name: the one given, or that of the source."""
        return self.name or (f"{self.source}_rate" if self.how == "rate" else self.source)

    @property
    def made(self) -> tuple[str, ...]:
        """The behaviours that it becomes: an angle two of them."""
        return (f"{self.called}_cos", f"{self.called}_sin") if self.how.startswith("angle") else (self.called,)

    def __str__(self) -> str:
        """As `parse` reads it."""
        how = "" if self.how == "value" else f":{self.how}"
        return f"{self.source}{how}" + (f"={self.name}" if self.name else "")


def parse(text: str) -> Output:
    """NAME, NAME:HOW or NAME:HOW=AS. Raises `ConfigError` with what can stand there."""
    source, _, name = text.partition("=")
    source, _, how = source.partition(":")
    known = get_args(How)
    if not source.strip() or (how and how not in known):
        raise ConfigError(f"outputs: {text!r} is not NAME, NAME:HOW or NAME:HOW=AS with HOW one of {', '.join(known)}")
    return Output(source.strip(), how or "value", name.strip())  # pyright: ignore[reportArgumentType]: one of `known`


def chosen(found: Found, texts: tuple[str, ...]) -> tuple[Output, ...]:
    """The outputs that `texts` ask for; all proposed ones without any. Raises `ConfigError` for what is not there."""
    if texts == (NONE,):
        return ()
    outputs = tuple(map(parse, texts)) if texts else tuple(proposed(found))
    traces = {trace.name for trace in found.traces}
    columns = set(found.trials.columns) if found.trials else set()
    for output in outputs:
        there = columns if output.how == "class" else traces
        if output.source not in there:
            what = "column of its trials" if output.how == "class" else "trace"
            raise ConfigError(
                f"outputs: {found.name} has no {what} {output.source!r}; it has {', '.join(sorted(there)) or 'none'}"
            )
    made = [name for output in outputs for name in output.made]
    if twice := next((name for name in made if made.count(name) > 1), None):
        raise ConfigError(f"outputs: {twice!r} would be there twice; name one of them apart, as in NAME=other")
    return outputs


def proposed(found: Found) -> Iterator[Output]:
    """Traces that are sampled often enough and vary, angles where the unit says so; columns of trials with few values.

    A name that names no quantity (`wheel`) gets a word behind it.
    """
    taken: set[str] = set()
    for trace in found.traces:
        if not _is_trace(trace):
            continue
        how: How = "angle" if trace.unit.lower() in (*RADIANS, *DEGREES) else "value"
        name = plain(trace.name)
        name = f"{name}_value" if name in AMBIGUOUS else name
        taken.add(name)
        yield Output(trace.name, how, "" if name == trace.name else name)
    for name, values in (found.trials.columns if found.trials else {}).items():
        if 2 <= len(classes_of(values)) <= min(CLASSES_MOST, len(values) // 2):
            called = plain(name)
            called = f"{called}_class" if called in taken or called in AMBIGUOUS else called
            yield Output(name, "class", "" if called == name else called)


def plain(name: str) -> str:
    """A name that a behaviour may have."""
    return re.sub(r"[^\w+-]+", "_", name).strip("_") or "value"


def classes_of(values: np.ndarray) -> list[str]:
    """The different values (S,) of a column, as texts in order; '' and NaN are none."""
    if values.dtype.kind == "f":
        known = np.unique(values[np.isfinite(values)])
        short = [f"{v:g}" for v in known]
        return short if len(set(short)) == len(known) else [np.format_float_positional(v, trim="-") for v in known]
    return [str(v) for v in np.unique(values) if str(v).strip()]


def labels_of(values: np.ndarray) -> np.ndarray:
    """(S,) int64: the class of each, as a row of `classes_of`; -1 = not known."""
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        return np.where(known, np.searchsorted(np.unique(values[known]), values), -1).astype(np.int64)
    rows = {name: k for k, name in enumerate(classes_of(values))}
    return np.array([rows.get(str(v), -1) for v in values], np.int64)


def unit_of_angle(trace: Trace, how: How) -> float:
    """Radians in one unit of an angle. Raises `ConfigError` where nothing says what it is given in."""
    degrees = how == "angle_deg" or trace.unit.lower() in DEGREES
    if not degrees and trace.unit.lower() not in RADIANS:
        raise ConfigError(
            f"outputs: {trace.name} has the unit {trace.unit!r}, so nothing says whether its angle is in radians; "
            f"write {trace.name}:angle_deg, or give it in radians with that unit"
        )
    most = float(np.nanmax(np.abs(trace.values), initial=0.0))
    if not degrees and most > 20.0:  # three turns; an angle that is not wrapped has its cosine too
        raise ConfigError(
            f"outputs: {trace.name} reaches {most:g}, so it is hardly in radians; write {trace.name}:angle_deg"
        )
    return float(np.pi / 180.0) if degrees else 1.0


def unwrapped(trace: Trace) -> np.ndarray:
    """Values (n,) of an angle that goes round, without its jumps; of any other trace as they are."""
    turn = {**dict.fromkeys(RADIANS, 2 * np.pi), **dict.fromkeys(DEGREES, 360.0)}.get(trace.unit.lower())
    known = np.isfinite(trace.values)
    if turn is None or not known.any() or np.ptp(trace.values[known]) > 1.001 * turn:
        return trace.values
    found = trace.values.copy()
    found[known] = np.unwrap(found[known], period=turn)
    return found


def point_of(name: str, names: list[str]) -> str:
    """The point that an output is a coordinate of (position of position_x), where another one is too; else ''."""
    match = PLACE.fullmatch(name)
    if not match:
        return ""
    others = [m["point"] for each in names if (m := PLACE.fullmatch(each))]
    return match["point"] if others.count(match["point"]) > 1 else ""


def _is_trace(trace: Trace) -> bool:
    known = trace.values[np.isfinite(trace.values)]
    often = len(trace.t_s) > 1 and len(trace.t_s) >= SLOWEST_HZ * (trace.t_s[-1] - trace.t_s[0])
    return often and 2 * len(known) >= len(trace.values) and bool(np.ptp(known) > 0)
