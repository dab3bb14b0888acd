"""Training windows: random cold starts for a phase-free model, segment starts for one that knows the time in them.

Every draw is keyed by (seed, step, sample): any process can draw any sample of the global batch,
so the number of processes, the size of a forward pass and a restart change nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from neds_core.config import FitConfig, MaskConfig, ModelConfig, PretrainConfig, TrainConfig
from neds_core.data.filters import States
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.model.batches import NO_PAUSE, Cutter, Pause
from neds_core.model.model import Batch
from neds_core.train import masks

MIN_BINS = 8  # a shorter window teaches little but its own cold start
SAMPLE, SESSION, DROPOUT = range(3)  # what a key is for: the last word of it


def keyed(seed: int, step: int, attempt: int, index: int, purpose: int) -> np.random.Generator:
    """The generator of one draw. The number of words is fixed: numpy pads a short key with zeros."""
    return np.random.default_rng([seed, step, attempt, index, purpose])


def prefix(rng: np.random.Generator, span: tuple[int, int], share: float) -> tuple[int, int]:
    """With probability `share`, the span up to a random bin: all that a stream knows at that bin."""
    start, stop = span
    return (start, int(rng.integers(start + 1, stop + 1))) if rng.random() < share else span


class Windows(Cutter):
    """A `Cutter` that also draws where to cut: the training windows of one session part."""

    def __init__(self, session: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers) -> None:
        super().__init__(session, specs, scalers)
        self.starts, self.stops = session.segments[:, 0], session.segments[:, 1]
        self.ends = np.cumsum(self.stops - self.starts)
        self.states = States(session, scalers.filters.keep) if scalers.filters is not None else None

    @property
    def n_bins(self) -> int:
        """Bins inside the segments."""
        return int(self.ends[-1])

    def span(self, rng: np.random.Generator, window_bins: int, clocked: bool) -> tuple[int, int]:
        """A segment in proportion to its length, then a random cold start in it.

        A clocked model and one with full attention keep the starts of the segments; a phase-free
        one must not learn to count bins, so it starts anywhere.
        """
        s = int(np.searchsorted(self.ends, rng.integers(self.n_bins), side="right"))
        start, stop = int(self.starts[s]), int(self.stops[s])
        begin = start if clocked else self._cold_start(rng, s, window_bins)
        return begin, min(begin + window_bins, stop)

    def _cold_start(self, rng: np.random.Generator, s: int, window_bins: int) -> int:
        """A bin of segment `s` that leaves enough bins after it."""
        start, stop = int(self.starts[s]), int(self.stops[s])
        return start + int(rng.integers(0, max(0, stop - start - min(MIN_BINS, window_bins)) + 1))

    def pause(self, rng: np.random.Generator, span: tuple[int, int], window_bins: int, mask: MaskConfig) -> Pause:
        """With probability `mask.pause`, what lies before a span: the end of another segment, and a gap.

        The other segment is drawn in proportion to its length, and seen from a random cold start to its end. The
        span keeps its random start: from the end of a gap, too, a phase-free model must not learn to count bins.
        """
        if rng.random() >= mask.pause:
            return NO_PAUSE
        own = int(np.searchsorted(self.starts, span[0], side="right")) - 1
        length = int(self.stops[own] - self.starts[own])
        at = int(rng.integers(self.n_bins - length))
        s = int(np.searchsorted(self.ends, at + length * (at >= self.ends[own] - length), side="right"))
        stop = int(self.stops[s])
        start = max(self._cold_start(rng, s, window_bins), stop - window_bins)
        shortest, longest = mask.pause_bins
        return Pause(start, stop, int(rng.integers(shortest, longest + 1)), live=rng.random() < 0.5)

    def longest(self, model: ModelConfig) -> int:
        """Bins of the longest segment: full attention sees segments whole, so that every position is trained."""
        found = int((self.stops - self.starts).max())
        if found > model.window_bins:
            raise DataError(
                f"recording {self.session.name!r} has a segment of {found} bins, longer than the window of full "
                f"attention ({model.window_bins}); raise model.window_bins, or set attention = 'causal'"
            )
        return found

    def sample(
        self, rngs: Sequence[np.random.Generator], fit: FitConfig, model: ModelConfig, mask: MaskConfig
    ) -> tuple[Batch, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One sample a generator: batch, hidden (B, T, M), asked (B, T, M), kept units (B, 1, U)."""
        window_bins = self.longest(model) if model.attention == "full" else fit.window_bins
        spans = [self.span(rng, window_bins, model.aligned) for rng in rngs]
        if mask.prefix and model.attention == "full":
            spans = [prefix(rng, span, mask.prefix) for rng, span in zip(rngs, spans, strict=True)]
        pauses = [NO_PAUSE] * len(spans)
        if mask.pause:
            pauses = [self.pause(rng, span, window_bins, mask) for rng, span in zip(rngs, spans, strict=True)]
        batch, defined = self.cut(spans, model.clock_bins > 0, pauses)
        if self.states is not None:  # a window starts cold, but for its filters, which start with the segment
            first = [pause.start if pause.n_tail else start for pause, (start, _) in zip(pauses, spans, strict=True)]
            batch = replace(batch, filters=torch.stack([self.states.before(t) for t in first]))
        hidden, asked = np.ones_like(defined), np.zeros_like(defined)
        tail = np.arange(defined.shape[1]) < [[pause.n_bins] for pause in pauses]
        constant = np.stack([self.constant(batch, tail), self.constant(batch, ~tail)], axis=1)
        for b, (pause, (start, stop)) in enumerate(zip(pauses, spans, strict=True)):
            # without the padding: what a sample draws may not depend on its neighbours
            rows, gap = slice(pause.n_bins + stop - start), slice(pause.n_tail, pause.n_bins)
            parts = (slice(pause.n_tail), slice(pause.n_bins, None))
            hidden[b, rows], asked[b, rows] = masks.draw(rngs[b], mask, defined[b, rows], constant[b], parts)
            asked[b, gap] = False
        keep = np.stack([rng.random((1, self.session.counts.shape[1])) for rng in rngs]) >= model.unit_dropout
        keep = torch.from_numpy(keep.astype(np.float32))
        return batch, torch.from_numpy(hidden), torch.from_numpy(asked), keep


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of one session that go through the model together (see `Windows.sample`)."""

    session: int
    batch: Batch
    hidden: torch.Tensor
    asked: torch.Tensor
    keep: torch.Tensor


class Sampler:
    """Draws the global batch of a step: `sessions_per_step` groups of samples, each from one session.

    Sessions are drawn in proportion to their training bins, with replacement. A process of
    many takes a contiguous slice of the global batch, cut where the session changes and after
    every `micro_batch` samples.
    """

    def __init__(self, windows: Sequence[Windows], config: TrainConfig | PretrainConfig, seed: int) -> None:
        self.windows, self.config, self.seed = windows, config, seed
        n_bins = np.array([w.n_bins for w in windows], float)
        self.share = n_bins / n_bins.sum()

    def sessions(self, step: int, attempt: int = 0) -> np.ndarray:
        """(batch,) int64, non-decreasing: the session of each sample of the global batch."""
        fit = self.config.fit
        rng = keyed(self.seed, step, attempt, 0, SESSION)
        groups = np.sort(rng.choice(len(self.share), size=fit.sessions_per_step, p=self.share))
        return groups[np.arange(fit.batch) * fit.sessions_per_step // fit.batch]

    def pieces(self, step: int, attempt: int = 0, rank: int = 0, size: int = 1) -> list[Piece]:
        """This process's slice of the global batch; `attempt` counts batches that asked nothing."""
        config = self.config
        session = self.sessions(step, attempt)
        mine = np.array_split(np.arange(len(session)), size)[rank]
        pieces = []
        for s in np.unique(session[mine]):
            samples = mine[session[mine] == s]
            most = config.fit.micro_batch or len(samples)
            for begin in range(0, len(samples), most):
                rngs = [keyed(self.seed, step, attempt, int(i), SAMPLE) for i in samples[begin : begin + most]]
                batch, *rest = self.windows[s].sample(rngs, config.fit, config.model, config.masks)
                pieces.append(Piece(int(s), replace(batch, session=int(s)), *rest))
        return pieces
