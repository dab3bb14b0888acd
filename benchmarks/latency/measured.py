"""The numbers of one run: a histogram and percentiles of each latency, misses, and statistics second by second.

Everything comes from the run's log, what its subscriber heard, and what its sender did.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from benchmarks.latency import passes
from benchmarks.latency.drive import Taken
from benchmarks.latency.passes import OWN, Scheduled
from runtime.core.latency import Latency
from runtime.core.misses import CAUSES
from runtime.core.run_log import RunLog
from runtime.core.values import NO_TIME

BLOCK_NS = 1_000_000_000
MOST_MISSES = 2000  # that are listed one by one
SLOWEST = 99.0  # percentile beyond which stages are named
# What the machine itself takes of a latency: parts of the floor.
NOT_OURS = {
    "edge_to_pub_ms": ("timer", "lsl"), "edge_to_pub_decoded_ms": ("timer", "lsl"), "wait_ms": ("timer", "lsl"),
    "sender_ms": ("timer",), "arrive_ms": ("lsl",), "sub_ms": ("zmq",), "edge_to_sub_ms": ("timer", "lsl", "zmq"),
}  # fmt: skip
IN_BLOCKS = (
    "edge_to_pub_ms", "edge_to_sub_ms", "sub_ms", "age_ms", "wait_ms", "take_ms", "infer_ms", "send_ms", "after_ms",
    "push_ms",
)  # fmt: skip
Samples = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> (when (n,), how long (n,)), ns


def of(taken: Taken, warm_up_s: float) -> dict[str, Any]:
    """The part of a report that a run gives; its first warm_up_s are counted apart."""
    log, found = taken.log, passes.scheduled(taken.log)
    begin = int(found.t_end[0] + warm_up_s * 1e9) if len(found.t_end) else 0
    warm = found.t_end < begin
    samples = {name: (t[t >= begin], ns[t >= begin]) for name, (t, ns) in _samples(taken, found).items()}
    latency = {name: histogram(ns) for name, (_, ns) in samples.items()}
    latency["source_delay_ms"] = histogram(np.maximum(log.source_delay_ms, 0.0) * 1e6)
    rows = {name: {"n": each.histogram.get_total_count()} | each.summary_ms() for name, each in latency.items()}
    late = np.flatnonzero(found.late & ~warm)
    stages = [found.stage(int(i)) for i in late]
    return {
        **rows,
        "latencies": [*rows],
        "scheduled": int((~warm).sum()),
        "measured_s": round(int((~warm).sum()) * log.header.bin_ns * 1e-9, 3),
        "deadline_misses": len(late),
        "miss_causes": {c: int((found.cause[late] == k).sum()) for k, c in enumerate(CAUSES)},
        "miss_stages": dict(Counter(stages)),
        "slowest_stage": slowest_stage(found, ~warm),
        "misses": [
            {
                "t_s": round((int(found.t_end[i]) - begin) * 1e-9, 3),
                "ms": round(int(found.edge_to_pub[i]) * 1e-6, 3),
                "cause": CAUSES[found.cause[i]] if found.cause[i] >= 0 else "unknown",
                "stage": stage,
            }
            for i, stage in zip(late[:MOST_MISSES].tolist(), stages, strict=False)
        ],
        "warm_up": warm_up(found, warm, warm_up_s),
        "tokens": tokens(log, begin),
        "blocks": blocks(samples, found, begin, taken),
        "histograms": {name: each.encoded() for name, each in latency.items()},
        "stolen_ms": log.outcome.stolen_ms,
        "run_delay_ms": _grown(taken.samples, 1, begin, int(found.t_end[-1]) if len(found.t_end) else begin),
        "streamed_vs_offline_max_abs": taken.summary.get("streamed_vs_offline_max_abs"),
        "counters": log.outcome.counters,
    }


def _samples(taken: Taken, found: Scheduled) -> Samples:
    """Every latency with when it was due: (when, how long), ns."""
    log, t = taken.log, found.t_end
    left = np.unique(found.at)
    alone = np.flatnonzero(np.isin(np.arange(len(t)), left))  # the tokens that were published themselves
    parts = {f"{name}_ms": (t[alone], found.parts[alone, k]) for k, name in enumerate(OWN) if name != "infer"}
    stepped = np.flatnonzero(log.infer_ns[: len(t)] > 0)
    aged = left[passes.carried(log, left) & (log.newest_ns[left] != NO_TIME)]
    gaps = np.diff(log.sent_ns[left])
    return {
        "edge_to_pub_ms": (t, found.edge_to_pub),
        "edge_to_pub_decoded_ms": (t[found.decoded], found.edge_to_pub[found.decoded]),
        "closed_by_stream_ms": (t[~found.allowance], found.edge_to_pub[~found.allowance]),
        "closed_by_allowance_ms": (t[found.allowance], found.edge_to_pub[found.allowance]),
        **parts,
        "infer_ms": (t[stepped], log.infer_ns[stepped]),
        "after_ms": (t[alone], found.after[alone]),
        "age_ms": (log.t_end_ns[aged], log.sent_ns[aged] - log.newest_ns[aged]),
        "interval_jitter_ms": (log.t_end_ns[left[1:]], np.abs(gaps - log.header.bin_ns)),
        **_sender(taken, found, alone),
        **_heard(taken, found),
    }


def _sender(taken: Taken, found: Scheduled, alone: np.ndarray) -> Samples:
    """The wait for a bin's last sample in two: until the sender had it out, and from there to the loop's waking.

    And what the sender's own work takes for a chunk: it depends on the machine and the load alone.
    """
    pushes = taken.pushes
    stream = alone[~found.allowance[alone]]
    place = np.searchsorted(pushes[:, 0], found.t_end[stream])  # the first chunk due at or after the edge
    stream, place = stream[place < len(pushes)], place[place < len(pushes)]
    edge, out = found.t_end[stream], pushes[place, 2]
    woke = edge + found.parts[stream, :2].sum(1)
    return {
        "sender_ms": (edge, out - edge),
        "arrive_ms": (edge, np.maximum(woke - out, 0)),
        "push_ms": (pushes[:, 0], pushes[:, 2] - pushes[:, 1]),
    }


def _heard(taken: Taken, found: Scheduled) -> Samples:
    """What the subscriber adds: from the publisher's send, and from the token's edge, to its receipt."""
    heard = taken.heard
    known = np.isin(found.at, heard["token"])
    place = np.searchsorted(heard["token"], found.at[known])  # tokens grow
    edge = found.t_end[known]
    return {
        "sub_ms": (heard["t_end_ns"], heard["recv_ns"] - heard["t_pub_ns"]),
        "edge_to_sub_ms": (edge, heard["recv_ns"][place] - edge),
    }


def histogram(ns: np.ndarray) -> Latency:
    """An HdrHistogram of samples (n,) in ns."""
    made = Latency()
    for value in ns.tolist():
        made.record(int(value))
    return made


def slowest_stage(found: Scheduled, among: np.ndarray) -> str:
    """In what the slowest hundredth of the tokens spent most of their time; '' = there is none."""
    rows = np.flatnonzero(among)
    if len(rows) == 0:
        return ""
    slow = rows[found.edge_to_pub[rows] >= np.percentile(found.edge_to_pub[rows], SLOWEST)]
    return Counter(found.stage(int(i)) for i in slow).most_common(1)[0][0]


def warm_up(found: Scheduled, warm: np.ndarray, seconds: float) -> dict[str, Any]:
    """The tokens before what is reported."""
    return {
        "seconds": seconds,
        "n": int(warm.sum()),
        "deadline_misses": int((found.late & warm).sum()),
        "edge_to_pub_ms": histogram(found.edge_to_pub[warm]).summary_ms(),
    }


def tokens(log: RunLog, begin: int) -> dict[str, int]:
    """What became of the tokens after the warm-up."""
    after = log.t_end_ns[: log.n] >= begin
    null = ~passes.carried(log, np.arange(log.n)) & ~log.idle[: log.n]
    return {
        "closed": int(after.sum()),
        "idle": int((after & log.idle[: log.n]).sum()),
        "invalid": int((after & null).sum()),
        "without_live_data": int((after & ~log.valid[: log.n] & ~log.idle[: log.n]).sum()),
    }


def blocks(samples: Samples, found: Scheduled, begin: int, taken: Taken) -> dict[str, Any]:
    """Statistics of each second after the warm-up: what `neds-rt bench compare` draws."""
    t = found.t_end
    n = max(0, int((t[-1] + taken.log.header.bin_ns - begin) // BLOCK_NS)) if len(t) else 0  # whole ones

    def each(when: np.ndarray, values: np.ndarray, statistic: Any) -> list[float | None]:
        place = (when - begin) // BLOCK_NS
        return [round(float(statistic(v)) * 1e-6, 4) if len(v := values[place == k]) else None for k in range(n)]

    place = (t - begin) // BLOCK_NS
    delay, stolen = (_each_second(taken.samples[:, 0], taken.samples[:, k], begin, n) for k in (1, 2))
    return {
        "seconds": BLOCK_NS * 1e-9,
        "n": [int((place == k).sum()) for k in range(n)],
        "deadline_misses": [int((found.late & (place == k)).sum()) for k in range(n)],
        "run_delay_ms": delay,
        "stolen_ms": stolen,
        **{
            name: {"p50": each(*samples[name], np.median), "max": each(*samples[name], np.max)} for name in IN_BLOCKS
        },
    }  # fmt: skip


def _each_second(t: np.ndarray, total: np.ndarray, begin: int, n: int) -> list[float | None]:
    """By how much a total, known at times t (m,), grew in each second."""
    if len(t) < 2 or not np.isfinite(total).all():
        return [None] * n
    edges = begin + np.arange(n + 1) * BLOCK_NS
    return [round(float(v), 3) for v in np.diff(np.interp(edges, t, total))]


def _grown(samples: np.ndarray, column: int, begin: int, end: int) -> float | None:
    """By how much a total grew from begin to end, ns; None where it is not known."""
    t, total = samples[:, 0], samples[:, column]
    if len(t) < 2 or not np.isfinite(total).all():
        return None
    return round(float(np.diff(np.interp([begin, end], t, total))[0]), 3)


def not_ours(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Latency -> p50 and p99 in ms of what the machine itself takes of it: the parts of its floor."""
    floor = result["floor_ms"]
    return {
        name: {p: round(sum(floor[part][p] or 0.0 for part in parts), 4) for p in ("p50", "p99")}
        for name, parts in NOT_OURS.items()
        if name in result
    }
