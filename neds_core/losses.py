"""The training loss: each modality's mean over the tokens it was asked for, then a plain sum."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from neds_core.model import Batch
from neds_core.session import BehaviourSpec


def poisson(log_rate: Tensor, counts: Tensor) -> Tensor:
    """Poisson negative log-likelihood per element, without the count's own constant.

    Zhang et al. 2025, eq. 3: rate - count * log(rate), rates in spikes a bin.
    """
    return log_rate.exp() - counts * log_rate


def loss(
    out: dict[str, Tensor], batch: Batch, asked: Tensor, specs: tuple[BehaviourSpec, ...], kept_units: Tensor
) -> dict[str, Tensor]:
    """Mean loss of every modality that was asked for at least once.

    out as `NEDS.forward` returns it; asked (B, T, M) bool; kept_units (U,) bool. Keys:
    "spikes" and behaviour names; Poisson for spikes, squared error of z-scores for continuous
    behaviour, cross-entropy for classes.
    """
    terms: dict[str, Tensor] = {}
    if asked[..., 0].any():
        rows = asked[..., 0]
        terms["spikes"] = poisson(out["spikes"][rows], batch.counts[rows])[:, kept_units].mean()
    for m, spec in enumerate(specs, start=1):
        rows = asked[..., m]
        if not rows.any():
            continue
        if spec.kind == "continuous":
            terms[spec.name] = functional.mse_loss(out[spec.name][rows], batch.traces[spec.name][rows])
        else:
            terms[spec.name] = functional.cross_entropy(out[spec.name][rows], batch.classes[spec.name][rows])
    return terms


def total(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Sum over modalities (Zhang et al. 2025, eq. 4: all weights 1)."""
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
