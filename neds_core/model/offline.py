"""Offline decoding: the twins that every streaming engine is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from neds_core.model.attention import Attention
from neds_core.model.batches import onto
from neds_core.model.model import NEDS, Batch

SPANS_AT_ONCE = 32
FLOATS_AT_ONCE = 1 << 26  # of one layer's tokens, padding included: 256 MiB a tensor
TOKENS_AT_ONCE = 16384  # of the prefixes that go through the model together


def spans(reset: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) rows between cold starts; row 0 always starts one."""
    starts = np.flatnonzero(reset)
    edges = [0, *(int(s) for s in starts if s > 0), len(reset)]
    return list(pairwise(edges))


def grouped(model: NEDS, spans: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Spans in order, in groups that go through the model together: each is padded to the longest of its group.

    One of an hour is alone: among short ones it would make each of them as long.
    """
    bins = FLOATS_AT_ONCE // (model.config.width * (1 + len(model.specs)))
    group: list[tuple[int, int]] = []
    longest = 0
    for start, stop in spans:
        longest = max(longest, stop - start)
        if group and (len(group) == SPANS_AT_ONCE or (len(group) + 1) * longest > bins):
            yield group
            group, longest = [], stop - start
        group.append((start, stop))
    if group:
        yield group


@torch.inference_mode()
def decode(
    model: NEDS,
    counts: np.ndarray,
    valid: np.ndarray,
    clock: np.ndarray,
    spans: list[tuple[int, int]],
    session: int = 0,
    observed: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Decode behaviour from spikes and what is observed of it, each span from a cold start.

    counts (T, U); valid (T,) bool, False = hidden spike token, no key; clock (T,) int64 bins
    since the segment's marker (used by a clocked model only); spans: (start, stop) bins, for
    full attention whole segments. session: row in the model's session table. observed (T, M): z-scores and
    classes by their index, NaN = hidden, as is all of a bin that is not valid; None = spikes alone.
    Returns name -> (n,) z-scores or (n, C) probabilities, rows in the order of the spans. Of a
    behaviour where it is observed they mean nothing.
    """
    model.eval()
    device = model.mask_token.device
    parts: dict[str, list[np.ndarray]] = {s.name: [] for s in model.specs}
    for group in grouped(model, spans):
        batch = onto(_batch(model, counts, valid, clock, group, session), device)
        hidden = torch.ones((*batch.valid.shape, 1 + len(model.specs)), dtype=torch.bool, device=device)
        hidden[..., 0] = ~batch.valid
        if observed is not None:
            _show(model, batch, hidden, observed, group)
        out = model(batch, hidden)
        for spec in model.specs:
            y = out[spec.name] if spec.kind == "continuous" else out[spec.name].softmax(-1)
            parts[spec.name] += [y[b, : stop - start].cpu().numpy() for b, (start, stop) in enumerate(group)]
    return {name: np.concatenate(rows) for name, rows in parts.items()}


@torch.inference_mode()
def decode_prefixes(
    model: NEDS,
    counts: np.ndarray,
    valid: np.ndarray,
    clock: np.ndarray,
    spans: list[tuple[int, int]],
    session: int = 0,
) -> dict[str, np.ndarray]:
    """Decode behaviour at each bin from the spikes up to it: a model of full attention as a stream uses it.

    Arguments and result as in `decode`. A span's first bin stands at its clock in the segment (at
    0 where that is not known), and what lies before it is absent. So is every bin after the one
    that is read: no key, and no row of a class's read-out. Where nothing valid was seen yet the
    answer is the mean (z-score 0) and even odds; beyond the model's window it is NaN.
    """
    model.eval()
    parts: dict[str, list[np.ndarray]] = {s.name: [] for s in model.specs}
    for start, stop in spans:
        lead = min(max(int(clock[start]), 0), model.config.window_bins)
        n_bins = min(stop - start, model.config.window_bins - lead)
        found = _prefixes(model, counts[start : start + n_bins], valid[start : start + n_bins], lead, session)
        for spec in model.specs:
            beyond = np.full((stop - start - n_bins, *found[spec.name].shape[1:]), np.nan, np.float32)
            parts[spec.name].append(np.concatenate([found[spec.name], beyond]))
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _prefixes(model: NEDS, counts: np.ndarray, valid: np.ndarray, lead: int, session: int) -> dict[str, np.ndarray]:
    """Each bin of one span (T, U), `lead` absent bins before it, read from the window that ends there."""
    n_bins = len(counts)
    total = lead + n_bins
    shown = np.concatenate([np.zeros((lead, counts.shape[1]), np.float32), counts.astype(np.float32)])
    live = np.concatenate([np.zeros(lead, bool), valid])
    shape = {s.name: () if s.kind == "continuous" else (len(s.classes),) for s in model.specs}
    out = {s.name: np.empty((n_bins, *shape[s.name]), np.float32) for s in model.specs}
    at_once = max(1, TOKENS_AT_ONCE // max(1, total * (1 + len(model.specs))))
    for begin in range(0, n_bins, at_once):
        newest = lead + np.arange(begin, min(begin + at_once, n_bins))
        seen = live & (np.arange(total) <= newest[:, None])
        batch = unseen_behaviour(model, torch.from_numpy(shown).expand(len(newest), -1, -1), seen, session)
        for name, values in behaviour_at(model, batch, newest).items():
            out[name][newest - lead] = values
    return out


def unseen_behaviour(model: NEDS, counts: torch.Tensor, valid: np.ndarray, session: int) -> Batch:
    """Windows of spikes alone: counts (B, T, U) float32, valid (B, T); no behaviour, no clock."""
    shape = valid.shape
    return Batch(
        counts,
        torch.from_numpy(valid),
        {s.name: torch.full(shape, torch.nan) for s in model.specs if s.kind == "continuous"},
        {s.name: torch.full(shape, -1) for s in model.specs if s.kind == "class"},
        torch.full(shape, -1),
        session,
    )


def behaviour_at(model: NEDS, batch: Batch, bins: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> z-scores (B,) or probabilities (B, C) at one bin of each window, from the spikes of its valid bins."""
    device = model.mask_token.device
    found = read_at(model, onto(batch, device), torch.from_numpy(bins).to(device))
    return {name: values.cpu().numpy() for name, values in found.items()}


def read_at(model: NEDS, batch: Batch, at: torch.Tensor, attend: Attention | None = None) -> dict[str, torch.Tensor]:
    """`behaviour_at` with everything on the model's device; at (B,) int64. attend: None = the model's own."""
    hidden = torch.ones((*batch.valid.shape, 1 + len(model.specs)), dtype=torch.bool, device=at.device)
    hidden[..., 0] = ~batch.valid
    out = model(batch, hidden, attend=attend)
    rows = torch.arange(len(at), device=at.device)
    blind = ~batch.valid.any(1)
    found = {}
    for spec in model.specs:
        y = out[spec.name][rows, at]
        y = y.masked_fill(blind, 0.0) if spec.kind == "continuous" else y.masked_fill(blind[:, None], 0.0).softmax(-1)
        found[spec.name] = y
    return found


def _batch(
    model: NEDS,
    counts: np.ndarray,
    valid: np.ndarray,
    clock: np.ndarray,
    spans: list[tuple[int, int]],
    session: int,
) -> Batch:
    """Spans padded at the end with invalid bins; behaviour undefined everywhere."""
    shape = (len(spans), max(stop - start for start, stop in spans))
    padded = np.zeros((*shape, counts.shape[1]), np.float32)
    live = np.zeros(shape, bool)
    phase = np.full(shape, -1, np.int64)
    for b, (start, stop) in enumerate(spans):
        padded[b, : stop - start] = counts[start:stop]
        live[b, : stop - start] = valid[start:stop]
        phase[b, : stop - start] = clock[start:stop]
    return replace(unseen_behaviour(model, torch.from_numpy(padded), live, session), clock=torch.from_numpy(phase))


def _show(model: NEDS, batch: Batch, hidden: torch.Tensor, observed: np.ndarray, spans: list[tuple[int, int]]) -> None:
    """Observed behaviour (T, M) into a batch of spans, and out of hidden (B, T, 1 + M)."""
    for m, spec in enumerate(model.specs):
        for b, (start, stop) in enumerate(spans):
            values, rows = torch.from_numpy(observed[start:stop, m]), slice(stop - start)
            known = values.isnan().logical_not().to(hidden.device) & batch.valid[b, rows]
            if spec.kind == "continuous":
                batch.traces[spec.name][b, rows] = values.to(hidden.device)
            else:
                batch.classes[spec.name][b, rows] = values.nan_to_num(-1.0).long().to(hidden.device)
            hidden[b, rows, 1 + m] = ~known
