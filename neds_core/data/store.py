"""A store of memory-mapped sessions: arrays are read from disk where a batch touches them.

One folder a recording: `header.json` and one plain `.npy` file an array, uncompressed. Many recordings
need no more memory than the pages in use.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np

from neds_core.data import session_file
from neds_core.data.session import Session, UnitTable
from neds_core.data.session_file import Header
from neds_core.errors import DataError
from neds_core.files import unwritten

HEADER = "header.json"


def write(session: Session, folder: Path) -> None:
    """Write a session's counts, values and tables (not its spike times); a crash leaves no half of it."""
    header = Header(session_file.FORMAT, session.name, session.bin_ns, session.specs, session.licence, session.citation)
    arrays = {
        "counts": session.counts,
        "valid": session.valid,
        "segments": session.segments,
        "segment_ids": session.segment_ids,
        "unit_ids": session.units.ids,
        "unit_region": session.units.region,
        "unit_depth_um": session.units.depth_um,
        **{f"value-{m}": session.values[spec.name] for m, spec in enumerate(session.specs)},
        **{f"moment-{name}": ms for name, ms in session.moments.items()},
    }
    partial = folder.with_name(f"{folder.name}.partial-{uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        (partial / HEADER).write_bytes(msgspec.json.encode(header))
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / HEADER).exists():  # else another training, of any machine, has stored it meanwhile
                raise
    except OSError as error:
        raise unwritten(folder, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(folder: Path) -> Session:
    """A stored session with memory-mapped arrays, read-only. Raises `DataError` with the remedy."""
    try:
        header = msgspec.json.decode((folder / HEADER).read_bytes(), type=Header)
        arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in folder.glob("*.npy")}
        if header.format != session_file.FORMAT:
            raise ValueError(f"format {header.format}, not {session_file.FORMAT}")
        return Session(
            name=header.name,
            bin_ns=header.bin_ns,
            units=UnitTable(*(np.array(arrays[f"unit_{name}"]) for name in ("ids", "region", "depth_um"))),
            counts=arrays["counts"],
            valid=arrays["valid"],
            specs=header.behaviours,
            values={spec.name: arrays[f"value-{m}"] for m, spec in enumerate(header.behaviours)},
            segments=np.array(arrays["segments"]),
            segment_ids=np.array(arrays["segment_ids"]),
            licence=header.licence,
            citation=header.citation,
            moments={k.removeprefix("moment-"): np.array(ms) for k, ms in arrays.items() if k.startswith("moment-")},
        )
    except (OSError, ValueError, KeyError, EOFError, msgspec.DecodeError) as error:
        raise DataError(f"{folder} is not a stored session or is damaged ({error}); delete that folder") from None


def prepare(recording: Path, root: Path, load: Callable[[Path], Session] = session_file.load) -> Path:
    """Folder of a recording under `root`, written if it is not there yet. load: reads its file.

    The folder is named by the file's path, size and time of change, so a file that changed is
    stored anew. Raises `DataError` for a recording that cannot be used.
    """
    try:
        facts = recording.stat()
    except OSError:
        raise DataError(f"recording {recording} does not exist; check the path") from None
    identity = f"{recording.resolve()}\n{facts.st_size}\n{facts.st_mtime_ns}"
    folder = root / f"{recording.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not folder.exists():
        write(load(recording), folder)
    return folder
