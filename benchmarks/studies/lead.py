"""What a look ahead is worth: `python -m benchmarks.studies.lead RECORDING TRAIN.toml --seed 0 --out RESULT.json`.

R2 on the test part against the lead, of NEDS and of the causal ridge, each trained to say that much ahead, and of what
a loop without them has: the value decoded for now, and the last measured one. One training of a seed carries each trace
at all leads, as outputs of their own, so that leads are compared within it. All leads are held to the same target bins,
those that are at least the longest lead from the start of their segment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import structs

from benchmarks import machine
from benchmarks.intervals import words
from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.data import lead, scalers, session_file
from neds_core.data.session import Session, Splits
from neds_core.files import sha256
from neds_core.linear import baseline
from neds_core.scores import bootstrap, r2 as scores
from neds_core.train import loop, single
from neds_core.train.log import Silent

LEADS_MS = (0.0, 20.0, 40.0, 60.0, 100.0, 140.0, 200.0)
Row = dict[str, Any]


def copy_of(trace: str, lead_ms: float) -> str:
    """What the output is called that says a trace so much ahead."""
    return f"{trace}_{lead_ms:g}ms"


def copied(session: Session, config: TrainConfig, leads_ms: Sequence[float]) -> tuple[Session, TrainConfig]:
    """The recording with each continuous output once for each lead, and the training of these; classes are left out.

    The tasks that show some behaviours beside others are off: a copy would give another away.
    """
    traces = [spec for spec in map(session.spec, config.outputs) if spec.kind == "continuous"]
    named = {copy_of(spec.name, ms): (spec, ms) for spec in traces for ms in leads_ms}
    specs = tuple(structs.replace(spec, name=name) for name, (spec, _) in named.items())
    values = {name: session.values[spec.name] for name, (spec, _) in named.items()}
    config = structs.replace(
        config,
        outputs=tuple(named),
        select=(),
        lead_ms={name: ms for name, (_, ms) in named.items() if ms},
        masks=structs.replace(config.masks, within_behaviour=0.0, cross_modal=0.0),
        fit=structs.replace(config.fit, loss_weights={}),
    )
    return replace(session, specs=specs, values=values), config


@dataclass(frozen=True, slots=True)
class Said:
    """What was said at the bins of the test part's segments (n,), in the unit of the trace, by name of the output.

    neds: of each training seed. segment (n,): row of each bin's segment.
    """

    neds: list[dict[str, np.ndarray]]
    ridge: dict[str, np.ndarray]
    segment: np.ndarray
    seconds: list[float]


def shorter(config: TrainConfig, steps: int, batch: int) -> TrainConfig:
    """The same training with fewer steps and samples, of the training part alone, beside a ridge of filter banks."""
    rate = config.fit.learning_rate * (batch / config.fit.batch) ** 0.5
    fit = structs.replace(config.fit, steps=steps, batch=batch, learning_rate=rate, refit=False)
    return structs.replace(config, fit=fit, linear=structs.replace(config.linear, lags=()))


def decode(session: Session, config: TrainConfig, seeds: Sequence[int]) -> Iterator[Said]:
    """Train ridge and NEDS (see `single`; both on the training part alone where NEDS is not refitted), and decode the
    test part once with each: what is said so far, after each seed."""
    parts = lead.split(session, config.lead_ms)
    specs = tuple(parts.train.spec(name) for name in config.outputs)
    scale = scalers.fit(parts.train, specs, config.min_rate_hz, config.model.filter_taus_ms)
    if config.fit.refit:
        linear = single.fit_linears(config, parts, scale).development
    else:
        linear = baseline.fit(parts.train, specs, scale, config.linear, single.told(config))
    ridge = {s.name: baseline.predict(linear[s.name], parts.test, scale.kept, s.kind) for s in specs}
    said = Said([], ridge, parts.test.segment_of(parts.test.bins()), [])
    for seed in seeds:
        began = time.process_time()
        _, model = single.learn(single.Job(config, Path(), seed, ""), parts, scale, Silent())
        said.seconds.append(time.process_time() - began)
        z = loop.decode_live(model, parts.test)
        said.neds.append({name: z[name] * scale.sd[name] + scale.mean[name] for name in config.outputs})
        print(f"seed {seed}: {said.seconds[-1]:.0f} s of CPU", flush=True)
        yield said


def earlier(values: np.ndarray, n: int) -> np.ndarray:
    """(n,) float64: at each bin, what was said n bins before; NaN where nothing was."""
    out = np.full(len(values), np.nan)
    out[n:] = values[: len(values) - n]
    return out


def score(parts: Splits, said: Said, traces: Sequence[str], leads_ms: Sequence[float]) -> dict[str, list[Row]]:
    """Rows by trace, one for each lead. parts: of the recording itself."""
    test, bins = parts.test, parts.test.bins()
    longest = lead.n_bins(max(leads_ms), test.bin_ns)
    clock = test.clock()[bins]
    group = bootstrap.RULES.groups(said.segment, test.bin_ns)
    return {
        trace: [
            _row(trace, ms, test.values[trace][bins].astype(np.float64), _known(test, trace, clock >= longest), said,
                 group, test.bin_ns)
            for ms in leads_ms
        ]
        for trace in traces
    }  # fmt: skip


def _known(test: Session, trace: str, late: np.ndarray) -> np.ndarray:
    """(n,) bool: target bins, measured and late enough in their segments."""
    bins = test.bins()
    return late & test.valid[bins] & np.isfinite(test.values[trace][bins])


def _row(
    trace: str, ms: float, target: np.ndarray, known: np.ndarray, said: Said, group: np.ndarray, bin_ns: int
) -> Row:
    """Scores of one trace at one lead: every contender said it a lead before the target's bin."""
    n, name, now = lead.n_bins(ms, bin_ns), copy_of(trace, ms), copy_of(trace, 0.0)
    ridge, measured = earlier(said.ridge[name], n), earlier(target, n)
    neds, held = ([earlier(each[key], n) for each in said.neds] for key in (name, now))
    rows = known & np.isfinite(measured)

    def sums(value: np.ndarray) -> np.ndarray:
        return scores.r2_sums(target[rows], value[rows], group[rows])

    of_neds, of_held, of_measured, of_ridge = [*map(sums, neds)], [*map(sums, held)], sums(measured), sums(ridge)

    def gain(theirs: np.ndarray | list[np.ndarray]) -> Row:
        return bootstrap.paired(of_neds, theirs, scores.r2_of_sums)._asdict()

    return {
        "lead_ms": ms,
        "n": int(rows.sum()),
        "neds": [float(scores.r2_of_sums(each.sum(0))) for each in of_neds],
        "ridge": float(scores.r2_of_sums(of_ridge.sum(0))),
        "held_decoded": [float(scores.r2_of_sums(each.sum(0))) for each in of_held],
        "held_measured": float(scores.r2_of_sums(of_measured.sum(0))),
        "neds_minus_ridge": gain(of_ridge),
        "neds_minus_held_decoded": gain(of_held),
        "neds_minus_held_measured": gain(of_measured),
    }


