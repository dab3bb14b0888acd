"""NEDS and the linear decoder on the validation part: their blend, by what they are judged, and what a training starts
from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from neds_core.checkpoint.judged import Judged
from neds_core.config import TrainConfig
from neds_core.data import lead, scalers
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session, Splits, left_out
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model.model import NEDS
from neds_core.scores import r2 as scores
from neds_core.train import loop

BLEND_STEPS = 21


class Both(NamedTuple):
    """An output on every bin of the validation part's segments, by both decoders: values, or probabilities (n, C)."""

    neds: np.ndarray
    ridge: np.ndarray


def decode(model: NEDS, linear: dict[str, Linear], validation: Session, scale: Scalers) -> dict[str, Both]:
    """Every output by both decoders, in its unit."""
    ours, found = loop.decode_live(model, validation), {}
    for spec in model.specs:
        mine = ours[spec.name]
        if spec.kind == "continuous":
            mine = mine * scale.sd[spec.name] + scale.mean[spec.name]
        found[spec.name] = Both(mine, baseline.predict(linear[spec.name], validation, scale.kept, spec.kind))
    return found


def blend_shares(decoded: dict[str, Both], specs: tuple[BehaviourSpec, ...], validation: Session) -> dict[str, float]:
    """Share of NEDS in the blend of each output: best R2 (or log-likelihood) on validation."""
    bins = validation.bins()
    grid = np.linspace(0.0, 1.0, BLEND_STEPS)
    shares = {}
    for spec in specs:
        mine, theirs = decoded[spec.name]
        target = validation.values[spec.name][bins]
        if spec.kind == "continuous":
            known = np.isfinite(target) & validation.valid[bins]
            gain = [scores.r2(target[known], (s * mine + (1 - s) * theirs)[known]) for s in grid]
        else:
            known = target >= 0
            rows = np.flatnonzero(known), target[known]
            gain = [np.log(s * mine[rows] + (1 - s) * theirs[rows] + 1e-9).mean() for s in grid]
        shares[spec.name] = float(grid[int(np.argmax(gain))])
    return shares


def evidence(decoded: dict[str, Both], specs: tuple[BehaviourSpec, ...], validation: Session) -> Judged:
    """What a checkpoint keeps of it."""
    bins = validation.bins()
    target, neds, linear = {}, {}, {}
    for spec in specs:
        y, both = validation.values[spec.name][bins], decoded[spec.name]
        if spec.kind == "continuous":
            y = np.where(validation.valid[bins], y, np.nan)
        else:
            last = baseline.decision_bins(validation, bins)
            y, both = y[last], Both(both.neds[last], both.ridge[last])
        target[spec.name] = y.astype(np.float32)
        neds[spec.name], linear[spec.name] = both.neds[None].astype(np.float32), both.ridge.astype(np.float32)
    return Judged(validation.segment_of(bins).astype(np.int64), target, neds, linear)


def start(config: TrainConfig, whole: Session, parts: Splits, scale: Scalers) -> Iterator[str]:
    """What a training takes of a recording: lines of text."""
    yield (
        f"units: {int(scale.kept.sum())} of {len(scale.kept)} kept, those of at least min_rate_hz = "
        f"{config.min_rate_hz:g} in the training part"
    )
    n_used = int(scalers.inside(whole).sum())
    yield f"bins: {whole.n_bins} of {whole.bin_ns * 1e-6:g} ms, {n_used} of them valid and inside segments"
    each = {"training": parts.train, "validation": parts.validation, "test": parts.test}
    yield "segments: " + ", ".join(f"{name} {len(p.segments)} ({len(p.bins())} bins)" for name, p in each.items())
    stop = int(parts.validation.segments[-1, 1])  # nothing that is said depends on spikes of the test part
    n_spikes = int(whole.counts[parts.development.bins()].sum(dtype=np.int64))
    others = left_out(whole, stop)
    yield f"spikes: {n_spikes} in the training and validation parts" + (f"; left out: {others}" if others else "")
    n_clipped = int((whole.counts[:stop] == 255).sum()) if whole.counts.dtype == np.uint8 else 0
    if n_clipped:
        yield (
            f"counts: {n_clipped} before the test part are 255, the most that uint8 holds, and may be clipped; "
            "a rig counts on: give uint16 counts or spike times"
        )
    for spec in (whole.spec(name) for name in config.outputs):
        yield f"{spec.name}: {_range(parts.train, spec)} in the training part"
    yield from lead.lines(parts.train.spec(name) for name in config.outputs)


def _range(train: Session, spec: BehaviourSpec) -> str:
    """What values an output takes."""
    if spec.kind == "continuous":
        values = train.values[spec.name][scalers.known(train, spec)]
        return f"{values.min():.4g} to {values.max():.4g} {spec.unit}".rstrip()
    label = train.values[spec.name][train.segments[:, 1] - 1]
    return ", ".join(f"{name} {int((label == c).sum())}" for c, name in enumerate(spec.classes)) + " trials"
