"""What our NWB files say where NWB has no place for it: the JSON in `notes`, and what things are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from neds_core.data.session import BehaviourSpec
from neds_core.errors import ConfigError

FORMAT = 1
MOMENT = "moment_"  # of columns of trials: ms from the trial's start
LABEL = "label_"
STANDS = "stands_"  # where a trace stood when the trial began
UNKNOWN = ""  # the label of a trial without one
BEHAVIOUR = "behavior"  # processing modules: what was measured of the animal,
SPIKES = "ecephys"  # counts of a session without spike times, and the table of its units,
DECODED = "decoded"  # what a run decoded,
RUN = "run"  # its markers and events
COUNTS, UNITS = "spike_counts", "unit_table"
AGE = re.compile(r"P(?=\d)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?")
SEXES = ("M", "F", "O", "U")


class Subject(Struct, frozen=True):
    """The animal, as NWB wants it: species in Latin or as a link to NCBI, sex one of `SEXES`, age as ISO 8601 (P90D).
    '' = not known."""

    id: str = ""
    species: str = ""
    sex: str = ""
    age: str = ""

    def refuse(self) -> None:
        """Raise `ConfigError` for a sex or an age that NWB does not know."""
        if self.sex and self.sex not in SEXES:
            raise ConfigError(f"--sex {self.sex!r}: NWB knows {', '.join(SEXES)}; leave it out where not known")
        if self.age and not AGE.fullmatch(self.age):
            raise ConfigError(f"--age {self.age!r}: give a time as ISO 8601 writes it, such as P90D or P12W")


class Origin(Struct, frozen=True):
    """Where a session is from. start_utc_ns: of bin 0, ns since 1970; start_known: whether that is when it was.
    versions: of software. more: anything else."""

    start_utc_ns: int
    subject: Subject = Subject()
    versions: dict[str, str] = {}
    more: dict[str, Any] = {}
    start_known: bool = True


class Notes(Struct, frozen=True):
    """What `notes` holds, as JSON. written: behaviours and moments by name, of which the file says another one."""

    neds_rt: int  # format
    bin_ns: int
    n_bins: int
    behaviours: tuple[BehaviourSpec, ...]
    licence: str
    citation: str
    origin: Origin
    written: dict[str, str] = {}


def written(names: Iterable[str]) -> dict[str, str]:
    """What a file calls those of the names that hold / or :, of which its paths are made; no two alike."""
    given = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    for name in given:
        if (plain := re.sub("[/:]", "_", name)) != name:
            while plain in given or plain in found.values():
                plain += "_"
            found[name] = plain
    return found
