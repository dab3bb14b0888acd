"""Offline decoding: of a causal model, the twin that every streaming engine is compared with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from neds_core.attention import Attention
from neds_core.model import NEDS, Batch
from neds_core.windows import onto

SPANS_AT_ONCE = 32


def spans(reset: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) rows between cold starts; row 0 always starts one."""
    starts = np.flatnonzero(reset)
    edges = [0, *(int(s) for s in starts if s > 0), len(reset)]
    return list(pairwise(edges))


@torch.inference_mode()
def decode(
    model: NEDS,
    counts: np.ndarray,
    valid: np.ndarray,
    clock: np.ndarray,
    spans: list[tuple[int, int]],
    attend: Attention | None = None,
    session: int = 0,
) -> dict[str, np.ndarray]:
    """Decode behaviour from spikes alone, each span from a cold start.

    counts (T, U); valid (T,) bool, False = hidden spike token, no key; clock (T,) int64 bins
    since the segment's marker (used by a clocked model only); spans: (start, stop) bins, for
    full attention whole segments. attend: None = the model's own, in plain torch; session: row in
    the model's session table.
    Returns name -> (n,) z-scores or (n, C) probabilities, rows in the order of the spans.
    """
    model.eval()
    device = model.mask_token.device
    parts: dict[str, list[np.ndarray]] = {s.name: [] for s in model.specs}
    for begin in range(0, len(spans), SPANS_AT_ONCE):
        group = spans[begin : begin + SPANS_AT_ONCE]
        batch = onto(_batch(model, counts, valid, clock, group, session), device)
        hidden = torch.ones((*batch.valid.shape, 1 + len(model.specs)), dtype=torch.bool, device=device)
        hidden[..., 0] = ~batch.valid
        out = model(batch, hidden, attend=attend)
        for spec in model.specs:
            y = out[spec.name] if spec.kind == "continuous" else out[spec.name].softmax(-1)
            parts[spec.name] += [y[b, : stop - start].cpu().numpy() for b, (start, stop) in enumerate(group)]
    return {name: np.concatenate(rows) for name, rows in parts.items()}


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
    return Batch(
        torch.from_numpy(padded),
        torch.from_numpy(live),
        {s.name: torch.full(shape, torch.nan) for s in model.specs if s.kind == "continuous"},
        {s.name: torch.full(shape, -1) for s in model.specs if s.kind == "class"},
        torch.from_numpy(phase),
        session,
    )
