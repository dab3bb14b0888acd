"""Predictions in every direction but decoding (see `offline`): rates from behaviour, from other units, from the past.

Every function takes spans, (start, stop) bins of the session behind `cutter`, each predicted
from a cold start, and returns rows in the order of the spans' bins (`bins_of`). A causal model sees
nothing after the bin that it predicts. Rates are spikes a bin, (n, U) float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from neds_core.data.session import Session
from neds_core.errors import DataError
from neds_core.model.batches import Cutter
from neds_core.model.model import NEDS, Batch
from neds_core.model.offline import grouped

Span = tuple[int, int]


def spans_of(session: Session, longest: int | None = None) -> list[Span]:
    """The segments of a session, cut into pieces of at most `longest` bins."""
    pieces = [[*np.arange(a, b, longest or b - a).tolist(), int(b)] for a, b in session.segments]
    return [piece for edges in pieces for piece in pairwise(edges)]


def bins_of(spans: list[Span]) -> np.ndarray:
    """(n,) the bin of each row that the predictions of `spans` have."""
    return np.concatenate([np.arange(start, stop) for start, stop in spans])


def _groups(model: NEDS, cutter: Cutter, spans: list[Span]) -> Iterator[tuple[list[Span], Batch, np.ndarray]]:
    """Batches of spans with what is defined in them (B, T, M)."""
    for group in grouped(model, spans):
        yield group, *cutter.cut(group, model.config.clock_bins > 0)


def _rows(group: list[Span], values: Tensor) -> list[np.ndarray]:
    return [values[b, : stop - start].numpy() for b, (start, stop) in enumerate(group)]


@torch.inference_mode()
def encode(model: NEDS, cutter: Cutter, spans: list[Span], shown: tuple[str, ...]) -> np.ndarray:
    """Rates from the behaviours named in `shown`, wherever they are known; no spike is seen."""
    model.eval()
    column = np.array([False, *(s.name in shown for s in model.specs)])
    parts: list[np.ndarray] = []
    for group, batch, defined in _groups(model, cutter, spans):
        hidden = torch.from_numpy(~(defined & column))
        parts += _rows(group, model(batch, hidden)["spikes"].exp())
    return np.concatenate(parts)


@torch.inference_mode()
def next_bin(model: NEDS, cutter: Cutter, spans: list[Span]) -> np.ndarray:
    """Rates of each bin from the spikes of the bins before it in its span; one pass for each place in the span."""
    model.eval()
    parts: list[np.ndarray] = []
    for group, batch, defined in _groups(model, cutter, spans):
        found = torch.zeros(batch.counts.shape)
        for t in range(defined.shape[1]):
            hidden = torch.ones((len(defined), t + 1, defined.shape[2]), dtype=torch.bool)
            hidden[:, :t, 0] = ~batch.valid[:, :t]
            found[:, t] = model(_first(batch, t + 1), hidden)["spikes"][:, t].exp()
        parts += _rows(group, found)
    return np.concatenate(parts)


def _first(batch: Batch, n_bins: int) -> Batch:
    """The first bins of every window."""
    return replace(
        batch,
        counts=batch.counts[:, :n_bins],
        valid=batch.valid[:, :n_bins],
        traces={name: values[:, :n_bins] for name, values in batch.traces.items()},
        classes={name: values[:, :n_bins] for name, values in batch.classes.items()},
        clock=batch.clock[:, :n_bins],
    )


def unit_folds(n_units: int, n_folds: int, seed: int = 0) -> list[np.ndarray]:
    """(U,) bool each: random parts of the units, every unit in one."""
    fold = np.random.default_rng(seed).permutation(n_units) % n_folds
    return [fold == f for f in range(n_folds)]


@torch.inference_mode()
def co_smooth(model: NEDS, cutter: Cutter, spans: list[Span], folds: list[np.ndarray]) -> np.ndarray:
    """Rates of held-out units from the others in the same bin and before; each unit's from the fold that holds it out.

    Co-smoothing: Pei et al. 2021. A held-out unit adds nothing to any token. Its rate is read
    from a query that stands beside the spike token of its bin. Units in no fold stay NaN.
    Raises `DataError` for full attention, which has one token a bin and modality.
    """
    if model.config.attention == "full":
        raise DataError("full attention has no place beside a spike token for held-out units; give a causal checkpoint")
    model.eval()
    parts: list[np.ndarray] = []
    for group, batch, _ in _groups(model, cutter, spans):
        found = torch.full(batch.counts.shape, torch.nan)
        for held in folds:
            keep = torch.from_numpy(~held).float()[None, None]
            found[..., held] = _rates_beside(model, batch, keep)[..., held]
        parts += _rows(group, found)
    return np.concatenate(parts)


def _rates_beside(model: NEDS, batch: Batch, keep: Tensor) -> Tensor:
    """Rates (B, T, U) of a query that follows each bin's spike token; behaviours take no part."""
    n_batch, n_bins = batch.valid.shape
    content = model.spike_content(batch, ~batch.valid, keep)
    pair = torch.stack([content, model.mask_token.expand_as(content)], 2) + model.modality[0] + model.when(batch)
    sinks = model.sinks(batch.session).expand(n_batch, -1, -1)
    x = torch.cat([sinks, pair.flatten(1, 2)], dim=1)
    bins = torch.arange(n_bins).repeat_interleave(2)
    position = torch.cat([bins.new_zeros(model.n_sinks), bins])
    no_key = torch.stack([~batch.valid, torch.ones_like(batch.valid)], 2).flatten(1)
    keyless = torch.cat([no_key.new_zeros((n_batch, model.n_sinks)), no_key], dim=1)
    attend = model.pattern()
    for block in model.layers:
        x = block(x, position, keyless, model.n_sinks, attend)
    read = model.norm(x[:, model.n_sinks :]).unflatten(1, (n_bins, 2))[:, :, 1]
    return model.rate_head(batch.session)(read).exp()


