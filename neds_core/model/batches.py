"""A session as a model reads it: batches of spans, with what is known in them, on the model's device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.model.model import Batch


class Pause(NamedTuple):
    """What a window holds before its span: the bins [start, stop) of another segment, then a gap of n_gap bins.

    live: the bins of the gap are valid and hold no spike; otherwise they are invalid, as bins without live data are.
    """

    start: int
    stop: int
    n_gap: int
    live: bool

    @property
    def n_tail(self) -> int:
        """Bins of the other segment."""
        return self.stop - self.start

    @property
    def n_bins(self) -> int:
        """Bins before the span."""
        return self.n_tail + self.n_gap


NO_PAUSE = Pause(0, 0, 0, False)


class Cutter:
    """Cuts batches out of the segments of one session part; reads no more than the bins it cuts."""

    def __init__(self, session: Session, specs: tuple[BehaviourSpec, ...], scalers: Scalers) -> None:
        self.session, self.specs, self.scalers = session, specs, scalers

    def clock(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: bins since the start of the segment that holds the span."""
        segment = self.session.segment_of(np.array([start]))[0]
        return np.arange(start, stop) - self.session.segments[segment, 0]

    def cut(
        self, spans: list[tuple[int, int]], clocked: bool, pauses: list[Pause] | None = None
    ) -> tuple[Batch, np.ndarray]:
        """Batch of spans (start, stop) in bins, and defined (B, T, M) bool: what could be shown or asked.

        Spans are padded at the end with bins that are not valid. clocked: whether the batch holds the time in the
        segment. pauses: what lies before each span (not with clocked); of a gap, valid spike bins alone are defined.
        """
        pauses = pauses or [NO_PAUSE] * len(spans)
        n_bins = max(pause.n_bins + stop - start for pause, (start, stop) in zip(pauses, spans, strict=True))
        defined = np.zeros((len(spans), n_bins, 1 + len(self.specs)), bool)

        def gather(values: np.ndarray, fill: float, dtype: type) -> np.ndarray:
            out = np.full((len(spans), n_bins, *values.shape[1:]), fill, dtype)
            for b, (pause, (start, stop)) in enumerate(zip(pauses, spans, strict=True)):
                out[b, : pause.n_tail] = values[pause.start : pause.stop]
                out[b, pause.n_bins : pause.n_bins + stop - start] = values[start:stop]
            return out

        valid = gather(self.session.valid, 0, np.bool_)
        for b, pause in enumerate(pauses):
            valid[b, pause.n_tail : pause.n_bins] = pause.live
        defined[..., 0] = valid
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

    def constant(self, batch: Batch, inside: np.ndarray | None = None) -> np.ndarray:
        """(B, M) bool: classes with a single label in the window of a batch; column 0, the spikes, is False.

        inside (B, T) bool: the bins that count; None = all.
        """
        out = np.zeros((len(batch.valid), 1 + len(self.specs)), bool)
        for m, spec in enumerate(self.specs, start=1):
            if spec.kind == "class":
                label = batch.classes[spec.name].numpy()
                known = label >= 0 if inside is None else (label >= 0) & inside
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
