"""What a source holds, before anything of it is chosen. Every reader returns a `Found`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neds_core.data.session import Session, UnitTable


def _throughout() -> np.ndarray:
    return np.array([[-np.inf, np.inf]])


@dataclass(frozen=True, slots=True)
class Trace:
    """A behaviour as it was sampled, on the source's clock. t_s, values: (n,) float64 each, times not decreasing.

    unit: of the values, '' where the source says none. about: what else the source says of it, in one line. The rest as
    in `BehaviourSpec`, where the source says it.
    """

    name: str
    t_s: np.ndarray
    values: np.ndarray
    unit: str = ""
    about: str = ""
    sign: str = ""
    filter: str = ""
    filter_delay_ms: float = 0.0
    future_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Trials:
    """Stretches in time order. start_s, stop_s: (S,) float64; columns: name -> (S,) float64 (NaN: not known) or str."""

    start_s: np.ndarray
    stop_s: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a source holds.

    t_s (n,) float64 in seconds, sorted; unit (n,) int32, row of `units`: see `spikes.of_units` and `spikes.of_events`.
    units: ids as the source names them. observed_s (K, 2) float64: when all units were recorded. clock: what time 0 is,
    one sentence. quality: label -> units that have it, of all in the source; the reader keeps those of
    `options.quality` alone. notes: what the operator should know, a sentence each. session: what neds-rt wrote, where
    it is taken as it is; its traces and trials are not among those here. parts: each source that was joined, and
    how many units it has, in order.
    """

    name: str
    format: str
    t_s: np.ndarray
    unit: np.ndarray
    units: UnitTable
    traces: tuple[Trace, ...] = ()
    trials: Trials | None = None
    observed_s: np.ndarray = field(default_factory=_throughout)
    clock: str = ""
    quality: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    session: Session | None = None
    parts: tuple[tuple[str, int], ...] = ()
