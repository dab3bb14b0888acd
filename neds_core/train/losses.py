"""The training loss: each modality's mean over the tokens it was asked for, then a plain sum."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from neds_core.data.session import BehaviourSpec
from neds_core.model.model import Batch


def poisson(log_rate: Tensor, counts: Tensor) -> Tensor:
    """Poisson negative log-likelihood per element, without the count's own constant.

    Zhang et al. 2025, eq. 3: rate - count * log(rate), rates in spikes a bin.
    """
    return log_rate.exp() - counts * log_rate


def targets(asked: Tensor, specs: tuple[BehaviourSpec, ...], kept_units: Tensor) -> dict[str, int]:
    """Number of targets of every modality, 0 where none was asked: bins x kept units for spikes, else bins."""
    n = asked.flatten(0, -2).sum(0).tolist()
    return {"spikes": n[0] * int(kept_units.sum()), **{s.name: n[m] for m, s in enumerate(specs, start=1)}}


def sums(
    out: dict[str, Tensor], batch: Batch, asked: Tensor, specs: tuple[BehaviourSpec, ...], kept_units: Tensor
) -> dict[str, Tensor]:
    """Loss of every modality that was asked for at least once, summed over its `targets`.

    out as `NEDS.forward` returns it; asked (B, T, M) bool; kept_units (U,) bool. Keys:
    "spikes" and behaviour names; Poisson for spikes, squared error of z-scores for continuous
    behaviour, cross-entropy for classes. Sums of many batches, divided by the number of all
    their targets, are the loss of the batches put together.
    """
    terms: dict[str, Tensor] = {}
    if asked[..., 0].any():
        rows = asked[..., 0]
        terms["spikes"] = poisson(out["spikes"][rows], batch.counts[rows])[:, kept_units].sum()
    for m, spec in enumerate(specs, start=1):
        rows = asked[..., m]
        if not rows.any():
            continue
        score = functional.mse_loss if spec.kind == "continuous" else functional.cross_entropy
        target = batch.traces[spec.name] if spec.kind == "continuous" else batch.classes[spec.name]
        terms[spec.name] = score(out[spec.name][rows], target[rows], reduction="sum")
    return terms


def total(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Sum over modalities (Zhang et al. 2025, eq. 4: all weights 1)."""
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
