"""A checkpoint that is to take over in a run: read from its file and compared with what decodes."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError
from runtime.core.engine import Decoder
from runtime.engines import prepare

MOST_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Known:
    """A decoder of this run, how many bins it is primed with, and what the chain says of it."""

    decoder: Decoder
    n_bins: int
    path: str = ""
    session: str = ""
    gate: tuple[tuple[str, str], ...] = ()
    parents: tuple[str, ...] = ()


def known(decoder: Decoder, checkpoint: Checkpoint, path: str) -> Known:
    """What is kept of a decoder of a checkpoint."""
    gate, n_bins = checkpoint.header.gate, prepare.receptive_bins(checkpoint)
    if gate is None:
        return Known(decoder, n_bins, path)
    words = tuple((output, offer.word) for output, offer in gate.offers.items())
    return Known(decoder, n_bins, path, gate.session, words, gate.parents)


def fetch(path: Path, sha256: str) -> Checkpoint:
    """The checkpoint in a file that has this SHA-256: what is parsed are the bytes that were hashed.

    Raises `CheckpointError` with the remedy.
    """
    if not path.is_absolute():
        raise CheckpointError(f"checkpoint {path} is a relative path; give an absolute one")
    try:
        with open(path, "rb", opener=_without_waiting) as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise CheckpointError(f"checkpoint {path} is no regular file; give a file of neds-rt")
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror}); check the path") from None
    if len(data) > MOST_BYTES:
        raise CheckpointError(f"checkpoint {path} has more than {MOST_BYTES // 10**6} MB; swap in a smaller one")
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise CheckpointError(f"checkpoint {path} has SHA-256 {found[:12]}, not {sha256[:12]}; ask again with its own")
    return checkpoints.parse(data, path)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe would wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def refuse_other(made: Checkpoint, units: UnitTable, running: Decoder) -> None:
    """Raise `CheckpointError` where subscribers, or this stream, would not get from a checkpoint what they have now."""
    name, header = made.header.name, made.header
    if header.unit_map_sha != units.sha256:
        theirs, ours = (set(zip(t.ids.tolist(), t.region.tolist(), strict=True)) for t in (made.units, units))
        raise CheckpointError(
            f"{name} was made for other units than this stream sends ({len(made.units)} and {len(units)} units, "
            f"{len(theirs & ours)} of them the same); calibrate it on today's units"
        )
    if header.bin_ns != running.bin_ns:
        wide, ours_ms = header.bin_ns * 1e-6, running.bin_ns * 1e-6
        raise CheckpointError(f"{name} has bins of {wide:g} ms and this run of {ours_ms:g} ms; train it on those")
    specs = running.engine.layout.specs
    if [_wired(s) for s in header.specs] != [_wired(s) for s in specs]:
        theirs, ours = (", ".join(spec.name for spec in each) for each in (header.specs, specs))
        raise CheckpointError(
            f"{name} has other outputs ({theirs}) than this run ({ours}), or in another order, unit, sign, lead or "
            "class; train it on the same, or start another run"
        )


def _wired(spec: BehaviourSpec) -> tuple[object, ...]:
    """What a subscriber relies on of an output."""
    return spec.name, spec.kind, spec.unit, spec.sign, spec.classes, spec.group, spec.angle, spec.lead_ms
