"""The evidence of a certificate: what was heard and what a run left, line by line PASS or FAIL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runtime.certificate.document import Line
from runtime.config import RigConfig
from runtime.core.latency import PERCENTILES
from runtime.core.run_log import RunLog
from runtime.core.state import BINS, State
from runtime.scoring.verify import BOUNDS

BAD = (State.FAULT, State.LOST, State.STALLED)
ROUNDING = 1e-4  # z-scores: float32 sums in another order, over as many bins as a run has
CONFIDENCE = 0.95
CARRIED = 0.99  # share of the bins inside segments whose message has to carry a value
NEAR = 0.9  # of the share that may be missed: to show it where more than that was would take hours
CATCH = "; neds-rt bench latency RIG.toml names the stage and the cause"


@dataclass(frozen=True, slots=True)
class Heard:
    """What was measured. plan: of `neds-rt check --json`; summary: of `neds-rt run --json`; log: of that run; asked_s:
    how long it was to be; floor: of `benchmarks.latency.floor`."""

    plan: dict[str, Any]
    summary: dict[str, Any]
    log: RunLog
    asked_s: float
    floor: dict[str, Any]


def judge(heard: Heard, config: RigConfig, misses: float) -> tuple[Line, ...]:
    """Every line. misses: the share of deadlines that may be missed, above 0."""
    return (
        *_streams(heard.plan), _ended(heard), _states(heard.log), _deadline(heard, config, misses),
        _values(heard.summary), *_conserved(heard.summary), _late(heard.summary, config),
        _exact(heard.summary, config), _exchanged(heard.log), *_told(heard),
    )  # fmt: skip


def most(k: int, n: int) -> float:
    """Upper bound of a share of which k of n were seen, at 95 % confidence, by the Poisson law: 3/n where k = 0."""
    low, high = float(k), float(k) + 20.0 + 10.0 * math.sqrt(k)
    for _ in range(60):
        mean = (low + high) / 2
        log_terms = (i * math.log(mean) - mean - math.lgamma(i + 1) for i in range(k + 1)) if mean else [0.0]
        low, high = (mean, high) if sum(map(math.exp, log_terms)) > 1 - CONFIDENCE else (low, mean)
    return min(1.0, high / n)


def enough(k: int, n: int, share: float) -> int:
    """So many bins, as often late as k of n, that `most` is the share, to 2 %; 0 = none in reach."""
    if k > NEAR * share * n:
        return 0
    low, high = 0, n
    while most(math.ceil(k * high / n), high) > share:
        low, high = high, 2 * high
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if most(math.ceil(k * middle / n), middle) > share else (low, middle)
    return high


def _line(name: str, passed: bool, said: str, remedy: str = "") -> Line:
    return Line(name, "PASS" if passed else "FAIL", said, "" if passed else remedy)


def _streams(plan: dict[str, Any]) -> Iterator[Line]:
    """What `neds-rt check` says of each stream, and of the decoder's pace."""
    for stream in plan["streams"]:
        go, notes = stream["verdict"] == "GO", "; ".join(stream["notes"])
        said = notes or ("as the checkpoint needs it" if go else "not as the checkpoint needs it")
        yield _line(f"stream {stream['name']}", go, said, "; ".join(stream["reasons"]))
    yield _line("pace", not plan["too_slow"], f"{plan['step_ms']:.2f} ms a step in the warm-up", plan["too_slow"])


def _ended(heard: Heard) -> Line:
    log, why = heard.log, heard.summary["stopped_by"]
    ran_s = heard.summary["run_s"]
    remedy = log.outcome.refusal or "look at its sender, and certify for a shorter time or again"
    said = f"{ran_s:.0f} of {heard.asked_s:g} s, ended by {why.replace('_', ' ')}"
    return _line("run", why == "seconds", said, remedy)


def _states(log: RunLog) -> Line:
    """Which states the run entered, and why it entered a bad one."""
    entered = [(event.detail.partition(":")[0].rpartition(" ")[2], event.detail) for event in log.events
               if event.name == "state"]  # fmt: skip
    seen = list(dict.fromkeys(state for state, _ in entered if state in BINS))
    bad = [detail for state, detail in entered if state in BAD]
    remedy = f"{len(bad)} times, at first: {bad[0]}; look at the sender" if bad else ""
    return _line("states", not bad and State.RUNNING in seen, ", ".join(seen), remedy or "no bin was decoded: start "
                 "the task, or certify for longer")  # fmt: skip


