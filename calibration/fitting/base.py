"""What a calibration starts from: a checkpoint of one recording, a trunk of many, or nothing on a first day."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch

from neds_core import checkpoint
from neds_core.config import MaskConfig
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import ConfigError
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS
from neds_core.train import many
from neds_core.train.many import Pretrained


@dataclass(frozen=True, slots=True)
class Base:
    """trunk: its network and unit tables; parents: SHA-256 of its file, then of its own parents; trial_mean: of traces
    by bins since the segment's start, where the base knows one."""

    name: str
    trunk: Pretrained
    parents: tuple[str, ...]
    masks: MaskConfig
    trial_mean: dict[str, np.ndarray] = field(default_factory=dict)

    def specs(self) -> tuple[BehaviourSpec, ...]:
        """Its outputs."""
        return self.trunk.model.specs


def read(path: Path) -> Base:
    """A base from its file; an ensemble gives its first network. Raises `CheckpointError`."""
    if many.is_one(path):
        trunk = many.load(path)
        return Base(path.name, trunk, (trunk.sha,), trunk.header.config.masks)
    made = checkpoint.load(path)
    gate = made.header.gate
    parents = (made.sha, *(gate.parents if gate else ()))
    return Base(path.name, many.of_checkpoint(made), parents, made.header.config.masks, made.scalers.trial_mean)


def outputs(base: Base, session: Session, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs to calibrate: those that are wanted, or all of the base. Raises `ConfigError` or `DataError`."""
    known = {spec.name: spec for spec in base.specs()}
    for name in wanted or tuple(known):
        theirs, ours = known.get(name), session.spec(name)
        if theirs is None:
            raise ConfigError(f"output {name!r} is none of the base's ({', '.join(known)}); leave it out of outputs")
        if (ours.unit, ours.sign) != (theirs.unit, theirs.sign):
            raise ConfigError(
                f"{name} is in {ours.unit!r} ({ours.sign or 'no sign'}) in this session, and in {theirs.unit!r} "
                f"({theirs.sign or 'no sign'}) in the base; record it as the base was trained, or leave it out"
            )
    return wanted or tuple(known)


@torch.no_grad()
def keep_rows(model: NEDS, session: Session, trunk: Pretrained) -> int:
    """Give units that the trunk knows by id and region their rows and rate read-outs; how many there were.

    Of several sessions of the trunk the last one that used the unit counts. A row is scaled so that a spike moves the
    token as much as it did there, whatever the unit's spread is here.
    """
    tokenizer, rates = model.tokenizer(), model.rate_head()
    if not isinstance(tokenizer, UnitTokenizer):
        raise ConfigError("keep_rows is for a base whose model.tokenizer is 'rows'; set it to false")
    place = {(i, r): u for u, (i, r) in enumerate(zip(session.units.ids.tolist(), session.units.region, strict=True))}
    n_units, gain = len(session.units), tokenizer.scale()[1]
    found: set[int] = set()
    for s, row in enumerate(trunk.header.sessions):
        old = cast(UnitTokenizer, trunk.model.tokenizer(s))
        old_gain, n_old = old.scale()[1], len(row.unit_ids)
        for k, key in enumerate(zip(row.unit_ids, row.region, strict=True)):
            u = place.get(key)
            if u is None or not row.kept[k]:
                continue
            for copy in range(1 + tokenizer.n_filters):
                to, of = copy * n_units + u, copy * n_old + k
                if gain[to] > 0:
                    tokenizer.rows[to] = old.rows[of] * (old_gain[of] / gain[to])
            rates.weight[u] = trunk.model.rate_head(s).weight[k]
            found.add(u)
    return len(found)
