"""The sessions of Steinmetz et al. 2019, with what the benches read beside spikes and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.recordings import EXAMPLES
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.io import bundles

FOLDER = EXAMPLES / "steinmetz2019" / "sessions"
OUTPUTS = ("wheel_direction", "go", "stimulus_side")


@dataclass(frozen=True, slots=True)
class Bundle:
    """One session of S trials.

    contrast (S, 2): left and right; sha256: of the file.
    """

    session: Session
    mouse: str
    contrast: np.ndarray
    sha256: str

    @property
    def movement_ms(self) -> np.ndarray:
        """(S,) first wheel movement from stimulus onset, inf = none seen."""
        ms = self.session.moments["first_movement"]
        return np.where(np.isnan(ms), np.inf, ms)

    def labels(self, output: str) -> np.ndarray:
        """(S,) int64: a trial's class, -1 = undefined."""
        return self.session.values[output][self.session.segments[:, 0]]


def read(path: Path) -> Bundle:
    """A published bundle. Raises `DataError` with the remedy."""
    try:
        session = bundles.steinmetz2019(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as raw:
            contrast = np.stack([raw["contrast_left"], raw["contrast_right"]], axis=1)
            mouse = str(raw["mouse"])
        session_file.check(session, str(path))
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise DataError(f"{path} is not a session of Steinmetz et al. 2019 as shipped here; copy it again") from None
    return Bundle(session, mouse, contrast, hashlib.sha256(path.read_bytes()).hexdigest())


def read_folder(folder: Path) -> list[Bundle]:
    """All sessions of a folder, in the order of their file names. Raises `DataError` where there is none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise DataError(f"{folder} holds no .npz; run it from a checkout of the repository, or give FOLDER")
    return [read(path) for path in paths]
