"""What the columns of a recording are: its units and its behaviours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from neds_core.errors import DataError

AMBIGUOUS = {
    "wheel": "wheel_speed (unsigned) or wheel_velocity (signed)",
    "whisker": "whisker_motion_energy",
    "paw": "paw_speed",
    "pupil": "pupil_diameter",
    "position": "position_x and position_y",
}


class BehaviourSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a behaviour is: the words a user needs before acting on a number.

    future_ms: how far the filter of a recorded trace reaches into the future. lead_ms: of a decoder's output, how much
    later than its bin the behaviour is that it says; 0 in a recording.
    """

    name: str
    kind: Literal["continuous", "class"]
    unit: str = ""
    sign: str = ""
    filter: str = ""
    filter_delay_ms: float = 0.0
    labels: Literal["measured", "inferred"] = "measured"
    labels_note: str = ""
    classes: tuple[str, ...] = ()
    contrasts: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    group: str = ""  # continuous outputs of one group are coordinates of one point, or of one angle:
    angle: Literal["", "cos", "sin"] = ""  # this output is the cosine or the sine of the angle that `group` names
    future_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    lead_ms: Annotated[float, Meta(ge=0.0, le=1000.0)] = 0.0


def whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """The values as int64. Raises `DataError` where one is no whole number or does not fit."""
    found = np.asarray(values)
    if found.dtype.kind not in "iuf":
        first = f" ({str(found.flat[0])!r} first)" if found.size else ""
        kind = {"U": "text", "S": "bytes", "b": "true or false"}.get(found.dtype.kind, str(found.dtype))
        raise DataError(f"{name} are {kind}{first}, not whole numbers; give numbers and keep names elsewhere")
    if found.dtype.kind == "f":
        found = found.astype(np.float64)
        fits = np.isfinite(found).all() and (np.floor(found) == found).all() and (np.abs(found) < 2.0**63).all()
    else:
        fits = found.dtype.kind == "i" or not found.size or int(found.max()) <= np.iinfo(np.int64).max
    if not fits:
        raise DataError(f"{name} hold a fraction, NaN or a number beyond 64 bits; give whole numbers")
    return found.astype(np.int64)


@dataclass(frozen=True, slots=True)
class UnitTable:
    """The ordered units of a stream: row number is the unit id on the wire.

    Whatever comes in is kept in one set of types, so that a table has one hash wherever it was read from.
    """

    ids: np.ndarray  # (U,) int64, the source's own ids
    region: np.ndarray  # (U,) str
    depth_um: np.ndarray  # (U,) float32, NaN = not known

    def __post_init__(self) -> None:
        """Convert to the types above. Raises `DataError` for ids that are no whole numbers, and other foreign types."""
        region, depth = np.asarray(self.region), np.asarray(self.depth_um)
        if region.dtype.kind != "U":
            raise DataError(f"unit_region is {region.dtype}, not text; give a name a unit, '?' where not known")
        if depth.dtype.kind not in "iuf":
            raise DataError(f"unit_depth_um is {depth.dtype}, not numbers; give micrometres, NaN where not known")
        object.__setattr__(self, "ids", whole_numbers(self.ids, "unit_ids"))
        object.__setattr__(self, "region", region)
        with np.errstate(over="ignore"):  # too large a depth becomes infinite, which is refused
            object.__setattr__(self, "depth_um", depth.astype(np.float32) + np.float32(0.0))  # -0 and 0 are one depth

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Identity of the ordered table."""
        rows = (f"{i}\t{r}\t{d:.1f}" for i, r, d in zip(self.ids, self.region, self.depth_um, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()
