"""What a rehearsal has shown, from the log of the run and from what a subscriber heard of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from calibration.rehearsal.heard import WITHOUT, Heard
from neds_core import checkpoint as checkpoints
from runtime.core.latency import percentiles
from runtime.core.run_log import RunLog
from runtime.engines.layout import layout
from runtime.io.chain import Link
from runtime.scoring.score import all_decoders, exactness
from runtime.scoring.verify import BOUNDS
from runtime.wire import Flag

BOUND = BOUNDS["float32"]
AROUND_NS = 2_000_000_000  # of an exchange, within which no message may be stale


class Phase(Struct, frozen=True):
    """Bin edge to published while something else went on: ms over so many bins; misses: later than the budget."""

    name: str
    seconds: float
    bins: int
    edge_to_pub_ms: dict[str, float | None]
    misses: int


class Messages(Struct, frozen=True):
    """What a subscriber heard. wrong_model: messages of another decoder than the log has for their bin, or that do not
    say at the right one that another decodes; stale_at_swap: too old when read, of those within 2 s of the exchange;
    lost: never came."""

    heard: int
    wrong_model: int
    stale_at_swap: int
    stale: int
    lost: int


class Exact(Struct, frozen=True):
    """Largest |published - offline| of the new decoder on the same bins, in z-scores: of its first bin with values, as
    the subscriber received it, and of all of its `bins`, as logged. None = there was none."""

    first: float | None
    all: float | None
    bins: int


class Found(Struct, frozen=True):
    """A rehearsal. stages: seconds of each; words: output -> the gate's; chain: outcomes of the swap, in order."""

    ok: bool
    stages: dict[str, float]
    phases: list[Phase]
    messages: Messages
    exact: Exact
    words: dict[str, str]
    gate_passed: bool
    forced: bool
    chain: list[str]
    seconds: float
    machine: dict[str, Any]
    folder: str
    page: str


def phase(name: str, log: RunLog, began_ns: int, over_ns: int) -> Phase:
    """Of the bins that ended between two moments of the LSL clock; idle ones are published too."""
    edge, sent = log.t_end_ns[: log.n], log.sent_ns[: log.n]
    left = np.flatnonzero(sent)  # a superseded bin is charged until the send that replaced it
    rows = np.flatnonzero((edge >= began_ns) & (edge < over_ns) & (np.arange(log.n) <= left.max(initial=-1)))
    took_ms = (sent[left[np.searchsorted(left, rows)]] - edge[rows]) * 1e-6
    misses = int((took_ms > log.header.budget_ms).sum())
    return Phase(name, (over_ns - began_ns) * 1e-9, len(rows), percentiles(took_ms), misses)


def messages(log: RunLog, heard: Heard) -> Messages:
    """What came through, against the log's word on who decoded which bin."""
    turns = log.outcome.exchanges
    starts = [(0, log.header.model_sha), *((each.token, each.model_sha) for each in turns)]
    wrong, before, seq = 0, "", -2
    for message in heard.messages:
        own = next(sha for token, sha in reversed(starts) if message.token >= token)
        silent = message.seq == seq + 1 and bool(message.flags & Flag.SWAP) is not (own != before)
        wrong += message.model_sha != own or silent
        before, seq = own, message.seq
    at = [int(log.t_end_ns[each.token]) for each in turns]
    near = sum(any(abs(t - edge) <= AROUND_NS for edge in at) for t in heard.stale_ns)
    return Messages(len(heard.messages), wrong, near, len(heard.stale_ns), heard.lost)


def exact(log: RunLog, heard: Heard, path: Path) -> Exact:
    """Of the newest exchange's decoder, whose checkpoint lies at `path`."""
    turn, rows = log.outcome.exchanges[-1], log.decoded_rows()
    rows = rows[log.of_exchange(len(log.outcome.exchanges) - 1, rows)]
    made = checkpoints.load(path)
    first = next((m for m in heard.messages if m.token >= turn.token and not m.flags & WITHOUT), None)
    if not len(rows) or first is None:
        return Exact(None, None, len(rows))
    place, offline = layout(made), all_decoders(made, log, rows)[turn.decoder]
    k = np.flatnonzero(rows == first.token)
    said = np.full((len(k), place.n_values), np.nan, np.float32)
    for name, at in place.columns.items():
        output = first.outputs[name]
        said[:, at] = output.value if output.probs is None else output.probs
    return Exact(
        exactness(place, said, offline[k], log.valid[rows[k]]),
        exactness(place, log.values[rows], offline, log.valid[rows]),
        len(rows),
    )


def holds(said: Messages, of: Exact, links: list[Link], token: int) -> bool:
    """Whether the swap was shown: no stale or wrong message, exact, and in the chain from that bin on."""
    close = all(value is not None and value <= BOUND for value in (of.first, of.all))
    taken = any(link.why == "swap" and link.outcome == "taken" and link.token == token for link in links)
    return said.wrong_model == 0 and said.stale_at_swap == 0 and said.heard > 0 and close and taken


def lines(found: Found) -> Iterator[str]:
    """As text."""
    yield "stage                      seconds"
    for name, seconds in found.stages.items():
        yield f"{name:26} {seconds:7.1f}"
    yield f"{'in all':26} {found.seconds:7.1f}"
    yield ""
    columns = ("p50", "p99", "p99.9", "max")
    yield f"{'edge to published, ms':26}" + "".join(f"{name:>8}" for name in columns) + "    bins  misses"
    for each in found.phases:
        values = "".join(f"{'-' if (v := each.edge_to_pub_ms[c]) is None else f'{v:.2f}':>8}" for c in columns)
        yield f"{each.name:26}{values}{each.bins:8}{each.misses:8}"
    yield ""
    said, of = found.messages, found.exact
    yield (
        f"messages: {said.heard} heard, {said.wrong_model} of a wrong model, {said.stale_at_swap} stale within 2 s of "
        f"the swap ({said.stale} in the whole run), {said.lost} lost"
    )
    yield (
        f"the new decoder against offline: first output {_small(of.first)}, all {of.bins} bins {_small(of.all)} "
        f"(z-scores, bound {BOUND:g})"
    )
    for name, word in found.words.items():
        yield f"gate: {name} {word}"
    if found.forced:
        yield "its gate did not pass: swapped in with --force, which the chain records; on a rig, collect more trials"
    yield f"chain: {', '.join(found.chain) or 'nothing'}"
    yield f"{found.folder}: session, log, chain and this as rehearsal.json; {found.page}: the report as a page"
    yield "the rehearsal holds" if found.ok else "the rehearsal does NOT hold"


def _small(value: float | None) -> str:
    return "not compared" if value is None else f"{value:.1e}"
