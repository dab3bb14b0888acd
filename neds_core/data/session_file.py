"""`Session.npz`, the native file of a `Session`: written whole, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from neds_core.data.session import AMBIGUOUS, DISORDER, BehaviourSpec, Session, UnitTable, bin_events, refuse_unsorted
from neds_core.errors import DataError
from neds_core.files import whole

FORMAT = 1
KINDS = {"bool": "b", "int": "i", "unsigned": "u", "float": "f", "str": "U"}  # numpy's letters


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says beside its arrays, as JSON. bin_ns: width of a bin in ns."""

    format: int
    name: str
    bin_ns: Annotated[int, Meta(ge=1)]
    behaviours: tuple[BehaviourSpec, ...]
    licence: str
    citation: str


def save(session: Session, path: Path) -> None:
    """Write `Session.npz`; nothing half-written is left behind."""
    header = Header(FORMAT, session.name, session.bin_ns, session.specs, session.licence, session.citation)
    arrays = {
        "header": np.frombuffer(msgspec.json.encode(header), np.uint8),
        "valid": session.valid,
        "segments": session.segments,
        "segment_ids": session.segment_ids,
        "unit_ids": session.units.ids,
        "unit_region": session.units.region,
        "unit_depth_um": session.units.depth_um,
        **{f"value/{name}": v for name, v in session.values.items()},
        **{f"moment/{name}": ms for name, ms in session.moments.items()},
    }
    if session.events is None:
        arrays["counts"] = session.counts
    else:
        arrays["event_t_ns"], arrays["event_unit"] = session.events
    with whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Session:
    """Read and check `Session.npz`. Raises `DataError` with the remedy."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as bundle:
            arrays = {key: bundle[key] for key in bundle.files}
    except FileNotFoundError:
        raise DataError(f"recording {path} does not exist; check the path") from None
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise DataError(f"{path} is not a readable Session.npz; convert the recording again") from None
    try:
        header = msgspec.json.decode(arrays["header"].tobytes(), type=Header)
        if header.format != FORMAT:
            raise DataError(f"{path} has format {header.format}, not {FORMAT}; convert it with this version")
        session = _build(header, arrays, str(path))
        check(session, str(path))
    except KeyError as error:
        raise DataError(f"{path} lacks {error}, so it is not a Session.npz; convert it first") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{path}: its header is damaged ({error}); convert the recording again") from None
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its arrays do not fit together ({error}); convert the recording again") from None
    return session


def _build(header: Header, arrays: dict[str, np.ndarray], origin: str) -> Session:
    refuse_unsorted(arrays["segments"], origin)
    units = UnitTable(arrays["unit_ids"], arrays["unit_region"], arrays["unit_depth_um"])
    events = None
    if "counts" in arrays:
        counts = arrays["counts"]
    else:
        events = (arrays["event_t_ns"], arrays["event_unit"])
        counts = bin_events(*events, header.bin_ns, len(arrays["valid"]), len(units), origin)
    return Session(
        name=header.name,
        bin_ns=header.bin_ns,
        units=units,
        counts=counts,
        valid=arrays["valid"],
        specs=header.behaviours,
        values={s.name: arrays[f"value/{s.name}"] for s in header.behaviours},
        segments=arrays["segments"],
        segment_ids=arrays["segment_ids"],
        events=events,
        licence=header.licence,
        citation=header.citation,
        moments={k.removeprefix("moment/"): ms for k, ms in arrays.items() if k.startswith("moment/")},
    )


def check(session: Session, origin: str) -> None:
    """Refuse a session that cannot be played or trained on: `DataError`, which calls the recording `origin`."""
    _check_shapes(session, origin)
    if session.n_bins == 0 or len(session.segments) == 0 or not session.counts.any():
        raise DataError(f"{origin}: the recording is empty (no bins, segments or spikes); give another")
    start, stop = session.segments[:, 0], session.segments[:, 1]
    if (stop <= start).any() or (start[1:] < stop[:-1]).any() or start[0] < 0 or stop[-1] > session.n_bins:
        raise DataError(f"{origin}: {DISORDER}")
    for spec in session.specs:
        _check_behaviour(spec, session.values[spec.name], session.valid, origin)


def _check_behaviour(spec: BehaviourSpec, values: np.ndarray, valid: np.ndarray, origin: str) -> None:
    """A behaviour names a quantity, and values (T,) are of its kind."""
    if spec.name in AMBIGUOUS:
        raise DataError(f"{origin}: behaviour {spec.name!r} does not name a quantity; say {AMBIGUOUS[spec.name]}")
    asked = {c for pair in spec.contrasts.values() for side in pair for c in side}
    if strange := sorted(asked - set(spec.classes)):
        raise DataError(
            f"{origin}: a contrast of {spec.name} asks for {strange[0]!r}, none of its classes; convert again"
        )
    if spec.kind == "continuous" and not np.isfinite(values[valid]).any():
        raise DataError(f"{origin}: {spec.name} is NaN everywhere; leave it out of the recording")
    if spec.kind == "class" and (values.max() >= len(spec.classes) or values.min() < -1):
        raise DataError(f"{origin}: {spec.name} has labels outside its {len(spec.classes)} classes; convert again")


def _check_shapes(session: Session, origin: str) -> None:
    """Every array has the shape and kind that `Session` says."""
    n_bins, n_units, n_segments = len(session.counts), len(session.units), len(session.segments)
    wanted = {
        "counts": (session.counts, "unsigned", (n_bins, n_units)),
        "valid": (session.valid, "bool", (n_bins,)),
        "segments": (session.segments, "int", (n_segments, 2)),
        "segment_ids": (session.segment_ids, "int", (n_segments,)),
        "unit_region": (session.units.region, "str", (n_units,)),
        "unit_depth_um": (session.units.depth_um, "float", (n_units,)),
    }
    for spec in session.specs:
        kind = "float" if spec.kind == "continuous" else "int"
        wanted[spec.name] = (session.values[spec.name], kind, (n_bins,))
    wanted |= {f"moment {name}": (ms, "float", (n_segments,)) for name, ms in session.moments.items()}
    for name, (array, kind, shape) in wanted.items():
        if array.shape != shape or array.dtype.kind != KINDS[kind]:
            raise DataError(
                f"{origin}: {name} is {array.dtype} {array.shape}, not {kind} {shape}; convert the recording again"
            )
