"""Where read-outs start: at the ridge (logistic for classes) on what the trunk says of the fitting part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neds_core.config import LinearConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import Session
from neds_core.linear import baseline, linear
from neds_core.linear.linear import Bank
from neds_core.model import offline
from neds_core.model.directions import spans_of
from neds_core.model.model import NEDS
from neds_core.train import loop

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)


def features(model: NEDS, session: Session) -> dict[str, np.ndarray]:
    """What each read-out of a causal model is given (n, D) on the session's bins, from spikes alone."""
    seen: dict[str, list[Tensor]] = {spec.name: [] for spec in model.specs}

    def keeper(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, given: seen[name].append(given[0])

    hooks = [model.head(name).register_forward_pre_hook(keeper(name)) for name in seen]
    loop.decode(model, session)
    for hook in hooks:
        hook.remove()
    spans, found = spans_of(session), {}
    for name, groups in seen.items():
        rows = []
        for x, at in zip(groups, offline.grouped(model, spans), strict=True):
            rows += [x[b, : stop - start].numpy() for b, (start, stop) in enumerate(at)]
        found[name] = np.concatenate(rows)
    return found


@torch.no_grad()
def readouts(model: NEDS, train: Session, scale: Scalers, config: LinearConfig) -> None:
    """Set every shared read-out to the ridge on its features, the penalty chosen inside `train`."""
    said, bins, bank = features(model, train), train.bins(), Bank(lags=1)
    folds = linear.folds(train.segment_of(bins), config.folds)
    for spec in model.specs:
        x, y, head = said[spec.name], train.values[spec.name][bins], model.head(spec.name)
        if spec.kind == "continuous":
            rows = train.valid[bins] & np.isfinite(y)
            z = ((y[rows] - scale.mean[spec.name]) / scale.sd[spec.name]).astype(np.float64)
            skill = linear.ridge_search(x[rows], z[:, None], [f[rows] for f in folds], PENALTIES)[:, 0]
            found = linear.ridge_fit(bank, x[rows], z, PENALTIES[int(skill.argmax())])
            bias = np.atleast_1d(found.bias)
        else:
            rows, n = baseline.decision_bins(train, bins) & (y >= 0), len(spec.classes)
            skill = linear.logistic_search(bank, x[rows], y[rows], [f[rows] for f in folds], n, PENALTIES)
            found = linear.logistic_fit(bank, x[rows], y[rows], n, PENALTIES[int(skill.argmax())])
            bias = found.bias + np.log(scale.prior[spec.name]).astype(np.float32)
        head.weight.copy_(torch.from_numpy(found.weight.T.copy()))
        head.bias.copy_(torch.from_numpy(np.asarray(bias, np.float32)))
