"""What a training of a recording begins with, where it should differ from the defaults: as in the shipped decoders.

They are choices of the training parts of six recordings (`examples/*/train.toml`), no rules; what wins on the
validation part of yours is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from neds_core.data.session import Session

FEW_UNITS, MANY_UNITS = 50, 200
RARELY_HZ = 1.0  # median rate of units below which filters reach back further
QUICK_MS, SLOW_MS = (100.0, 300.0, 1000.0), (200.0, 600.0, 2000.0)


def advised(session: Session) -> dict[str, Any]:
    """Dotted keys of train.toml -> values."""
    bins = session.bins()
    rates_hz = session.counts[bins].mean(0) / (session.bin_ns * 1e-9)
    found: dict[str, Any] = {"masks.decoding": 3.0, "linear.penalties": (1.0, 10.0, 100.0, 1e3, 3e3, 1e4, 3e4)}
    if len(session.units) < FEW_UNITS:
        found |= {"model.width": 32, "fit.learning_rate": 8e-3, "ensemble.seeds": (0, 1, 2)}  # each is quick
    if session.continuous:
        rarely = float(np.median(rates_hz)) < RARELY_HZ
        return found | {
            "model.filter_taus_ms": SLOW_MS if rarely else QUICK_MS,
            "model.dropout": 0.2,
            "model.embed_dropout": 0.1,
            "model.unit_dropout": 0.2,
            "fit.batch": 16,
            "fit.steps": 300,
            "linear.filter_taus_ms": ((40.0, 120.0, 300.0), QUICK_MS, SLOW_MS),
        }
    longest = int(np.clip((session.segments[:, 1] - session.segments[:, 0]).max(initial=0), 20, 100))
    found |= {"model.band": longest, "fit.window_bins": longest}
    return found | ({"model.unit_dropout": 0.5} if len(session.units) >= MANY_UNITS else {})
