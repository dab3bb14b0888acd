"""An arm: what a base is trained on, the sessions that are calibrated, on how much, and where they are tested.

A place in a session counts trials, or bins of a session that is one run. Of what is calibrated on, 75 % fit and the
last 25 % select; between them, and before a test part, lies a gap of two trials or 10 s. Test parts are fixed: four of
them, one after the other, each later than whatever is calibrated for it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calibration.fitting.config import CalibrateConfig
from neds_core.config import PretrainConfig
from neds_core.data import session as sessions
from neds_core.data.parts import GAP_S, GAP_SEGMENTS, Parts
from neds_core.data.session import Session
from neds_core.errors import DataError

FITS = 0.75
ALL = 0  # instead of an amount: everything before the first test part (or the origin)
EVERY = -1  # instead of an origin: one fit for all test parts
CONTROLS = ("scratch", "random trunk", "shuffled trunk")
CONDITIONS = ("calibrated", *CONTROLS)
ROWS_KEPT = "rows kept"  # calibrated, with the base's rows for units of the same id
PER_MINUTE = (8, 14)  # trials of a rig
Mode = Literal["first", "recent"]


@dataclass(frozen=True, slots=True)
class Day:
    """A session to calibrate on. start: its first place that may be used; tests: first and last + 1 of each part."""

    session: Session
    animal: str
    base: str
    start: int
    tests: tuple[tuple[int, int], ...]

    @property
    def gap(self) -> int:
        """What lies between parts."""
        return gap_of(self.session)


@dataclass(frozen=True, slots=True)
class Arm:
    """amounts: trials, or minutes of a run, the most important first; controls: those of them at which the controls
    are fitted too; recent: those of the most recent n.

    bases: name -> the sessions that it is trained on, as `recipe` says, once for each of `base_seeds`.
    near: the amount that is held against the full fit.
    """

    number: int
    title: str
    outputs: tuple[str, ...]
    amounts: tuple[int, ...]
    controls: tuple[int, ...]
    recent: tuple[int, ...]
    near: int
    days: tuple[Day, ...]
    bases: dict[str, tuple[Session, ...]]
    recipe: PretrainConfig
    config: CalibrateConfig
    base_seeds: int = 3
    conditions: tuple[str, ...] = CONDITIONS
    minutes: bool = False

    @property
    def asked(self) -> tuple[tuple[Mode, tuple[int, ...]], ...]:
        """The amounts of each mode, in the order in which they are fitted."""
        return (("first", self.amounts), ("recent", self.recent))


def gap_of(session: Session) -> int:
    """Two trials, or 10 s in bins."""
    return round(GAP_S * 1e9 / session.bin_ns) if session.continuous else GAP_SEGMENTS


def piece(session: Session, begin: int, end: int) -> Session:
    """Places begin to end: trials, or bins of a session that is one run."""
    if not session.continuous:
        return sessions.select(session, slice(begin, end))
    first = int(session.segments[0, 0])
    return replace(sessions.select(session, slice(0, 1)), segments=np.array([[first + begin, first + end]], np.int64))


def length(session: Session) -> int:
    """How many places a session has."""
    return len(session.bins()) if session.continuous else len(session.segments)


def fourths(begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """Four test parts of equal size."""
    edges = np.linspace(begin, end, 5).round().astype(int).tolist()
    return tuple(itertools.pairwise(edges))


def places(arm: Arm, day: Day, mode: Mode, amount: int, origin: int) -> tuple[int, int]:
    """First and last + 1 of what is calibrated on. Raises `DataError` where a session has not so much."""
    last = day.tests[max(origin, 0)][0] - day.gap
    n = round(amount * 60e9 / day.session.bin_ns) if arm.minutes else amount
    if amount == ALL:
        n = last - day.start
    if n > last - day.start:
        raise DataError(f"{day.session.name} has {last - day.start} places before its test part, not {n}; ask for less")
    return (day.start, day.start + n) if mode == "first" else (last - n, last)


def parts_of(arm: Arm, day: Day, mode: Mode, amount: int, origin: int) -> Parts:
    """What fits and selects; `judge` is all that is tested."""
    begin, end = places(arm, day, mode, amount, origin)
    middle = begin + round(FITS * (end - begin - day.gap))
    tested = day.tests if origin == EVERY else day.tests[origin : origin + 1]
    at = ((begin, middle), (middle + day.gap, end), (tested[0][0], tested[-1][1]))
    return Parts(*(piece(day.session, *each) for each in at))


def tests_of(day: Day, origin: int) -> list[Session]:
    """The test parts of a fit."""
    return [piece(day.session, *each) for each in (day.tests if origin == EVERY else day.tests[origin : origin + 1])]


def shuffled(session: Session, seed: int) -> Session:
    """Every behaviour in another order: its pieces (trials, or blocks of 10 s of a run), dealt out end to end.

    All behaviours move together, and none of their values is lost; spikes stay.
    """
    bins, rng = session.bins(), np.random.default_rng(seed)
    if session.continuous:
        group = np.arange(len(bins)) // gap_of(session)
    else:
        group = session.segment_of(bins)
    pieces = np.split(bins, np.flatnonzero(np.diff(group)) + 1)
    order = np.concatenate([pieces[k] for k in rng.permutation(len(pieces))])
    values = {name: value.copy() for name, value in session.values.items()}
    for name, value in values.items():
        value[bins] = session.values[name][order]
    return replace(session, values=values)


def minutes(arm: Arm, n: int) -> str:
    """Equivalent minutes on a rig, of n trials; the true ones of a run's n bins."""
    if arm.minutes:
        return f"{n * arm.days[0].session.bin_ns / 60e9:g}"
    slow, fast = PER_MINUTE
    return f"{n / fast:.2g}-{n / slow:.2g}"
