"""Ensembles: several networks of one recording, trained from different seeds, joined in one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, pairwise

import msgspec
import numpy as np

from neds_core import checkpoint as files
from neds_core.checkpoint import Checkpoint, Member, Record
from neds_core.checkpoint.judged import Judged, joined
from neds_core.errors import CheckpointError
from neds_core.scores import judging

SAME: dict[str, Callable[[Checkpoint], object]] = {
    "bin width": lambda made: made.header.bin_ns,
    "unit map": lambda made: made.header.unit_map_sha,
    "outputs": lambda made: made.specs,
    "model configuration": lambda made: made.header.config.model,
    "kept units": lambda made: made.scalers.kept.tolist(),
    "scales of outputs": lambda made: (made.header.mean, made.header.sd, made.header.prior),
    "recording": lambda made: made.header.record.recording_sha,
}


def join(checkpoints: Sequence[Checkpoint], name: str, linear_share: float | None = None) -> Checkpoint:
    """One checkpoint of the networks of several, in their order; one that is an ensemble brings all of its own.

    linear_share: of the linear decoder in every blend; None = that of each network. Raises `CheckpointError` with the
    remedy where they do not share units, scales and linear decoders.
    """
    for made in checkpoints:
        if not made.linear:
            raise CheckpointError(f"checkpoint {made.header.name!r} holds no linear decoder; join trained ones")
    first, *others = checkpoints
    members = tuple(chain.from_iterable(_members(made, linear_share) for made in checkpoints))
    for other in others:
        _refuse_unlike(first, other)
    _refuse_twice(members)
    blend = {s.name: float(np.mean([member.blend[s.name] for member in members])) for s in first.specs}
    header = msgspec.structs.replace(
        first.header, name=name, blend=blend, record=_record([member.record for member in members]), members=members
    )
    networks = [network for made in checkpoints for network in made.networks]
    return judging.decide(
        Checkpoint(
            header, networks[0], first.units, first.scalers, first.linear, others=tuple(networks[1:]),
            judged=_judged(checkpoints),
        )
    )  # fmt: skip


def _judged(checkpoints: Sequence[Checkpoint]) -> Judged | None:
    """What all networks said of the validation part; None where one of them was written before that was kept."""
    each = [made.judged for made in checkpoints if made.judged is not None]
    if len(each) < len(checkpoints):
        return None
    if not all(np.array_equal(one.segment, each[0].segment) for one in each):
        raise CheckpointError("the checkpoints were judged on different validation parts; train them with one version")
    return joined(each)


def _members(made: Checkpoint, linear_share: float | None) -> Iterator[Member]:
    header = made.header
    for member in header.members or (Member(header.name, made.sha, header.blend, header.record),):
        share = member.blend if linear_share is None else dict.fromkeys(member.blend, 1.0 - linear_share)
        yield msgspec.structs.replace(member, blend=share)


def _record(records: Sequence[Record]) -> Record:
    """Of an ensemble: nobody has looked at the test part with it."""
    created, seconds = datetime.now(UTC).isoformat(timespec="seconds"), sum(r.seconds for r in records)
    return msgspec.structs.replace(records[0], created=created, seconds=seconds, test_looks=0, test_scores={})


def _refuse_unlike(first: Checkpoint, other: Checkpoint) -> None:
    names = f"{first.header.name!r} and {other.header.name!r}"
    for what, of in SAME.items():
        if of(first) != of(other):
            raise CheckpointError(
                f"checkpoints {names} cannot be joined: their {what} differ{'' if what.endswith('s') else 's'}; join "
                "checkpoints that one configuration was trained to from different seeds"
            )
    if not files.same_scale(first.model, other.model):
        raise CheckpointError(f"checkpoints {names} cannot be joined: their scales of units differ; train them again")
    if not _same_linear(first, other):
        raise CheckpointError(
            f"checkpoints {names} cannot be joined: their linear decoders differ; train them with one version"
        )


def _same_linear(first: Checkpoint, other: Checkpoint) -> bool:
    """The linear decoder does not depend on the seed, so members share one; two machines may differ in last digits."""
    for name, ours in first.linear.items():
        theirs = other.linear.get(name)
        if theirs is None or (ours.bank, ours.penalty) != (theirs.bank, theirs.penalty):
            return False
        if not np.allclose(ours.weight, theirs.weight, rtol=1e-3, atol=1e-3 * float(np.abs(ours.weight).max())):
            return False
    return first.linear.keys() == other.linear.keys()


def _refuse_twice(members: Sequence[Member]) -> None:
    """The same network twice is no ensemble, and its spread would say nothing."""
    for one, two in pairwise(sorted(members, key=lambda member: member.sha)):
        if one.sha == two.sha:
            raise CheckpointError(f"checkpoint {one.name!r} is given twice ({two.name!r}); give each once")
    if len(members) < 2:
        raise CheckpointError(f"an ensemble needs two checkpoints or more, and {len(members)} was given")
