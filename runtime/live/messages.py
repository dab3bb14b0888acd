"""What the loop publishes, as wire messages."""

from __future__ import annotations

from collections import deque

import numpy as np

from neds_core.checkpoint import Checkpoint
from runtime.client import boot_id
from runtime.config import RigConfig
from runtime.core import trace
from runtime.core.engine import Engine
from runtime.core.pipeline import Pipeline
from runtime.core.trace import Latency
from runtime.core.values import Decoded, Token
from runtime.io.streams import Streams
from runtime.wire import SCHEMA, Decode, Flag, Output, OutputInfo, Status

MINUTE_NS = 60_000_000_000


class Messages:
    """Builds decode and status messages of one run."""

    def __init__(
        self,
        config: RigConfig,
        checkpoint: Checkpoint,
        engine: Engine,
        streams: Streams,
        pipeline: Pipeline,
    ) -> None:
        self.config, self.checkpoint, self.engine = config, checkpoint, engine
        self.streams, self.pipeline = streams, pipeline
        self.budget_ns = int(config.output.budget_ms * 1e6)
        self.boot = boot_id()
        self.seq = 0
        self.seen = np.zeros(len(checkpoint.units), bool)
        self.misses_at: list[int] = []
        self.recent_spikes: deque[int] = deque(maxlen=round(1e9 / checkpoint.header.bin_ns))  # of the last second

    def note(self, token: Token) -> None:
        """One closed token: what the next status says of units and rate."""
        self.seen |= token.counts > 0
        self.recent_spikes.append(int(token.counts.sum()))

    def outputs(self, values: np.ndarray | None) -> dict[str, Output]:
        """Outputs by name from the flat values (V,); all null where there are none."""
        layout = self.engine.layout
        found = {}
        for spec in layout.specs:
            if values is None:
                found[spec.name] = Output()
            elif spec.kind == "continuous":
                found[spec.name] = Output(value=float(values[layout.columns[spec.name]][0]))
            else:
                found[spec.name] = Output(probs=[float(p) for p in values[layout.columns[spec.name]]])
        return found

    def decode(self, decoded: Decoded, now: int, extra_flags: int) -> Decode:
        """The message of one estimate, sent now."""
        self.seq += 1
        newest = trace.age_ns(now, decoded.newest_ns)
        valid_until = decoded.t_end_ns + int(self.config.output.valid_ms * 1e6)
        flags = decoded.flags | extra_flags | Flag.UNGATED
        if now - decoded.t_end_ns > self.budget_ns:
            flags |= Flag.STALE
        return Decode(
            schema=SCHEMA, seq=self.seq, token=decoded.token, t_end_ns=decoded.t_end_ns, t_pub_ns=now,
            boot_id=self.boot, source=self.streams.spikes.description.source, inputs=["spikes"],
            decoder=self.config.engine.decoder, engine=self.engine.name, outputs=self.outputs(decoded.values),
            age_ms=None if newest is None else newest * 1e-6, infer_ms=decoded.infer_ns * 1e-6,
            edge_to_pub_ms=(now - decoded.t_end_ns) * 1e-6, state=decoded.state, flags=int(flags),
            valid_until_ns=valid_until, valid_for_ms=max(0.0, (valid_until - now) * 1e-6),
            model_sha=self.checkpoint.sha, unit_map_sha=self.checkpoint.header.unit_map_sha,
        )  # fmt: skip

    def counters(self, misses: dict[str, int]) -> dict[str, int]:
        """Every count of the run, for status and summary."""
        spikes, markers = self.streams.spikes, self.streams.markers
        return {
            **{f"spikes_{k}": v for k, v in self.pipeline.binner.counters().items()},
            **{f"tokens_{k}": v for k, v in self.pipeline.tokens.items()},
            "spikes_lost_upstream": spikes.lost_upstream,
            "clock_jumps": spikes.clock.jumps,
            "late_markers": self.pipeline.late_markers,
            "bad_markers": markers.bad if markers else 0,
            "bad_values": self.pipeline.bad_values,
            "deadline_misses": sum(misses.values()),
        }

    def status(self, now: int, latency: Latency, misses: dict[str, int]) -> Status:
        """Counters and words, once a second."""
        header, markers = self.checkpoint.header, self.streams.markers
        self.misses_at = [t for t in self.misses_at if now - t < MINUTE_NS]
        return Status(
                schema=SCHEMA, rig=self.config.rig, boot_id=self.boot,
                source=self.streams.spikes.description.source, state="RUNNING", t_pub_ns=now,
                decoder=self.config.engine.decoder, engine=self.engine.name, model=header.name,
                model_sha=self.checkpoint.sha, model_created=header.record.created,
                unit_map_sha=header.unit_map_sha,
                outputs=[
                    OutputInfo(s.name, s.kind, s.unit, s.sign, s.filter, s.filter_delay_ms, s.labels, list(s.classes))
                    for s in self.engine.layout.specs
                ],
                flag_names={f.name: int(f) for f in Flag if f.name}, counters=self.counters(misses),
                edge_to_pub_ms=latency.recent_ms(),
                misses_last_minute=len(self.misses_at), units_seen=int(self.seen.sum()),
                units_expected=len(self.checkpoint.units),
                population_rate_hz=float(np.mean(self.recent_spikes or [0]) * 1e9 / header.bin_ns),
                segment=self.pipeline.segment if self.pipeline.segment >= 0 else None,
                last_marker=markers.last if markers else "",
                measured=self.streams.measured(now, header.bin_ns),
                budget_ms=self.config.output.budget_ms,
            )  # fmt: skip
