"""A session as a model reads it: batches of spans, with what is known in them, on the model's device."""

from __future__ import annotations

import numpy as np
import torch

from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.model.model import Batch


class Cutter:
    """Cuts batches out of the segments of one session part; reads no more than the bins it cuts."""

    def __init__(self, session: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers) -> None:
        self.session, self.specs, self.scalers = session, specs, scalers

    def clock(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: bins since the start of the segment that holds the span."""
        segment = self.session.segment_of(np.array([start]))[0]
        return np.arange(start, stop) - self.session.segments[segment, 0]

    def cut(self, spans: list[tuple[int, int]], clocked: bool) -> tuple[Batch, np.ndarray]:
        """Batch of spans (start, stop) in bins, and defined (B, T, M) bool: what could be shown or asked.

        Spans are padded at the end with bins that are not valid. clocked: whether the batch holds the time in the
        segment.
        """
        n_bins = max(stop - start for start, stop in spans)
        defined = np.zeros((len(spans), n_bins, 1 + len(self.specs)), bool)

        def gather(values: np.ndarray, fill: float, dtype: type) -> np.ndarray:
            out = np.full((len(spans), n_bins, *values.shape[1:]), fill, dtype)
            for b, (start, stop) in enumerate(spans):
                out[b, : stop - start] = values[start:stop]
            return out

        valid = defined[..., 0] = gather(self.session.valid, 0, np.bool_)
        traces, classes = {}, {}
        for m, spec in enumerate(self.specs, start=1):
            values = self.session.values[spec.name]
            if spec.kind == "continuous":
                raw = gather(values, np.nan, np.float32)
                scaled = (raw - self.scalers.mean[spec.name]) / self.scalers.sd[spec.name]
                traces[spec.name] = torch.from_numpy(scaled.astype(np.float32))
                defined[..., m] = np.isfinite(raw) & valid
            else:
                labels = gather(values, -1, np.int64)
                classes[spec.name] = torch.from_numpy(labels)
                defined[..., m] = (labels >= 0) & valid
        clock = np.full((len(spans), n_bins), -1)
        if clocked:
            for b, (start, stop) in enumerate(spans):
                clock[b, : stop - start] = self.clock(start, stop)
        counts = torch.from_numpy(gather(self.session.counts, 0, np.float32))
        return Batch(counts, torch.from_numpy(valid), traces, classes, torch.from_numpy(clock)), defined

    def constant(self, batch: Batch) -> np.ndarray:
        """(B, M) bool: classes with a single label in the window of a batch; column 0, the spikes, is False."""
        out = np.zeros((len(batch.valid), 1 + len(self.specs)), bool)
        for m, spec in enumerate(self.specs, start=1):
            if spec.kind == "class":
                label = batch.classes[spec.name].numpy()
                known = label >= 0
                top = np.where(known, label, -1).max(1)
                bottom = np.where(known, label, len(spec.classes)).min(1)
                out[:, m] = top <= bottom
        return out


def onto(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    return Batch(
        batch.counts.to(device, non_blocking=True),
        batch.valid.to(device, non_blocking=True),
        {name: v.to(device, non_blocking=True) for name, v in batch.traces.items()},
        {name: v.to(device, non_blocking=True) for name, v in batch.classes.items()},
        batch.clock.to(device, non_blocking=True),
        batch.session,
        None if batch.filters is None else batch.filters.to(device, non_blocking=True),
    )
