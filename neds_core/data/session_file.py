"""`Session.npz`, the native file of a `Session`: written whole, checked when it is read."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from msgspec import Struct

from neds_core.data.checks.session import check
from neds_core.data.checks.spec import check_width
from neds_core.data.session import (
    BehaviourSpec,
    Session,
    UnitTable,
    bin_events,
    ordered_ns,
    refuse_unsorted,
)
from neds_core.errors import DataError
from neds_core.files import whole

FORMAT = 1


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says beside its arrays, as JSON. bin_ns: width of a bin in ns."""

    format: int
    name: str
    bin_ns: int
    behaviours: tuple[BehaviourSpec, ...]
    licence: str
    citation: str


def save(session: Session, path: Path) -> None:
    """Check and write `Session.npz`, and read it once; nothing half-written is left behind. Raises `DataError`.

    It is read array by array: counts are not made of the spikes again, which may be larger than all that is written.
    """
    check(session, str(path))
    arrays = _arrays(session)
    with whole(path) as partial:
        with partial.open("wb") as file:
            _write(arrays, file)
        _compare(partial, arrays, path)


def sha256(session: Session) -> str:
    """SHA-256 of the file that `save` would write, by the same bytes in memory. Raises `DataError` where it cannot."""
    check(session, f"recording {session.name!r}")
    file = BytesIO()  # zipfile goes back to the head of each array: nothing that only takes bytes on would do
    _write(_arrays(session), file)
    return hashlib.sha256(file.getbuffer()).hexdigest()


def _arrays(session: Session) -> dict[str, np.ndarray]:
    """What the file holds, in its order."""
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
        **{f"start/{name}": values for name, values in session.starts.items()},
    }
    if session.events is None:
        arrays["counts"] = session.counts
    else:
        arrays["event_t_ns"], arrays["event_unit"] = session.events
    return arrays


def _write(arrays: dict[str, np.ndarray], file: IO[bytes]) -> None:
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def _compare(file: Path, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Refuse what was not written as it is; errors call it `path`."""
    fault = DataError(f"{path} does not hold what was written to it; look at its disk, or name another folder")
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as bundle:
            for key, array in arrays.items():
                if not np.array_equal(bundle[key], array, equal_nan=array.dtype.kind == "f"):
                    raise fault
    except DataError:
        raise
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise fault from None


def load(path: Path) -> Session:
    """Read and check `Session.npz`. Raises `DataError` with the remedy."""
    try:
        with path.open("rb") as raw:
            sha = hashlib.file_digest(raw, "sha256").hexdigest()
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as bundle:
                arrays = {key: _native(bundle[key]) for key in bundle.files}
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
        return replace(_canonical(session), file_sha=sha)
    except KeyError as error:
        raise DataError(f"{path} lacks {error}, so it is not a Session.npz; convert it first") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(f"{path}: its header is damaged ({error}); convert the recording again") from None
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its arrays do not fit together ({error}); convert the recording again") from None


def _native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _canonical(session: Session) -> Session:
    """A checked session in the types that `Session` names."""
    kinds = {spec.name: np.float32 if spec.kind == "continuous" else np.int64 for spec in session.specs}
    counts, events = session.counts, session.events
    return replace(
        session,
        counts=counts if counts.dtype.itemsize <= 2 else counts.astype(np.uint16),
        values={name: values.astype(kinds[name], copy=False) for name, values in session.values.items()},
        segments=session.segments.astype(np.int64, copy=False),
        segment_ids=session.segment_ids.astype(np.int64, copy=False),
        events=events and (ordered_ns(events[0]), events[1].astype(np.int32, copy=False)),
    )


def _units(arrays: dict[str, np.ndarray], origin: str) -> UnitTable:
    try:
        return UnitTable(arrays["unit_ids"], arrays["unit_region"], arrays["unit_depth_um"])
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None


def _build(header: Header, arrays: dict[str, np.ndarray], origin: str) -> Session:
    try:
        check_width(header.bin_ns)  # before anything is binned
    except DataError as error:
        raise DataError(f"{origin}: {error}") from None
    refuse_unsorted(arrays["segments"], origin)
    units, events = _units(arrays, origin), None
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
        starts={k.removeprefix("start/"): v for k, v in arrays.items() if k.startswith("start/")},
    )