def table(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Lines of the table, as a page has it."""
    head = (
        "trace", "lead, ms", "NEDS", "ridge", "decoded, held", "measured, held", "NEDS minus ridge",
        "NEDS minus decoded, held", "NEDS minus measured, held",
    )  # fmt: skip
    out = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for trace, each in rows.items():
        for row in each:
            seeds, held = (" / ".join(f"{v:.3f}" for v in row[key]) for key in ("neds", "held_decoded"))
            gains = [words(row[f"neds_minus_{key}"], "+") for key in ("ridge", "held_decoded", "held_measured")]
            others = [held, f"{row['held_measured']:.3f}", *gains[1:]] if row["lead_ms"] else [""] * 4
            cells = (
                f"`{trace}`",
                f"{row['lead_ms']:g}",
                seeds,
                f"{row['ridge']:.3f}",
                *others[:2],
                gains[0],
                *others[2:],
            )
            out.append(f"| {' | '.join(cells)} |")
    return out


def run(session: Session, config: TrainConfig, seeds: Sequence[int], leads_ms: Sequence[float]) -> Iterator[Row]:
    """Rows by trace, of the seeds so far, after each seed."""
    traces = [name for name in config.outputs if session.spec(name).kind == "continuous"]
    filters, fit = {name: session.spec(name).filter for name in traces}, config.fit
    for said in decode(*copied(session, config, leads_ms), seeds):
        yield {
            "recording": session.name, "seeds": list(seeds)[: len(said.neds)], "filters": filters,
            "fit": {"steps": fit.steps, "batch": fit.batch, "refit": fit.refit},
            "traces": score(lead.split(session, {}), said, traces, leads_ms), "cpu_s": said.seconds,
            "machine": machine.describe(),
        }  # fmt: skip


def main() -> None:
    """Command line of `python -m benchmarks.studies.lead`."""
    parser = argparse.ArgumentParser(description="R2 against the look ahead, on the test part")
    parser.add_argument("recording", type=Path)
    parser.add_argument("training", type=Path, help="TRAIN.toml")
    parser.add_argument("--seed", type=int, action="append", help="of a training; again for more")
    parser.add_argument("--leads", type=float, nargs="+", default=LEADS_MS, help="in ms, 0 among them")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--short", type=int, nargs=2, metavar=("STEPS", "BATCH"), help="see `shorter`")
    given = parser.parse_args()
    torch.set_num_threads(1)
    session, config = session_file.load(given.recording), toml.load(given.training, TrainConfig)
    config, found = shorter(config, *given.short) if given.short else config, {}
    for found in run(session, config, given.seed or [0], given.leads):
        if given.out:
            row = {"recording_sha": sha256(given.recording), "training": given.training.name, **found}
            given.out.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(found["traces"])))


if __name__ == "__main__":
    main()
