"""The window engine on CPU: NEDS of full attention, the whole window recomputed for every bin."""

from __future__ import annotations

import numpy as np
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.model import offline
from runtime.core.values import Token
from runtime.engines.layout import layout


class WindowEngine:
    """Spikes of the segment so far in, behaviour at the newest bin out; later bins are absent.

    The model knows a bin by its place in the segment, so a window never slides:

    | bin                               | place                                               |
    | --------------------------------- | --------------------------------------------------- |
    | the first after a cold start      | its clock, or 0 where that is unknown               |
    | each later one                    | one place on                                        |
    | past the model's last place       | none: values are NaN, which the pipeline withholds  |

    Before the first bin with live data, values are the mean and even odds.
    """

    name = "window-torch-cpu"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        self.model = checkpoint.model
        self.window_bins = n_bins = self.model.config.window_bins
        self.counts = torch.zeros(1, n_bins, len(checkpoint.units))
        self.rows = self.counts[0].numpy()  # (window_bins, U), the same memory
        self.valid = np.zeros((1, n_bins), np.bool_)
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.place = 0
        self.cold = True

    def reset(self, position: int = 0) -> None:
        """Start cold. position: ignored, because places count from the segment's start."""
        self.valid[:] = False
        self.rows[:] = 0.0
        self.place, self.cold = 0, True

    def skip(self, n_bins: int) -> None:
        self.place += n_bins

    def step(self, token: Token) -> np.ndarray:
        if self.cold and token.clock >= 0:
            self.place = token.clock
        self.cold = False
        at, self.place = self.place, self.place + 1
        if at >= self.window_bins:
            self.values.fill(np.nan)
            return self.values
        self._decode(at, token)
        self.values *= self.layout.scale
        self.values += self.layout.offset
        return self.values

    def _decode(self, at: int, token: Token) -> None:
        """The bin at a place of the window: takes it in, and writes z-scores and probabilities into `values`."""
        if token.valid:
            self.rows[at], self.valid[0, at] = token.counts, True
        seen = slice(0, at + 1)
        with torch.inference_mode():
            batch = offline.unseen_behaviour(self.model, self.counts[:, seen], self.valid[:, seen], session=0)
            found = offline.behaviour_at(self.model, batch, np.array([at]))
        for name, column in self.layout.columns.items():
            self.values[column] = found[name][0]

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """Every bin of a cold start at once: a padded window for each bin, where the step extends one window."""
        found = offline.decode_prefixes(self.model, counts, valid, clock, offline.spans(reset))
        columns = [v[:, None] if v.ndim == 1 else v for v in found.values()]
        return np.concatenate(columns, axis=1) * self.layout.scale + self.layout.offset
