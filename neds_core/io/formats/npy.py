"""Arrays and tables as sorters and ALF keep them, one a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neds_core.errors import DataError, NedsError
from neds_core.io.importing import spikes

PARQUET = (".pqt", ".parquet")


def array(path: Path) -> np.ndarray:
    """What a .npy file holds; (n, 1) becomes (n,). Raises `DataError` for what cannot be read, objects among it."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; copy the whole folder") from None
    except Exception as error:  # of many kinds: the header of a file is Python
        raise DataError(f"{path} cannot be read ({_first_line(error)}); copy it again") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} holds no single array; copy it again")
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def vector(path: Path) -> np.ndarray:
    """The same, of one dimension: (n,)."""
    found = array(path)
    if found.ndim != 1:
        raise DataError(f"{path} has the shape {found.shape}, not (n,); copy it again from where it was made")
    return found


def table(path: Path, extra: str) -> Any:
    """A data frame of a .pqt, .csv or .tsv file. extra: of neds-rt, that brings the libraries."""
    pandas = spikes.library("pandas", extra)
    try:
        if path.suffix in PARQUET:
            spikes.library("pyarrow", extra)
            return pandas.read_parquet(path)
        return pandas.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except NedsError:
        raise
    except Exception as error:  # of many kinds: each library has its own
        raise DataError(f"{path} cannot be read ({_first_line(error)}); copy it again") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
