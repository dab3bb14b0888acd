"""Looking ahead: the target of a bin is what is measured `lead_ms` later, inside the same segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec
import numpy as np

from neds_core.data import session as sessions
from neds_core.data.session import BehaviourSpec, Session, Splits
from neds_core.errors import ConfigError


def n_bins(lead_ms: float, bin_ns: int) -> int:
    """A lead in whole bins."""
    return round(lead_ms * 1e6 / bin_ns)


def ahead(session: Session, lead_ms: Mapping[str, float]) -> Session:
    """The session with, of each trace that has a lead, the values of so much later, and the lead in its spec.

    lead_ms: by name of the trace; names that the session lacks are left out. A value of another segment of this
    session, or of none, and one of a bin that is not valid, is not known: NaN. Raises `ConfigError` for a lead of a
    class, for one that is not whole bins, and for two in the coordinates of one point.
    """
    _refuse_torn_points(session, lead_ms)
    values, specs = dict(session.values), []
    for spec in session.specs:
        if spec.name in lead_ms:
            n = _whole_bins(spec, lead_ms[spec.name], session.bin_ns)
            values[spec.name] = _later(session, session.values[spec.name], n)
        specs.append(msgspec.structs.replace(spec, lead_ms=lead_ms.get(spec.name, spec.lead_ms)))
    return replace(session, specs=tuple(specs), values=values)


def _whole_bins(spec: BehaviourSpec, lead_ms: float, bin_ns: int) -> int:
    n, bin_ms = n_bins(lead_ms, bin_ns), bin_ns * 1e-6
    if spec.kind == "class":
        raise ConfigError(
            f"lead_ms.{spec.name} is {lead_ms:g}, and {spec.name} is a class; a lead is for traces, remove it"
        )
    if n < 1 or abs(n * bin_ms - lead_ms) > 1e-6:
        raise ConfigError(
            f"lead_ms.{spec.name} is {lead_ms:g}, not a whole number of bins of {bin_ms:g} ms; "
            f"set it to {max(1, n) * bin_ms:g}"
        )
    return n


def _later(session: Session, values: np.ndarray, n: int) -> np.ndarray:
    """(T,) float32: the value n bins later in the same segment, NaN where there is none or its bin is not valid."""
    known = np.where(session.valid, values, np.float32(np.nan))
    found = np.full(session.n_bins, np.nan, np.float32)
    for start, stop in session.segments:
        last = max(start, stop - n)
        found[start:last] = known[start + n : last + n]
    return found


def split(session: Session, lead_ms: Mapping[str, float]) -> Splits:
    """The parts of a session, each looked ahead in by itself: no target is of a bin of another part.

    Raises `ConfigError` for a lead that the recording cannot give (see `ahead`).
    """
    parts = sessions.split(session)
    if not lead_ms:
        return parts
    found = Splits(*(ahead(part, lead_ms) for part in (parts.train, parts.validation, parts.test)))
    longest = min(int(np.diff(part.segments).max()) for part in (parts.train, parts.validation, parts.test))
    for name, ms in lead_ms.items():
        if n_bins(ms, session.bin_ns) >= longest:
            raise ConfigError(
                f"lead_ms.{name} is {ms:g}, and no segment of one part of the recording is longer than "
                f"{longest * session.bin_ns * 1e-6:g} ms; lower it"
            )
    return found


def _refuse_torn_points(session: Session, lead_ms: Mapping[str, float]) -> None:
    """The coordinates of a point or angle at two times are none."""
    for spec in session.specs:
        for other in session.specs:
            if spec.group and spec.group == other.group and lead_ms.get(spec.name) != lead_ms.get(other.name):
                raise ConfigError(
                    f"lead_ms.{spec.name} is {lead_ms.get(spec.name, 0.0):g} and lead_ms.{other.name} "
                    f"{lead_ms.get(other.name, 0.0):g}, but both are of {spec.group!r}; give them one lead"
                )


def of(specs: Iterable[BehaviourSpec]) -> dict[str, float]:
    """The leads of outputs that have one, by name."""
    return {spec.name: spec.lead_ms for spec in specs if spec.lead_ms}


def lines(specs: Iterable[BehaviourSpec]) -> Iterator[str]:
    """A line for each output with a lead: how far ahead it is, and what its own filter holds of the future."""
    for spec in specs:
        if spec.lead_ms:
            own = f"filter of its target: {spec.filter or 'none stated'}"
            if spec.future_ms:
                own = f"its own filter holds up to {spec.future_ms:g} ms of the future"
            yield f"{spec.name}: {spec.lead_ms:g} ms ahead; {own}"
