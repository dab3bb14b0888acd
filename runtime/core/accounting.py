"""What a run counts of its own timeliness: latencies, misses and their causes. It is fed numbers and asks nobody."""

from __future__ import annotations

from runtime.core.latency import Latency
from runtime.core.misses import CAUSES, Passage, cause
from runtime.core.pipeline import Pipeline
from runtime.core.values import NO_TIME, Decoded

MINUTE_NS = 60_000_000_000
LATENCIES = ("edge_to_pub_ms", "edge_to_pub_decoded_ms", "wait_ms", "infer_ms", "send_ms", "age_ms")


class Accounting:
    """One sample for every scheduled token; a superseded one is charged until the send that replaced it."""

    def __init__(self, bin_ns: int, budget_ns: int) -> None:
        self.bin_ns, self.budget_ns = bin_ns, budget_ns
        self.latency = {name: Latency(round(MINUTE_NS / bin_ns)) for name in LATENCIES}
        self.misses = dict.fromkeys(CAUSES, 0)
        self.cause = ""  # why a token of the newest pass was late, '' = none was
        self._missed_at_ns: list[int] = []

    def stepped(self, decoded: Decoded) -> None:
        """One closed token, published or not."""
        if decoded.infer_ns:
            self.latency["infer_ms"].record(decoded.infer_ns)

    def published(self, passage: Passage, decoded: Decoded) -> bool:
        """The newest token of a pass has left. Returns whether it left within the budget, with values."""
        p, has_values = passage, decoded.values is not None
        self.latency["wait_ms"].record(p.woke_ns - p.edge_ns)
        self.latency["send_ms"].record(p.sent_ns - p.before_ns)
        if has_values and decoded.token.newest_ns != NO_TIME:
            self.latency["age_ms"].record(p.sent_ns - decoded.token.newest_ns)
        late = 0
        for i in range(p.closed):
            took_ns = p.sent_ns - (p.edge_ns - i * self.bin_ns)
            late += took_ns > self.budget_ns
            self.latency["edge_to_pub_ms"].record(took_ns)
            if has_values:
                self.latency["edge_to_pub_decoded_ms"].record(took_ns)
        self.cause = cause(p, self.budget_ns) if late else ""
        if late:
            self.misses[self.cause] += late
            self._missed_at_ns += [p.sent_ns] * late
        return has_values and p.sent_ns - p.edge_ns <= self.budget_ns

    def misses_last_minute(self, now_ns: int) -> int:
        """Tokens of the last minute that left after the budget."""
        self._missed_at_ns = [t for t in self._missed_at_ns if now_ns - t < MINUTE_NS]
        return len(self._missed_at_ns)


def counters(pipeline: Pipeline, accounting: Accounting, upstream: dict[str, int]) -> dict[str, int]:
    """Every count of a run by name, for status and summary. upstream: what the source counts."""
    return {
        **{f"spikes_{k}": v for k, v in pipeline.binner.counters().items()},
        **{f"tokens_{k}": v for k, v in pipeline.tokens.items()},
        **upstream,
        "bad_markers": upstream["bad_markers"] + pipeline.astray_markers,
        "late_markers": pipeline.late_markers,
        "bad_values": pipeline.bad_values,
        "segments_unended": pipeline.unended,
        "segments_held": pipeline.start.held,
        "deadline_misses": sum(accounting.misses.values()),
    }
