"""What the loop publishes, as wire messages: the sink of a live run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from neds_core.data.session import BehaviourSpec
from runtime.client import boot_id
from runtime.config import RigConfig
from runtime.core.accounting import Accounting, counters
from runtime.core.pipeline import Pipeline
from runtime.core.run_log import told_as
from runtime.core.state import State
from runtime.core.values import NO_TIME, Decoded
from runtime.core.words import quoted
from runtime.live.rims import Source
from runtime.wire import SCHEMA, Decode, Event, Flag, Output, OutputInfo, Status

TELL_NS = 60_000_000_000
SILENT = (State.STALLED, State.LOST)  # one silence, which becomes longer
WRONG = (*SILENT, State.FAULT, State.DEGRADED)  # states whose reason is told at once
AT_ONCE_NS = 200_000_000  # but no more often than this
STALE, UNGATED, SWAP, FALLBACK = int(Flag.STALE), int(Flag.UNGATED), int(Flag.SWAP), int(Flag.FALLBACK)


class Publisher(Protocol):
    """Where messages leave (`runtime.io.publish.Publisher`)."""

    def send(self, message: Decode) -> None:
        """One estimate."""
        ...

    def tell(self, kind: str, message: Status | Event | dict[str, object]) -> None:
        """Anything else."""
        ...


def _info(spec: BehaviourSpec) -> OutputInfo:
    """What a status says of an output."""
    words = {name: getattr(spec, name) for name in OutputInfo.__struct_fields__ if name != "classes"}
    return OutputInfo(**words, classes=list(spec.classes))


class Messages:
    """Builds the messages of one run and hands them to its publisher."""

    def __init__(
        self, config: RigConfig, pipeline: Pipeline, source: Source, publisher: Publisher, kind: str,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        """kind: live | replay | synthetic. say: takes a line for people, and never blocks."""
        self.say = say
        self.config, self.pipeline, self.source, self.publisher, self.kind = config, pipeline, source, publisher, kind
        self.budget_ns = int(config.output.budget_ms * 1e6)
        self.boot = boot_id()
        self.seq = 0
        self.seen = np.zeros(pipeline.decoder.n_units, bool)
        self._told_ns: dict[str, int] = {}
        self._state, self._since_ns, self._at_once_ns = State.INIT, 0, -AT_ONCE_NS
        self._accounting: Accounting | None = None  # of the newest status
        self._decoder = pipeline.decoder  # of the message before
        self.recent_spikes: deque[int] = deque(maxlen=round(1e9 / pipeline.decoder.bin_ns))  # of the last second

    def note(self, decoded: Decoded) -> None:
        """One closed token: what the next status says of units and rate."""
        self.seen |= decoded.token.counts > 0
        self.recent_spikes.append(int(decoded.token.counts.sum()))
        self._follow(decoded.state, decoded.token.t_end_ns)

    def _follow(self, state: State, now_ns: int) -> None:
        if state is not self._state:
            if not (state in SILENT and self._state in SILENT):
                self._since_ns = now_ns
            self._state = state

    def _why(self) -> tuple[str, int]:
        """Why the state is not as it should be, and since when it holds."""
        pipeline, newest_ns = self.pipeline, self.pipeline.binner.watermark_ns
        if self._state not in SILENT:
            return pipeline.reason, self._since_ns
        silence = f"stream {quoted(self.config.input.spikes)} sent nothing that can be used; values are withheld"
        return pipeline.withheld or silence, self._since_ns if newest_ns <= 0 else min(self._since_ns, newest_ns)

    def estimate(self, decoded: Decoded, now_ns: int, flags: int) -> None:
        """Publish one estimate."""
        self.publisher.send(self.decode(decoded, now_ns, flags))

    def measured(self, now_ns: int, values: dict[str, float | None]) -> None:
        """Publish the newest measured behaviour."""
        self.publisher.tell("measured", {"t_ns": now_ns, "values": values})

    def event(self, now_ns: int, name: str, detail: str) -> None:
        """Publish something that happened; people are told of each kind once in `TELL_NS`."""
        told = told_as(name, detail)
        if told and now_ns - self._told_ns.get(told, -TELL_NS) >= TELL_NS:
            self._told_ns[told] = now_ns
            self.say(detail)
        self.publisher.tell("event", Event(SCHEMA, name, now_ns, detail))
        if name == "state" and self._state in WRONG and now_ns - self._at_once_ns >= AT_ONCE_NS:
            self._at_once_ns = now_ns
            if self._accounting is not None:
                self.status(now_ns, self._state, self._accounting)

    def status(self, now_ns: int, state: State, accounting: Accounting) -> None:
        """Publish counters and words."""
        self._accounting = accounting
        self.publisher.tell("status", self.status_message(now_ns, state, accounting))

    def outputs(self, values: np.ndarray | None, sd: np.ndarray | None = None) -> dict[str, Output]:
        """Outputs by name from the flat values (V,) and their sd (V,); all null where there are none."""
        layout = self.pipeline.decoder.engine.layout
        found = {}
        for spec in layout.specs:
            if values is None:
                found[spec.name] = Output(lead_ms=spec.lead_ms or None)
            elif spec.kind == "continuous":
                at = layout.columns[spec.name].start
                known = None if sd is None or not np.isfinite(sd[at]) else float(sd[at])
                found[spec.name] = Output(value=float(values[at]), sd=known, lead_ms=spec.lead_ms or None)
            else:
                found[spec.name] = Output(probs=[float(p) for p in values[layout.columns[spec.name]]])
        return found

    def decode(self, decoded: Decoded, now_ns: int, extra_flags: int) -> Decode:
        """The message of one estimate, sent now."""
        self.seq += 1
        token, decoder = decoded.token, self.pipeline.decoder
        valid_until = token.t_end_ns + int(self.config.output.valid_ms * 1e6)
        flags = decoded.flags | extra_flags | self._of_decoder()
        if now_ns - token.t_end_ns > self.budget_ns:
            flags |= STALE
        return Decode(
            schema=SCHEMA, seq=self.seq, token=token.index, t_end_ns=token.t_end_ns, t_pub_ns=now_ns,
            boot_id=self.boot, source=self.kind, inputs=["spikes"],
            decoder=decoder.name, engine=decoder.engine.name, outputs=self.outputs(decoded.values, decoded.sd),
            age_ms=None if token.newest_ns == NO_TIME else (now_ns - token.newest_ns) * 1e-6,
            infer_ms=decoded.infer_ns * 1e-6, edge_to_pub_ms=(now_ns - token.t_end_ns) * 1e-6,
            state=decoded.state, flags=flags,
            valid_until_ns=valid_until, valid_for_ms=max(0.0, (valid_until - now_ns) * 1e-6),
            model_sha=decoder.model_sha, unit_map_sha=decoder.unit_map_sha,
        )  # fmt: skip

    def _of_decoder(self) -> int:
        """What is to be known of the decoder of the message that is being made."""
        decoder, turns = self.pipeline.decoder, self.pipeline.exchanges
        flags = 0 if decoder.gated else UNGATED
        if decoder is not self._decoder:
            self._decoder, flags = decoder, flags | SWAP
        return flags | FALLBACK if turns and turns[-1].successor.why == "fallback" else flags

    def status_message(self, now_ns: int, state: State, accounting: Accounting) -> Status:
        """The message of one status, sent now."""
        decoder = self.pipeline.decoder
        self._follow(state, now_ns)
        reason, since_ns = self._why()
        return Status(
            schema=SCHEMA, rig=self.config.rig, boot_id=self.boot, source=self.kind, state=state, t_pub_ns=now_ns,
            decoder=decoder.name, engine=decoder.engine.name, model=decoder.model,
            model_sha=decoder.model_sha, model_created=decoder.model_created, unit_map_sha=decoder.unit_map_sha,
            outputs=[_info(spec) for spec in decoder.engine.layout.specs],
            flag_names={f.name: int(f) for f in Flag if f.name},
            counters=counters(self.pipeline, accounting, self.source.counters()),
            edge_to_pub_ms=accounting.latency["edge_to_pub_ms"].recent_ms(),
            misses_last_minute=accounting.misses_last_minute(now_ns),
            units_seen=int(self.seen.sum()), units_expected=decoder.n_units,
            population_rate_hz=float(np.mean(self.recent_spikes or [0]) * 1e9 / decoder.bin_ns),
            segment=self.pipeline.segment if self.pipeline.segment >= 0 else None,
            last_marker=self.source.last_marker, measured=self.source.measured(now_ns),
            budget_ms=self.config.output.budget_ms, reason=reason, state_since_ns=since_ns,
        )  # fmt: skip