def _deadline(heard: Heard, config: RigConfig, misses: float) -> Line:
    """Missed deadlines of the bins with values: those between segments cost less, and would dilute the share."""
    row, latency = heard.summary["edge_to_pub_decoded_ms"], heard.log.latency["edge_to_pub_decoded_ms"]
    n = latency.histogram.get_total_count()
    if not n:
        return _line("deadline", False, "no bin was published with values", "start the task, or certify for longer")
    missed = min(heard.summary["deadline_misses"], latency.above(config.output.budget_ms))
    times = ", ".join(f"{p} {row[p]:.2f}" for p in (*PERCENTILES, "max") if p != "p90")
    causes = ", ".join(f"{name} {k}" for name, k in heard.summary["miss_causes"].items() if k)
    said = (
        f"bin edge to published {times} ms; {missed} of {n} bins with values later than {config.output.budget_ms:g} ms "
        f"(at most {most(missed, n):.1e} at 95 % confidence; {misses:g} may be)"
    )
    if missed <= misses * n and (needed := enough(missed, n, misses)):
        seconds = 10 * math.ceil(needed / n * heard.summary["run_s"] / 10)
        remedy = f"{n} bins with values are too few to show {misses:g}; certify for {seconds} s"
    else:
        remedy = f"more than {misses:g} of the deadlines may have been missed ({causes}){CATCH}"
    return _line("deadline", most(missed, n) <= misses, said, remedy)


def _values(summary: dict[str, Any]) -> Line:
    """How many of the bins that were to be decoded left with a value, and what kept starts of segments from use."""
    tokens, counters = summary["tokens"], summary["counters"]
    n, sent = tokens["closed"] - tokens["idle"], tokens["published"]
    said = (
        f"{sent} of {n} bins inside segments carried a value ({tokens['superseded']} superseded, {tokens['invalid']} "
        f"without one); {counters['late_markers']} late markers, {counters['segments_held']} segments held"
    )
    remedy = f"fewer than {CARRIED:.0%} did: neds-rt report on a log of neds-rt run --save-log names the faults"
    return _line("values", n > 0 and sent >= CARRIED * n, said, remedy)


def _conserved(summary: dict[str, Any]) -> Iterator[Line]:
    """Both laws, and what was lost before it came to us."""
    spikes, tokens = dict(summary["spikes"]), dict(summary["tokens"])
    tokens.pop("scored")
    bug = "this is a bug of neds-rt: keep the log and report it"
    for name, whole, parts in (("spikes", "received", spikes), ("tokens", "closed", tokens)):
        total = parts.pop(whole)
        said = f"{total} {whole} = {' + '.join(f'{n} {part}' for part, n in parts.items() if n) or '0'}"
        yield _line(name, total == sum(parts.values()), said, bug)
    lost = summary["lost_upstream"]
    said = f"{lost} spikes lost between sender and loop"
    yield _line("lost", lost == 0, said, "look at the load and the network of both machines")


def _late(summary: dict[str, Any], config: RigConfig) -> Line:
    """Spikes of the whole run that were dropped, against the limits of `[health]`."""
    spikes, health = summary["spikes"], config.health
    n = max(1, spikes["received"])
    limits = {
        "late": health.late_share, "quarantined": health.quarantined_share, "out_of_range": health.out_of_range_share,
    }  # fmt: skip
    said = ", ".join(f"{100 * spikes[name] / n:.2g} % {name.replace('_', ' ')}" for name in limits)
    over = [name for name, limit in limits.items() if spikes[name] > limit * n]
    remedy = "; ".join(f"more than health.{name}_share: see neds-rt check" for name in over)
    return _line("dropped", bool(spikes["received"]) and not over, said, remedy or "no spikes came: start the sender")


def _exact(summary: dict[str, Any], config: RigConfig) -> Line:
    """What was streamed against the offline forward pass on the same bins."""
    found, bound = summary["streamed_vs_offline_max_abs"], max(ROUNDING, BOUNDS[config.engine.weights])
    if found is None:
        return _line("exact", False, "nothing was decoded", "start the task, or certify for longer")
    said = f"streamed is offline to {found:.1e} z-scores (bound {bound:g})"
    return _line("exact", found <= bound, said, "run neds-rt verify with this checkpoint, and report it")


def _exchanged(log: RunLog) -> Line:
    """Whether one decoder decoded all of it: the one whose hash the certificate holds."""
    turns = log.outcome.exchanges
    said = ", ".join(f"{each.why} to {each.model} ({each.model_sha[:12]})" for each in turns)
    remedy = "another decoder was measured than the one that is certified; swap nothing in meanwhile, and certify again"
    return _line("exchanges", not turns, said or "the certified decoder decoded all of it", remedy)


def _told(heard: Heard) -> Iterator[Line]:
    """What is not judged: the machine, and the skill where behaviour was measured."""
    summary, floor = heard.summary, heard.floor
    yield Line("scheduling", "INFO", summary["scheduling"])
    yield Line("floor", "INFO", f"timer, LSL and ZeroMQ alone: p50 {floor['p50']:.2f}, p99 {floor['p99']:.2f} ms")
    yield Line("steal", "INFO", f"{summary['stolen_ms']:.0f} ms of CPU in {summary['run_s']:.0f} s")
    for name, row in summary["outputs"].items():
        if said := _skill(row, summary["decoder"]):
            yield Line(f"skill {name}", "INFO", said)


def _skill(row: dict[str, Any], decoder: str) -> str:
    """The score of what was published, by its own measure."""
    for measure in ("r2", "balanced_accuracy", "accuracy"):
        if isinstance(row.get(measure), int | float):
            return f"{measure.replace('_', ' ')} {row[measure]:.3f} ({decoder})"
    return ""
