"""What a network has learned of units, apart from the session they were in: taken out of one, put into another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from neds_core.data.session import UnitTable
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS

PREFIX = "lost/"  # of the tensors' names in a checkpoint


@dataclass(frozen=True, slots=True)
class Rows:
    """moves (1 + K, n, D) float32: by how much a unit's sqrt(count), and each of its K filters, moves the token,
    whatever the unit's spread; rates (n, D) float32: its row of the log-rate read-out."""

    units: UnitTable
    moves: np.ndarray
    rates: np.ndarray

    @property
    def keys(self) -> list[tuple[int, str]]:
        """What a unit is known by from session to session: id and region."""
        return list(zip(self.units.ids.tolist(), self.units.region.tolist(), strict=True))

    def take(self, places: Iterable[int]) -> Rows:
        """Those of some units."""
        at = np.array(list(places), np.int64)
        units = UnitTable(self.units.ids[at], self.units.region[at], self.units.depth_um[at])
        return Rows(units, self.moves[:, at], self.rates[at])

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint; `read` takes them back."""
        return {
            **unit_tensors(self.units, PREFIX),
            f"{PREFIX}moves": torch.from_numpy(np.ascontiguousarray(self.moves)),
            f"{PREFIX}rates": torch.from_numpy(np.ascontiguousarray(self.rates)),
        }


def unit_tensors(units: UnitTable, prefix: str) -> dict[str, Tensor]:
    """A unit table for a checkpoint, under names that begin with `prefix`; `read_units` takes it back."""
    text = "\n".join(units.region.tolist()).encode() or b"\n"
    return {
        f"{prefix}ids": torch.from_numpy(units.ids.copy()),
        f"{prefix}region": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        f"{prefix}depth_um": torch.from_numpy(units.depth_um.copy()),
    }


def read_units(tensors: dict[str, Tensor], prefix: str) -> UnitTable:
    """The unit table of a checkpoint's tensors. Raises `DataError` for what is none, `ValueError` for no text."""
    ids = tensors[f"{prefix}ids"].numpy()
    regions = bytes(tensors[f"{prefix}region"].tolist()).decode().split("\n")[: max(1, len(ids))]
    return UnitTable(ids, np.array(regions), tensors[f"{prefix}depth_um"].numpy())


def read(tensors: dict[str, Tensor]) -> Rows | None:
    """The rows of a checkpoint's tensors, None where it has none. Raises `ValueError` or `DataError`."""
    if f"{PREFIX}ids" not in tensors:
        return None
    units, moves, rates = read_units(tensors, PREFIX), *(tensors[f"{PREFIX}{k}"].numpy() for k in ("moves", "rates"))
    found, n = Rows(units, moves, rates), len(units)
    if (len(units.region), units.depth_um.shape, moves.shape[1:2], rates.shape[:1]) != (n, (n,), (n,), (n,)):
        raise ValueError("the rows of lost units are incomplete")
    if not (np.isfinite(moves).all() and np.isfinite(rates).all()):
        raise ValueError("a weight is not finite")
    return found


@torch.no_grad()
def of(model: NEDS, session: int, units: UnitTable, used: np.ndarray) -> Rows:
    """The rows of the used units (U,) bool of a model whose tokenizer has rows."""
    tokenizer = cast(UnitTokenizer, model.tokenizer(session))
    shape = (1 + tokenizer.n_filters, len(units), -1)
    moves = (tokenizer.rows * tokenizer.scale()[1][:, None]).reshape(shape)
    rates = model.rate_head(session).weight
    return Rows(units, moves.numpy().copy(), rates.numpy().copy()).take(np.flatnonzero(used))


@torch.no_grad()
def put(model: NEDS, units: UnitTable, rows: Rows) -> set[tuple[int, str]]:
    """Give the units of a model that `rows` has, by id and region, those rows; returns who they were.

    A row is scaled so that a spike moves the token as much as it did there, whatever the unit's spread is here; where a
    unit is filtered out here its row stays as it is.
    """
    tokenizer, rates = cast(UnitTokenizer, model.tokenizer()), model.rate_head()
    place = {key: u for u, key in enumerate(zip(units.ids.tolist(), units.region.tolist(), strict=True))}
    gain, n_units, found = tokenizer.scale()[1], len(units), set()
    for k, key in enumerate(rows.keys):
        u = place.get(key)
        if u is None:
            continue
        for copy, move in enumerate(rows.moves[:, k]):
            to = copy * n_units + u
            if gain[to] > 0:
                tokenizer.rows[to] = torch.from_numpy(move) / gain[to]
        rates.weight[u] = torch.from_numpy(rows.rates[k])
        found.add(key)
    return found


def lost(known: Iterable[Rows | None], today: UnitTable) -> Rows | None:
    """The rows of units that are not there today, the newest of each; None where there is none. known: oldest first."""
    here, newest = set(zip(today.ids.tolist(), today.region.tolist(), strict=True)), {}
    for rows in known:
        newest |= {key: (rows, k) for k, key in enumerate(rows.keys) if key not in here} if rows is not None else {}
    if not newest:
        return None
    each = [rows.take([k]) for rows, k in newest.values()]
    units = UnitTable(*(np.concatenate([getattr(r.units, k) for r in each]) for k in ("ids", "region", "depth_um")))
    return Rows(units, np.concatenate([r.moves for r in each], 1), np.concatenate([r.rates for r in each]))
