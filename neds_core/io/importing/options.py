"""What is taken of a source: the options of `neds-rt import`, and the file `import.toml` that repeats it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from neds_core.errors import ConfigError

OF_BEHAVIOUR = "--behaviour-rate-hz"
BEHAVIOUR = "behaviour."  # in front of a role of --name, in files of behaviour
BIN_MS, HOLD_S, DERIVATIVE_MS = 20.0, 1.0, 100.0
NONE = "none"  # for outputs and trials: take none

Rate = Annotated[float, Meta(gt=0.0)]


class Elsewhere(Struct, frozen=True, forbid_unknown_fields=True):
    """Behaviour in a file of its own. offset_s is added to its times, and puts them on the clock of the spikes.

    rate_hz: where its times are samples. names: as in `Options`, such as {"time": "t"}.
    """

    file: str
    offset_s: float = 0.0
    rate_hz: Rate | None = None
    names: dict[str, str] = {}


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """How a source becomes a `Session`.

    bin_ms: None: 20, or that of a file which neds-rt wrote. outputs: "NAME", "NAME:HOW" or "NAME:HOW=AS" (see
    `outputs`); empty: all that are proposed; ["none"]: spikes alone. trials: the table of stretches to take, of the
    source or a CSV or Parquet file with start and stop; empty: the source's own trials; "none": one stretch. quality:
    the label of the units that are kept; empty: all. rate_hz: of the samples in which spike times are given; None: in
    seconds. hold_s: a sample of a trace stands for so long at most. derivative_ms: the stretch over which a derivative
    is taken. also: other sources of the same recording, whose units are joined. names: what plays which part, such as
    {"time": "t", "unit": "cluster"} of a table's columns or a .mat's variables.
    """

    bin_ms: Annotated[float, Meta(ge=1.0, le=100.0)] | None = None
    outputs: tuple[str, ...] = ()
    trials: str = ""
    quality: str = ""
    rate_hz: Rate | None = None
    hold_s: Rate = HOLD_S
    derivative_ms: Rate = DERIVATIVE_MS
    behaviour: tuple[Elsewhere, ...] = ()
    also: tuple[str, ...] = ()
    names: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.bin_ms is not None and (self.bin_ms * 1e6) % 1000:
            raise ValueError(f"bin_ms {self.bin_ms:g} is no whole number of microseconds; round it")

    @property
    def bin_ns(self) -> int:
        """Width of a bin in ns."""
        return round((BIN_MS if self.bin_ms is None else self.bin_ms) * 1e6)

    def as_it_is(self, bin_ns: int) -> bool:
        """Whether they ask for nothing but the session of a file that has one, in bins of `bin_ns`."""
        chosen = (self.outputs, self.trials, self.quality, self.behaviour, self.also, self.names, self.rate_hz)
        return not any(chosen) and (self.bin_ms is None or self.bin_ns == bin_ns)

    def refuse_unused(self, path: Path) -> None:
        """Raise `ConfigError` where they ask for what does nothing to a session that is taken as it is."""
        given = {"--hold-s": (self.hold_s, HOLD_S), "--derivative-ms": (self.derivative_ms, DERIVATIVE_MS)}
        for name, (value, default) in given.items():
            if value != default:
                raise ConfigError(
                    f"{name} {value:g}: neds-rt wrote {path}, and its session is taken as it is; leave it out, or name "
                    "what to take with --outputs"
                )
