"""Which brain region a unit lies in, told from how a model embeds it, and from what needs no model.

Zhang et al. 2025 (sec. 4.5) classify regions from a unit's rows of the tokenizer and of the rate
read-out. A region can also be told from plain statistics of its units, so embeddings are judged beside
those. The published accuracy is of other recordings, regions and splits and is comparable to none here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS

N_BLOCKS = 20  # of slow drift: contiguous stretches of the recording
N_LOADINGS = 20  # leading patterns of trial-to-trial covariance
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NOT_A_REGION = ("root",)  # the atlas' name for "nowhere in particular"
NOTES = {
    "ibl-dy016": "the source starts each region's bins at that region's first spike in the trial, which shifts all "
    "units of a region together by about 2 to 10 ms; time courses tell regions apart for that reason too",
}
FEATURES = ("tokenizer", "readout", "both")


@dataclass(frozen=True, slots=True)
class Places:
    """The units that are classified: row (n,) in each session's unit table, label (n,) in names, session (n,)."""

    names: tuple[str, ...]
    row: np.ndarray
    label: np.ndarray
    session: np.ndarray


def places(
    regions: list[np.ndarray], kept: list[np.ndarray], animals: list[str], min_animals: int = 1, min_units: int = 10
) -> Places:
    """Kept units of the regions that were seen in `min_animals` and have `min_units` kept units in all.

    regions: (U,) str of each session; kept: (U,) bool of each session; animals: one name a session.
    Raises `DataError` where fewer than two regions remain.
    """
    region = np.concatenate([r[k] for r, k in zip(regions, kept, strict=True)])
    row = np.concatenate([np.flatnonzero(k) for k in kept])
    session = np.repeat(np.arange(len(kept)), [int(k.sum()) for k in kept])
    animal = np.array(animals)[session]
    names = tuple(
        str(name)
        for name in np.unique(region)
        if name not in NOT_A_REGION
        and (region == name).sum() >= min_units
        and len(np.unique(animal[region == name])) >= min_animals
    )
    if len(names) < 2:
        raise DataError(
            f"{len(names)} region(s) have {min_units} units in {min_animals} animal(s); a map needs two: "
            "give other recordings or lower the limits"
        )
    chosen = np.isin(region, names)
    return Places(names, row[chosen], np.searchsorted(names, region[chosen]), session[chosen])


def embedding(model: NEDS, session: int = 0) -> dict[str, np.ndarray]:
    """A session's unit embeddings: tokenizer rows and rate read-out rows (U, D), and both side by side (U, 2D).

    The published tokenizer has no row a unit; its slope at zero counts stands for one. Of filtered tokens it is the row
    of the bin's own counts.
    """
    units = model.tokenizer(session)
    rows = (
        units.rows[: len(units.mean)]
        if isinstance(units, UnitTokenizer)
        else (units.project.weight @ units.spread.weight).T
    )
    tokenizer = rows.detach().cpu().double().numpy()
    readout = model.rate_head(session).weight.detach().cpu().double().numpy()
    return {"tokenizer": tokenizer, "readout": readout, "both": np.concatenate([tokenizer, readout], 1)}


def plain_features(session: Session, shared_frame: bool = False) -> dict[str, np.ndarray]:
    """What tells regions apart without a model, (U, F) each, from the trials in `session.segments`.

    rate: log mean rate. shape: the trial average's course, z-scored over time. drift: sqrt rates
    in 20 contiguous blocks, z-scored over blocks. covariance: loadings on the 20 leading patterns
    of trial-to-trial sqrt rates; a session's patterns are its own, so with `shared_frame` they give
    way to quantiles of the unit's correlations with the others, and its Fano factor. plain: all of these.
    """
    if session.continuous:
        raise DataError(f"recording {session.name!r} has no trials, so no trial average; give one with segments")
    n_bins = int((session.segments[:, 1] - session.segments[:, 0]).min())
    total = np.zeros((n_bins, len(session.units)))
    trial = np.empty((len(session.segments), len(session.units)))
    for s, (start, _) in enumerate(session.segments):
        counts = session.counts[start : start + n_bins].astype(np.float64)
        total += counts
        trial[s] = counts.sum(0)
    root = np.sqrt(trial).T  # (U, S)
    blocks = [b.mean(1) for b in np.array_split(root, min(N_BLOCKS, root.shape[1]), axis=1)]
    found = {
        "rate": np.log(trial.mean(0) + 1e-2)[:, None],
        "shape": _z(np.sqrt(total / len(trial)).T),
        "drift": _z(np.stack(blocks, 1)),
        "covariance": _profile(root, trial) if shared_frame else _loadings(root),
    }
    return found | {"plain": np.concatenate(list(found.values()), 1)}


def _z(x: np.ndarray) -> np.ndarray:
    """z-scores along the last axis; a constant row is 0."""
    centred = x - x.mean(-1, keepdims=True)
    sd = centred.std(-1, keepdims=True)
    return centred / np.where(sd > 1e-9, sd, 1.0)


def _loadings(root: np.ndarray) -> np.ndarray:
    u, s, _ = np.linalg.svd(_z(root), full_matrices=False)
    return (u * s)[:, :N_LOADINGS]


def _profile(root: np.ndarray, trial: np.ndarray) -> np.ndarray:
    z = _z(root)
    correlation = z @ z.T / z.shape[1]
    np.fill_diagonal(correlation, np.nan)
    quantiles = np.nanquantile(correlation, QUANTILES, axis=1).T
    fano = np.log((trial.var(0) + 1e-2) / (trial.mean(0) + 1e-2))
    return np.column_stack([quantiles, fano])


def principal_plane(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First two principal components of the z-scored columns of x (n, F): scores (n, 2), share of variance (2,)."""
    u, s, _ = np.linalg.svd(_z(x.T).T, full_matrices=False)
    return u[:, :2] * s[:2], s[:2] ** 2 / (s**2).sum()
