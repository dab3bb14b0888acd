"""The loop's side of an exchange: it takes over what another thread has prepared, and watches it for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.core.engine import Decoder
from runtime.core.exchange import MOST_BEHIND, Successor, take_in
from runtime.core.misses import Passage
from runtime.core.pipeline import Pipeline
from runtime.core.values import Decoded

Event = tuple[str, str]  # its name, and one sentence


@dataclass(frozen=True, slots=True)
class Probation:
    """How a decoder that was swapped in is watched: over so many bins, with so many deadlines missed by its engine."""

    bins: int
    misses: int
    budget_ns: int


class Handover:
    """Between two passes of the loop: exchanges the decoder of a run without markers, and ends a probation.

    Where markers rule the pipeline itself takes over what waits in `Pipeline.successors`. Every attribute is written by
    the loop's thread alone, but for `Pipeline.successors`, which another thread fills.

    previous: the decoder before the newest, None = there is none to go back to. left: bins of probation that are left.
    wanted: why the previous one has to take over and waits to be primed, '' = it does not. behind: how often a primed
    one came too late. kept: decoders that have passed their probation. declined: what could not take over, and why.
    """

    def __init__(self, pipeline: Pipeline, probation: Probation) -> None:
        self.pipeline, self.probation = pipeline, probation
        self.previous: Decoder | None = None
        self.left = self.missed = self.behind = self.kept = 0
        self.wanted = ""
        self.declined: list[tuple[Successor, str]] = []
        self._decoder, self._seen = pipeline.decoder, 0

    def after(self, closed: list[Decoded], passage: Passage | None) -> list[Event]:
        """What happened by the end of a pass; closed, passage: its tokens and times, once they are published."""
        pipeline, found = self.pipeline, []
        watched = self.left  # before this pass
        if len(pipeline.exchanges) > self._seen:
            found.append(self._begun())
        if self.left and closed:
            found += self._watch(closed, passage if watched else None)
        if pipeline.successors and not pipeline.rules.markers and self._taken_over():
            found.append(self._begun())
        if pipeline.declined is not None:
            found.append(self._decline(pipeline.declined))
        return found

    def _decline(self, successor: Successor) -> Event:
        """Another one decodes by now than the one that it was to follow."""
        self.pipeline.declined, newest, running = None, successor.decoder, self.pipeline.decoder
        said = (
            f"{newest.model} ({newest.model_sha[:12]}) is not swapped in: {running.model} ({running.model_sha[:12]}) "
            f"decodes by now, not {successor.expect[:12]}, which the swap expects; look at what decodes, and ask again"
        )
        self.declined.append((successor, said))
        return "swap_dropped", said

    def _taken_over(self) -> bool:
        """Exchange the decoder, if the next one has taken in nearly all bins, or starts cold."""
        pipeline, turns = self.pipeline, len(self.pipeline.exchanges)
        try:
            successor = pipeline.successors.popleft()
        except IndexError:  # taken back by another thread
            return False
        if successor.primed >= 0 and pipeline.recent is not None:
            bins = pipeline.recent.copy(successor.upto)
            if len(bins.counts) > MOST_BEHIND or bins.first > successor.upto:
                self.behind += 1
                return False
            started = take_in(successor.decoder.engine, bins)
            successor = replace(successor, primed=max(successor.primed, started))
        pipeline.take_over(successor, pipeline.binner.open_bin)
        return len(pipeline.exchanges) > turns

    def _begun(self) -> Event:
        """Another decoder has taken over. One that was swapped in is watched; the one before is kept for it."""
        self._seen = len(self.pipeline.exchanges)
        turn = self.pipeline.exchanges[-1]
        swapped = turn.successor.why == "swap"
        self.previous, self._decoder = self._decoder if swapped else None, turn.successor.decoder
        self.left, self.missed, self.wanted = self.probation.bins if swapped else 0, 0, ""
        return turn.successor.why, f"from bin {turn.token} on {turn.successor.said}"

    def _watch(self, closed: list[Decoded], passage: Passage | None) -> list[Event]:
        """Count bins and misses of a probation; passage: None = another decoder had a part in it."""
        self.left = max(0, self.left - len(closed))
        if passage is not None and self._missed(closed, passage):
            self.missed += 1
        reason = ""
        if self.pipeline.bad_since:
            reason = "it gave a value that is not finite"
        elif self.missed > self.probation.misses:
            reason = f"its engine missed {self.missed} deadlines"
        if reason:
            return [self._fall_back(reason)]
        if self.left:
            return []
        self.kept += 1
        model = self._decoder.model
        return [("probation_over", f"{model} has passed its probation: {self.missed} deadlines missed by its engine")]

    def _missed(self, closed: list[Decoded], passage: Passage) -> bool:
        """Whether a pass was late because steps take long, on average more than half of the budget of computing."""
        engine_ns = min(sum(decoded.infer_ns for decoded in closed), passage.cpu_ns)
        late = passage.sent_ns - passage.edge_ns > self.probation.budget_ns
        return late and 2 * engine_ns > len(closed) * self.probation.budget_ns

    def _fall_back(self, reason: str) -> Event:
        """Withhold what the newest decoder says, and have the previous one take over."""
        pipeline, previous, unfit = self.pipeline, self.previous, self._decoder
        assert previous is not None  # a probation begins with a swap
        self.left, said = 0, f"{unfit.model} ({unfit.model_sha[:12]}) is on probation and unfit: {reason}"
        pipeline.unfit = f"{said}; going back to {previous.model}"
        back = f"{previous.model} ({previous.model_sha[:12]}) decodes again: {reason} (of {unfit.model})"
        if pipeline.rules.markers:
            pipeline.successors.append(Successor(previous, "fallback", health=pipeline.health_of(previous), said=back))
        else:
            self.wanted = back
        return "unfit", pipeline.unfit
