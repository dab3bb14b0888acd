"""`neds-rt bench soak`: hours of a rig through the real path; whether anything grows, breaks or does not come back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import report
from benchmarks.figures import BLUE, ORANGE, RED, SKY, canvas
from benchmarks.latency import case as cases, drive
from benchmarks.latency.bench import Say
from benchmarks.latency.case import Case
from benchmarks.latency.compare import STUDENT_99
from benchmarks.latency.drive import Processes, Taken
from benchmarks.latency.faults import RECOVERY_S, Fault, Faults, plan
from benchmarks.latency.load import Load
from benchmarks.latency.witness import Witness, balanced
from neds_core import toml
from neds_core.checkpoint import Checkpoint
from runtime.config import RigConfig

GROWTH = ("per_hour", "low", "high", "at_least")
BLOCKS = 12  # of which a slope is fitted to the means
LEAST = {"rss_mb": 8.0, "threads": 4.0, "files": 8.0}  # growth within the soak that is a leak
LEAST_DRIFT_MS, LEAST_DRIFT_SHARE = 0.2, 0.2  # of the median latency: below either it is steady
FAULT_EVERY_S = (3.0, 300.0)
SHOWN_EVENTS = 6
TRIALS = ("IDLE to RUNNING", "RUNNING to IDLE")  # changes of state that are no news
WORDS = {"rss_mb": "memory of the loop (MB)", "threads": "its threads", "files": "its open files"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured. row_s: length of a row. faults: a seed, None = none are made. checkpoint: one that is
    not on disk, None = the configuration's. loop: the command of neds-rt."""

    config: RigConfig
    load: Load
    seconds: float
    row_s: float
    warm_up_s: float = 60.0
    faults: int | None = None
    checkpoint: Checkpoint | None = None
    loop: tuple[str, ...] = tuple(drive.LOOP)


def run(asked: Asked, say: Say = lambda line: None) -> report.Report:
    """Measure, and judge what came of it."""
    whole_s = asked.seconds + asked.warm_up_s
    heard: list[Witness] = []
    with tempfile.TemporaryDirectory(prefix="neds-rt-soak-") as folder:
        case = _case(Path(folder), asked, whole_s)
        planned = [] if asked.faults is None else _planned(asked, whole_s)
        say(f"sender, loop and subscriber for {whole_s:g} s, {len(planned)} faults (seed {asked.faults})")

        def beside(pids: Processes) -> None:
            witness = Witness(pids.address, pids.loop, case.bin_ns, asked.row_s, asked.warm_up_s)
            heard.append(witness)
            with Faults(planned, case, pids) as faults:
                witness.listen(whole_s + drive.END_S, faults.act)

        taken = drive.drive(case, whole_s, list(asked.loop), beside)
    return report.begun("soak") | _found(asked, case, taken, heard[0], planned)


def _case(folder: Path, asked: Asked, whole_s: float) -> Case:
    """Its log is full at the end of the warm-up, and takes no memory afterwards."""
    case = cases.prepare(folder, asked.config, asked.load, whole_s, asked.checkpoint)
    score = msgspec.structs.replace(case.config.score, log_s=max(1.0, asked.warm_up_s))
    short = msgspec.structs.replace(case.config, score=score)
    case.rig.write_text(toml.written(msgspec.to_builtins(short)), encoding="utf-8")
    np.save(folder / "pushes.npy", np.zeros((0, 3), np.int64))  # of a sender that is killed
    return case


def _planned(asked: Asked, whole_s: float) -> list[Fault]:
    every_s = min(FAULT_EVERY_S[1], max(FAULT_EVERY_S[0], asked.seconds / 20))
    return plan(asked.faults or 0, asked.warm_up_s, whole_s, every_s)


