"""What a calibration starts from: a checkpoint of one recording, a trunk of many, or nothing on a first day."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neds_core import checkpoint
from neds_core.config import MaskConfig
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import CheckpointError, ConfigError
from neds_core.model import rows
from neds_core.model.model import NEDS
from neds_core.model.rows import Rows
from neds_core.train import many
from neds_core.train.many import Pretrained


@dataclass(frozen=True, slots=True)
class Base:
    """trunk: its network and unit tables; parents: SHA-256 of its file, then of its own parents; trial_mean: of traces
    by bins since the segment's start, where the base knows one; lost: rows of units that were there before it."""

    name: str
    trunk: Pretrained
    parents: tuple[str, ...]
    masks: MaskConfig
    trial_mean: dict[str, np.ndarray] = field(default_factory=dict)
    lost: Rows | None = None

    def specs(self) -> tuple[BehaviourSpec, ...]:
        """Its outputs."""
        return self.trunk.model.specs


def read(path: Path) -> Base:
    """A base from its file; an ensemble gives its first network. Raises `CheckpointError`."""
    if many.is_one(path):
        trunk = many.load(path)
        return Base(path.name, trunk, (trunk.sha,), trunk.header.config.masks)
    made = checkpoint.load(path)
    if made.header.brought is not None:
        raise CheckpointError(
            f"{path} is a decoder that was brought, so it has no network to start from; give --from a checkpoint that "
            "neds-rt train or calibrate wrote"
        )
    gate = made.header.gate
    parents = (made.sha, *(gate.parents if gate else ()))
    trunk, masks = many.of_checkpoint(made), made.header.config.masks
    return Base(path.name, trunk, parents, masks, made.scalers.trial_mean, made.lost)


def outputs(base: Base, session: Session, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs to calibrate: those that are wanted, or all of the base. Raises `ConfigError` or `DataError`."""
    known, bin_ns = {spec.name: spec for spec in base.specs()}, base.trunk.header.bin_ns
    if session.bin_ns != bin_ns:
        raise ConfigError(
            f"recording {session.name!r} has bins of {session.bin_ns * 1e-6:g} ms, the base of {bin_ns * 1e-6:g} ms; "
            "use one of its bin width"
        )
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


def keep_rows(model: NEDS, session: Session, base: Base) -> tuple[int, Rows | None]:
    """Give units that the base knows by id and region their rows and rate read-outs.

    Of several sessions of the base the last one that used the unit counts. Returns how many units there were, and the
    rows of those that the base knows and the session has not. Raises `ConfigError` for a base without rows.
    """
    trunk = base.trunk
    if model.config.tokenizer != "rows":
        raise ConfigError("keep_rows is for a base whose model.tokenizer is 'rows'; set it to false")
    known = [
        base.lost,
        *(rows.of(trunk.model, s, row.units, np.array(row.kept)) for s, row in enumerate(trunk.header.sessions)),
    ]
    found = [rows.put(model, session.units, each) for each in known if each is not None]
    return len(set().union(*found)), rows.lost(known, session.units)
