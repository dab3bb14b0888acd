"""Training windows: random cold starts for a phase-free model, segment starts for one that knows the time in them."""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from neds_core import masks
from neds_core.config import FitConfig, MaskConfig, ModelConfig
from neds_core.errors import DataError
from neds_core.model import Batch
from neds_core.scalers import Scalers
from neds_core.session import BehaviourSpec, Session

MIN_BINS = 8  # a shorter window teaches little but its own cold start


class Windows:
    """Cuts batches out of the segments of one session part."""

    def __init__(self, session: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers) -> None:
        self.session, self.specs, self.scalers = session, specs, scalers
        self.clock = session.clock()
        self.counts = session.counts.astype(np.float32)
        self.traces = {
            s.name: ((session.values[s.name] - scalers.mean[s.name]) / scalers.sd[s.name]).astype(np.float32)
            for s in specs
            if s.kind == "continuous"
        }
        self.classes = {s.name: session.values[s.name] for s in specs if s.kind == "class"}

    def spans(self, rng: np.random.Generator, config: FitConfig, clocked: bool) -> list[tuple[int, int]]:
        """Random spans: a segment in proportion to its length, then a random cold start in it.

        A clocked model and one with full attention keep the starts of the segments; a phase-free
        one must not learn to count bins, so it starts anywhere.
        """
        start, stop = self.session.segments[:, 0], self.session.segments[:, 1]
        length = stop - start
        spans = []
        for s in rng.choice(len(length), size=config.batch, p=length / length.sum()):
            last_start = max(0, int(length[s]) - min(MIN_BINS, config.window_bins))
            offset = 0 if clocked else int(rng.integers(0, last_start + 1))
            begin = int(start[s]) + offset
            spans.append((begin, min(begin + config.window_bins, int(stop[s]))))
        return spans

    def cut(self, spans: list[tuple[int, int]], clocked: bool) -> tuple[Batch, np.ndarray]:
        """Batch of spans, padded at the end, and defined (B, T, M): what could be shown or asked."""
        n_bins = max(stop - start for start, stop in spans)
        defined = np.zeros((len(spans), n_bins, 1 + len(self.specs)), bool)

        def gather(values: np.ndarray, fill: float) -> torch.Tensor:
            out = np.full((len(spans), n_bins, *values.shape[1:]), fill, values.dtype)
            for b, (start, stop) in enumerate(spans):
                out[b, : stop - start] = values[start:stop]
            return torch.from_numpy(out)

        valid = gather(self.session.valid, 0)
        traces = {name: gather(v, np.nan) for name, v in self.traces.items()}
        classes = {name: gather(v, -1) for name, v in self.classes.items()}
        clock = gather(self.clock, -1) if clocked else torch.full((len(spans), n_bins), -1)
        defined[..., 0] = valid.numpy()
        for m, spec in enumerate(self.specs, start=1):
            known = classes[spec.name] >= 0 if spec.kind == "class" else traces[spec.name].isfinite()
            defined[..., m] = (known & valid).numpy()
        return Batch(gather(self.counts, 0), valid, traces, classes, clock), defined

    def constant(self, batch: Batch) -> np.ndarray:
        """(B, M) bool: classes with a single label in the window's segment."""
        out = np.zeros((len(batch.valid), 1 + len(self.specs)), bool)
        for m, spec in enumerate(self.specs, start=1):
            if spec.kind == "class":
                label = batch.classes[spec.name].numpy()
                known = label >= 0
                top = np.where(known, label, -1).max(1)
                bottom = np.where(known, label, len(spec.classes)).min(1)
                out[:, m] = top <= bottom
        return out

    def sample(
        self, rng: np.random.Generator, fit: FitConfig, model: ModelConfig, mask: MaskConfig
    ) -> tuple[Batch, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One training batch: batch, hidden (B, T, M), asked (B, T, M), kept units (B, 1, U)."""
        longest = int(np.diff(self.session.segments).max())
        if model.attention == "full":  # whole segments: no bin's position stays untrained
            fit = msgspec.structs.replace(fit, window_bins=longest)
        if model.attention == "full" and longest > model.window_bins:
            raise DataError(
                f"recording {self.session.name!r} has a segment of {longest} bins, longer than the window of full "
                f"attention ({model.window_bins}); raise model.window_bins, or set attention = 'causal'"
            )
        batch, defined = self.cut(self.spans(rng, fit, model.aligned), model.clock_bins > 0)
        constant = self.constant(batch)
        drawn = [masks.draw(rng, mask, d, c) for d, c in zip(defined, constant, strict=True)]
        hidden = torch.from_numpy(np.stack([h for h, _ in drawn]))
        asked = torch.from_numpy(np.stack([a for _, a in drawn]))
        keep = rng.random((len(defined), 1, self.counts.shape[1])) >= model.unit_dropout
        return batch, hidden, asked, torch.from_numpy(keep.astype(np.float32))