def _found(asked: Asked, case: Case, taken: Taken, witness: Witness, planned: list[Fault]) -> dict[str, Any]:
    samples = np.array(witness.samples, float).reshape(-1, 4)
    samples = samples[samples[:, 0] >= asked.warm_up_s]
    medians = np.array(witness.medians, float).reshape(-1, 2)
    medians = medians[medians[:, 0] >= asked.warm_up_s]
    grown = {name: slope(samples[:, 0], samples[:, k + 1]) for k, name in enumerate(LEAST)}
    header, outcome = taken.log.header, taken.log.outcome
    found = {
        "seconds": asked.seconds, "row_s": asked.row_s, "warm_up_s": asked.warm_up_s, "seed": asked.faults,
        "rows": witness.rows, "growth": grown, "drift_ms": slope(medians[:, 0], medians[:, 1]),
        "median_ms": round(float(np.median(medians[:, 1])), 4) if len(medians) else None,
        "samples": np.round(samples, 2).tolist(), "events": len(witness.events), "unheard": witness.unheard,
        "faults": [told(fault, witness, planned) for fault in planned],
        "counters": outcome.counters, "balanced": balanced(outcome.counters), "stopped_by": outcome.stopped_by,
        "miss_causes": outcome.misses, "stolen_ms": outcome.stolen_ms, "scheduling": header.scheduling,
        "decoder": header.decoder, "engine": header.engine, "units": case.n_units, "bin_ms": case.bin_ns * 1e-6,
        "budget_ms": header.budget_ms, "checkpoint_sha256": case.checkpoint_sha, "config_sha256": case.config_sha,
        "streamed_vs_offline_max_abs": taken.summary.get("streamed_vs_offline_max_abs"),
    }  # fmt: skip
    return found | {"broken": list(broken(found)), "drifts": drifts(found)}