@torch.inference_mode()
def cross(
    model: NEDS,
    cutter: Cutter,
    spans: list[Span],
    n_folds: int,
    shown: tuple[str, ...],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every token from the tokens that are not hidden with it, whatever their modality.

    Of the behaviours, only those named in `shown` are ever seen; the others are predicted alone.

    Each modality hides its own random 1 / n_folds of the bins at a time, until each bin was
    hidden once; a class that is constant in a span is hidden all or none. Returns "spikes" as
    rates, continuous behaviours (n,) as z-scores, classes (n, C) as probabilities.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    column = np.array([True, *(s.name in shown for s in model.specs)])
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("spikes", *(s.name for s in model.specs))}
    for group, batch, defined in _groups(model, cutter, spans):
        fold = rng.permuted(np.broadcast_to(np.arange(defined.shape[1])[:, None] % n_folds, defined.shape), axis=1)
        whole = rng.integers(0, n_folds, (len(defined), 1, defined.shape[2]))
        fold = np.where(cutter.constant(batch)[:, None], whole, fold)
        found: dict[str, Tensor] = {}
        for f in range(n_folds):
            now = torch.from_numpy(fold == f)
            out = model(batch, now | torch.from_numpy(~(defined & column)))
            for m, (name, said) in enumerate(_said(model, out).items()):
                rows = now[..., m] if said.ndim == 2 else now[..., m, None]
                found[name] = torch.where(rows, said, found.get(name, said))
        for name, values in found.items():
            parts[name] += _rows(group, values)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _said(model: NEDS, out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs in the order of the modalities: rates, z-scores, probabilities."""
    said = {"spikes": out["spikes"].exp()}
    for spec in model.specs:
        said[spec.name] = out[spec.name] if spec.kind == "continuous" else out[spec.name].softmax(-1)
    return said
