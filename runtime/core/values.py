"""What flows between binner, engine and publisher: spikes, marks, tokens, estimates, and where each output lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from neds_core.data.session import BehaviourSpec
from runtime.core.state import State

SPIKES = np.dtype([("t_ns", np.int64), ("unit", np.int32)])
NO_TIME = np.iinfo(np.int64).min  # a stamp that was NaN or infinite
SENT_AGAIN = int(np.iinfo(np.int32).min)  # the unit of a spike that was sent again
FAR_S = 60.0  # a marker or a behaviour stamped further away than this is not of the LSL clock

Label = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A marker of the task: applied to the bin that holds its stamp.

    labels: what the task says of the segment, name -> label. first_bin: the segment's first bin in the recording that
    is played, None where it is not a recording. stands: of a start, where an output stands then, name -> value. odd:
    the first name in it whose value is no number, '' = there is none; then nothing of it can be used.
    """

    t_ns: int
    event: Literal["segment_start", "segment_end"]
    segment: int
    labels: dict[str, Label] = field(default_factory=dict, compare=False)
    first_bin: int | None = field(default=None, compare=False)
    stands: dict[str, float] = field(default_factory=dict, compare=False)
    odd: str = field(default="", compare=False)


@dataclass(slots=True)
class Token:
    """One closed bin.

    index since the run's first edge; t_end_ns its right edge; counts (U,) uint16, valid until
    the next call of `Pipeline.advance`; valid False = no live data; clock bins since the segment's marker or -1;
    reset True = the engine starts cold before this bin; idle True = between segments.
    observed (M,) float32: measured behaviour for an engine that is made to see it, in the order and
    units of the outputs, a class by its index, NaN = hidden. The live loop leaves it None.
    stands (V,) float64: where the outputs stand before this bin, by the marker that begins its segment, NaN = not said;
    None = of none, or within a segment. For decoders with a state of their own.
    """

    index: int
    t_end_ns: int
    counts: np.ndarray
    valid: bool
    clock: int = -1
    reset: bool = False
    idle: bool = False
    segment: int = -1
    newest_ns: int = NO_TIME  # stamp of the newest spike binned so far
    late: int = 0  # spikes that came too late since the last close
    coarse: bool = False  # many spikes shared a stamp since the last close
    resent: bool = False  # spikes were sent again since the last close
    observed: np.ndarray | None = None
    stands: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """specs in the checkpoint's order; columns name -> slice of the (V,) vector; scale and
    offset (V,) float32 turn z-scores into units (1 and 0 for probabilities)."""

    specs: tuple[BehaviourSpec, ...]
    columns: dict[str, slice]
    scale: np.ndarray
    offset: np.ndarray

    @property
    def n_values(self) -> int:
        """V."""
        return len(self.scale)

    def row(self, values: dict[str, float]) -> np.ndarray:
        """(V,) float64: values of traces by name, NaN for all others."""
        found = np.full(self.n_values, np.nan)
        for spec in self.specs:
            if spec.kind == "continuous":
                found[self.columns[spec.name]] = values.get(spec.name, np.nan)
        return found

    def stranger(self, values: dict[str, float]) -> str:
        """The first name that is no trace's, '' = there is none."""
        traces = {spec.name for spec in self.specs if spec.kind == "continuous"}
        return next((name for name in values if name not in traces), "")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was made of one closed token.

    values (V,) float32 laid out by `Layout`, valid until the next call of `Pipeline.advance`; None = nothing to say.
    sd (V,) float32: how far they may be from what is measured, NaN = not known; None = of no output, or no values.
    flags: bits of `wire.Flag`. infer_ns: time of the engine's step, 0 where there was none.
    """

    token: Token
    values: np.ndarray | None
    flags: int
    infer_ns: int
    state: State
    sd: np.ndarray | None = None