def slope(t_s: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """By how much y (n,) grows an hour, over times (n,) in s, with a 99 % interval, and over the whole at least.

    A line is fitted to the means of `BLOCKS` stretches of equally many samples. None where there are too few.
    """
    known = np.isfinite(y)
    t_s, y = t_s[known], y[known]
    n_blocks = min(BLOCKS, len(y) // 2)
    if n_blocks < 4:
        return dict.fromkeys(GROWTH)
    t, means = (np.array([each.mean() for each in np.array_split(v, n_blocks)]) for v in (t_s, y))
    centred, freedom = t - t.mean(), n_blocks - 2
    per_s = float(centred @ means / (centred @ centred))
    rest = means - means.mean() - per_s * centred
    quantile = STUDENT_99[max(k for k in STUDENT_99 if k <= freedom)]
    half = quantile * float(np.sqrt(rest @ rest / freedom / (centred @ centred)))
    hour, long_s = 3600.0, float(t_s[-1] - t_s[0])
    found = per_s * hour, (per_s - half) * hour, (per_s + half) * hour, (per_s - half) * long_s
    return dict(zip(GROWTH, (round(v, 3) for v in found), strict=True))


def told(fault: Fault, witness: Witness, planned: list[Fault]) -> dict[str, Any]:
    """A fault with what the loop said, and how long after its end a value came of a bin that began after its end; None
    where none came before the next fault, or within 4 times `RECOVERY_S`."""
    later = [other.at_s for other in planned if other.at_s > fault.at_s]
    until_s = min([*later, fault.end_s + 4 * RECOVERY_S])
    said = [
        f"{name}: {detail}" for t, name, detail in witness.events if fault.at_s <= t < until_s and detail not in TRIALS
    ]
    good = next((t - fault.end_s for t, began_s in witness.good if began_s >= fault.end_s and t < until_s), None)
    return {
        "kind": fault.kind, "at_s": fault.at_s, "lasts_s": fault.lasts_s, "said": said[:SHOWN_EVENTS],
        "more": max(0, len(said) - SHOWN_EVENTS), "back_after_s": None if good is None else round(good, 2),
    }  # fmt: skip


def broken(found: dict[str, Any]) -> Iterator[str]:
    """Why a soak has failed, a sentence each."""
    for name, least in LEAST.items():
        row = found["growth"][name]
        if (grown := row["at_least"]) is not None and grown >= least:
            yield f"{WORDS[name]} grows by {_interval(row)} an hour, at least {grown:g} in this soak (limit {least:g})"
    unbalanced = sum(row["unbalanced"] for row in found["rows"])
    if unbalanced or not found["balanced"]:
        yield f"conservation is broken: in {unbalanced} of the statuses, at the end {found['counters']}"
    if found["stopped_by"] != "seconds":
        yield f"the run did not last: it was ended by {found['stopped_by'].replace('_', ' ')}"
    if not found["rows"]:
        yield "nothing was heard of the run"
    for fault in found["faults"]:
        if fault["back_after_s"] is None:
            yield f"after {fault['kind']} at {fault['at_s']:g} s the run did not come back"


def drifts(found: dict[str, Any]) -> bool:
    """Whether the median latency grows, beyond noise and by what matters."""
    row, median = found["drift_ms"], found["median_ms"]
    return row["at_least"] is not None and row["at_least"] >= max(LEAST_DRIFT_MS, LEAST_DRIFT_SHARE * median)


def _interval(row: dict[str, float | None]) -> str:
    if row["per_hour"] is None:
        return "unknown (too short)"
    return f"{row['per_hour']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The table of rows, the slopes, the faults and the verdict."""
    head = ("from s", "n", "p50", "p99", "p99.9", "max", "missed", "MB", "threads", "files", "spikes", "conserved")
    yield " ".join(f"{name:>9}" for name in head)
    for row in found["rows"]:
        times = [f"{row['edge_to_pub_ms'][p]:.3f}" for p in ("p50", "p99", "p99.9", "max")]
        cells = [f"{row['from_s']:g}", row["n"], *times, row["deadline_misses"], f"{row['rss_mb']:.1f}"]
        cells += [f"{row['threads']:g}", f"{row['files']:g}", row["counters"].get("spikes_received", 0)]
        yield " ".join(f"{cell!s:>9}" for cell in [*cells, "no" if row["unbalanced"] else "yes"])
    for name, words in WORDS.items():
        yield f"{words}: {_interval(found['growth'][name])} an hour"
    word = "drifts" if found["drifts"] else "steady"
    yield f"median latency {found['median_ms']} ms, {_interval(found['drift_ms'])} ms an hour: {word}"
    for fault in found["faults"]:
        back = "never" if fault["back_after_s"] is None else f"{fault['back_after_s']:g} s later"
        yield f"{fault['at_s']:9.1f} s  {fault['kind']} for {fault['lasts_s']:g} s; decoding again {back}"
        yield from (f"{'':13}{said}" for said in fault["said"])
        if fault["more"]:
            yield f"{'':13}and {fault['more']} more"
    if found["seed"] is not None:
        yield f"{len(found['faults'])} faults, seed {found['seed']}"
    yield f"ended by {found['stopped_by']}; {found['scheduling']}; CPU steal {found['stolen_ms']:.0f} ms"
    yield from found["broken"]
    yield "FAIL" if found["broken"] else "PASS"


def draw(found: dict[str, Any], stem: Path) -> dict[str, Path]:
    """Write STEM.soak.png; returns title -> file."""
    out = stem.with_name(f"{stem.name}.soak.png")
    with canvas(out, 8, 6, nrows=2, sharex=True) as (_, (top, below)):
        t = [row["from_s"] + found["row_s"] / 2 for row in found["rows"]]
        for p, colour in (("p50", BLUE), ("p99", SKY), ("p99.9", ORANGE), ("max", RED)):
            top.plot(t, [row["edge_to_pub_ms"][p] for row in found["rows"]], "o-", ms=3, color=colour, label=p)
        top.axhline(found["budget_ms"], color="0.6", lw=0.8, ls="--", label="budget")
        top.set(yscale="log", ylabel="edge to pub (ms)")
        samples = np.array(found["samples"], float).reshape(-1, 4)
        below.plot(samples[:, 0] - found["warm_up_s"], samples[:, 1], color=BLUE, lw=1.2)
        below.set(xlabel="s after the warm-up", ylabel="memory of the loop (MB)")
        for fault in found["faults"]:
            for axes in (top, below):
                axes.axvline(fault["at_s"] - found["warm_up_s"], color="0.8", lw=0.8, zorder=0)
        top.legend(frameon=False, fontsize="small", ncols=5)
    return {"Latency and memory": out}
