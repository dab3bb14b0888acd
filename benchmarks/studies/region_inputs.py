"""What the brain-region map reads: recordings with their animals, and the embeddings that checkpoints have of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neds_core import checkpoint as checkpoints
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, DataError
from neds_core.io import bundles
from neds_core.model import directions
from neds_core.scores import regions
from neds_core.train import many

MIN_RATE_HZ = 0.5


@dataclass(frozen=True, slots=True)
class Recording:
    """The training and validation part of a recording, its animal, and the units fast enough to be trained on."""

    session: Session
    animal: str
    kept: np.ndarray  # (U,) bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model's embedding of one session: identity of its unit table, kept (U,) bool, name -> rows (U, F)."""

    units_sha: str
    kept: np.ndarray
    rows: dict[str, np.ndarray]


def read(path: Path) -> Recording:
    """A Session.npz (its name stands for the animal), or a bundle of Steinmetz et al. 2019 as published here."""
    animal, whole = _published(path) or ("", session_file.load(path))
    parts = sessions.split(whole)
    bins = directions.bins_of(directions.spans_of(parts.train))
    kept = whole.counts[bins].mean(0) / (whole.bin_ns * 1e-9) >= MIN_RATE_HZ
    return Recording(parts.development, animal or whole.name, kept)


def _published(path: Path) -> tuple[str, Session] | None:
    """Animal and session of a published bundle; None for another file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as raw:
            if "mouse" not in raw.files or "brain_area" not in raw.files:
                return None
            animal = str(raw["mouse"])
        return animal, replace(bundles.steinmetz2019(path), name=path.stem)
    except FileNotFoundError:
        raise DataError(f"recording {path} does not exist; check the path") from None
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise DataError(f"{path} is not a readable Session.npz or published bundle; copy or convert it again") from None


def embedded(path: Path) -> list[Embedded]:
    """Every session of a checkpoint, of one recording or of many, as a map sees it."""
    if many.is_one(path):
        trunk = many.load(path)
        return [
            Embedded(row.units.sha256, np.array(row.kept), regions.embedding(trunk.model, s))
            for s, row in enumerate(trunk.header.sessions)
        ]
    made = checkpoints.load(path)
    return [Embedded(made.units.sha256, made.scalers.kept, regions.embedding(made.model))]


def fit_to(recordings: list[Recording], files: list[Path]) -> list[list[Embedded]]:
    """Embeddings by training seed, in each one for every recording; matched by the unit table."""
    by_recording: list[list[Embedded]] = [[] for _ in recordings]
    shas = [one.session.units.sha256 for one in recordings]
    for path in files:
        found = [one for one in embedded(path) if shas.count(one.units_sha) == 1]
        if not found:
            raise CheckpointError(
                f"{path} is of none of the recordings, or of two that are alike; give the one it is of"
            )
        for one in found:
            by_recording[shas.index(one.units_sha)].append(one)
    n_seeds = {len(one) for one in by_recording}
    if len(n_seeds) > 1:
        raise CheckpointError("a model needs as many checkpoints for every recording; give the missing ones")
    return [list(seed) for seed in zip(*by_recording, strict=True)]
