"""The offline twin of every stream engine that decodes: the model's forward over a log of what was stepped."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.model import offline
from runtime.core.values import Layout
from runtime.engines.observed import Observed


class StreamDecoder:
    """A causal decoder, whatever computes its steps."""

    checkpoint: Checkpoint
    layout: Layout
    observed: Observed

    def offline(
        self,
        counts: np.ndarray,
        valid: np.ndarray,
        clock: np.ndarray,
        reset: np.ndarray,
        observed: np.ndarray | None = None,
    ) -> np.ndarray:
        """The same values (T, V) computed at once on the CPU; observed (T, M) as in its tokens."""
        seen = None
        if observed is not None:
            seen = np.empty_like(observed)
            self.observed.as_inputs(observed, seen)
        found = offline.decode(self.checkpoint.model, counts, valid, clock, offline.spans(reset), observed=seen)
        columns = [v[:, None] if v.ndim == 1 else v for v in found.values()]
        values = np.concatenate(columns, axis=1) * self.layout.scale + self.layout.offset
        if observed is not None:
            for t in np.flatnonzero(valid):
                self.observed.write_outputs(observed[t], values[t])
        return values
