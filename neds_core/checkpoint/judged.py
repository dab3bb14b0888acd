"""What the decoders of a checkpoint said of the validation part, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from neds_core.data.session import BehaviourSpec

Name = Literal["neds", "ridge", "blend"]
Measure = Literal["R2", "balanced accuracy", ""]


class Score(Struct, frozen=True, forbid_unknown_fields=True):
    """A score and its 95 % interval, None = too few segments or blocks to resample."""

    value: float
    low: float | None = None
    high: float | None = None


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """How far a decoder may be from what is measured, in the output's unit, fitted on the validation part.

    sd^2 = floor^2 + (slope s)^2, s the sample standard deviation of the networks' values (0 of one network); constant:
    the sd that is the same in every bin. covers, constant_covers: share of the n bins inside the intervals of 50, 80
    and 95 %.
    """

    floor: float
    slope: float
    constant: float
    covers: dict[str, float]
    constant_covers: dict[str, float]
    n: int


class Verdict(Struct, frozen=True, forbid_unknown_fields=True):
    """On one output: what is published unless another decoder is named, and why (`neds_core.scores.judging`).

    measure: of the scores; scores: of each decoder on the validation part. Both empty: the output was not judged.
    spread: of each decoder of a trace.
    """

    recommended: Name
    reason: str
    measure: Measure = ""
    scores: dict[Name, Score] = {}
    spread: dict[Name, Spread] = {}


class Offer(Struct, frozen=True, forbid_unknown_fields=True):
    """What the gate of a calibration says of one output, by the part that nothing was fitted or chosen on.

    PASS: NEDS (or the blend) is offered; RIDGE: the linear decoder is; NEED: `n_more` further segments may decide;
    REFUSE: nothing may be offered. decoder: the one that is offered, or would be. scores: of each decoder and of
    "constant" there; gain: of NEDS over the ridge, its interval one of 90 %.
    """

    word: Literal["PASS", "RIDGE", "NEED", "REFUSE"]
    decoder: Name
    reason: str
    measure: Measure = ""
    n: int = 0  # segments, or blocks of a continuous recording, that judged
    n_more: int = 0
    scores: dict[str, Score] = {}
    gain: Score | None = None


class Gate(Struct, frozen=True, forbid_unknown_fields=True):
    """The judgement of one calibration: on which session and units, from which parent, and what it offers.

    parents: SHA-256 of the checkpoints before it, the newest first; () = a first day. forced: it was swapped in though
    it had not passed.
    """

    session: str
    session_sha: str
    unit_map_sha: str
    created: str
    offers: dict[str, Offer]
    parents: tuple[str, ...] = ()
    forced: bool = False

    @property
    def passed(self) -> bool:
        """Whether every output that was judged may be published."""
        return bool(self.offers) and all(offer.word in ("PASS", "RIDGE") for offer in self.offers.values())


@dataclass(frozen=True, slots=True)
class Judged:
    """The validation part by decoders that were fitted on the training part alone; arrays by output, float32.

    segment (n,) int64: of each bin, in time order. Of a trace, target (n,) in its unit, NaN = not known or a faulty
    bin; neds (K, n) of K networks; linear (n,). Of a class, a row for the last bin of each of S segments: target (S,)
    its index, -1 = not known; neds (K, S, C) and linear (S, C) probabilities.
    """

    segment: np.ndarray
    target: dict[str, np.ndarray]
    neds: dict[str, np.ndarray]
    linear: dict[str, np.ndarray]

    def member(self, m: int) -> Judged:
        """The same of one network."""
        return replace(self, neds={name: values[m : m + 1] for name, values in self.neds.items()})

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint keeps it."""
        found = {"judged/segment": torch.from_numpy(self.segment)}
        for part in PARTS:
            for name, values in getattr(self, part).items():
                found[f"judged/{name}/{part}"] = torch.from_numpy(np.ascontiguousarray(values))
        return found


PARTS = ("target", "neds", "linear")


def read_judged(
    tensors: dict[str, Tensor], specs: Sequence[BehaviourSpec], n_networks: int, verdicts: dict[str, Verdict]
) -> Judged | None:
    """What `Judged.tensors` gave; None of a file without. Raises `ValueError` where a part or a verdict is missing."""
    if verdicts and ("judged/segment" not in tensors or verdicts.keys() != {spec.name for spec in specs}):
        raise ValueError("its verdicts are incomplete")
    if "judged/segment" not in tensors:
        return None
    segment = tensors["judged/segment"].numpy()
    target, neds, linear = ({s.name: tensors[f"judged/{s.name}/{part}"].numpy() for s in specs} for part in PARTS)
    for spec in specs:
        trace = spec.kind == "continuous"
        row = (len(segment),) if trace else (len(np.unique(segment)), len(spec.classes))
        found = target[spec.name].shape, neds[spec.name].shape, linear[spec.name].shape
        if found != (row[:1], (n_networks, *row), row):
            raise ValueError(f"what {spec.name} was judged by is incomplete")
    return Judged(segment, target, neds, linear)


def joined(each: Sequence[Judged]) -> Judged:
    """Of all their networks. They were judged on the same bins, beside the same linear decoder."""
    first = each[0]
    return replace(first, neds={name: np.concatenate([one.neds[name] for one in each]) for name in first.neds})
