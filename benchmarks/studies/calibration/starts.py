"""New units of the same animal: `python -m benchmarks.studies.calibration.starts [--out FILE.json]`.

The demo's units in two halves, split within each region. A base is trained on half A (trials 0 to 119, two traces),
and calibrated on half B with the last n trials before trial 238; trials 240 to 299 are scored once. Of the n trials
75 % fit and 25 % select, two lie between them; no gate judges here. Three seeds: of the base, and of the fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.recordings import EXAMPLES
from benchmarks.studies.calibration import row_starts
from calibration.fitting import fit as fits
from calibration.fitting.base import Base
from calibration.fitting.config import CalibrateConfig, Everything, FitConfig, Readouts, Scratch, Stage
from calibration.fitting.fit import Stages, Task
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.parts import Parts
from neds_core.data.session import Session, UnitTable
from neds_core.linear import baseline
from neds_core.linear.linear import Linear
from neds_core.model.model import NEDS
from neds_core.scores import bootstrap, r2 as scores
from neds_core.train import loop, many
from neds_core.train.sources import Source, build

OUTPUTS = ("wheel_speed", "whisker_motion_energy")
TRIALS, SEEDS, LAST, TEST = (25, 50), (0, 1, 2), 238, slice(240, 300)
GAP, FITS = 2, 0.75
BASE = CalibrateConfig(
    outputs=OUTPUTS, min_rate_hz=0.5, scratch=Scratch(260, 2e-3),
    fit=FitConfig(batch=24, ema_decay=0.98, check_every=20, patience=8),
)  # fmt: skip
TODAY = CalibrateConfig(min_rate_hz=0.5, ridge_start=False)
STARTS_AT = 50  # trials of the comparison of starts
STARTS: dict[str, dict[str, Any]] = {
    "fresh rows": {},
    "read-outs from the ridge": {"ridge_start": True},
    "spikes alone first": {"spikes": Stage(40, 3e-3)},
}


def half(session: Session, which: int) -> Session:
    """Every second unit of each region, in an order that a seed fixes: half 0 or 1."""
    rng, rows = np.random.default_rng(0), []
    for region in np.unique(session.units.region):
        own = np.flatnonzero(session.units.region == region)
        rows.append(rng.permutation(own)[which::2])
    keep = np.sort(np.concatenate(rows))
    units = UnitTable(*(getattr(session.units, k)[keep] for k in ("ids", "region", "depth_um")))
    return replace(session, units=units, counts=session.counts[:, keep], events=None)


def parts_of(session: Session, first: int, n: int) -> Parts:
    """n trials from `first` on, of which 75 % fit and the last 25 % select; the test part judges."""
    fitting = round(FITS * (n - GAP))
    places = slice(first, first + fitting), slice(first + fitting + GAP, first + n), TEST
    return Parts(*(sessions.select(session, rows) for rows in places))


def task_of(config: CalibrateConfig, parts: Parts, base: Base | None, seed: int) -> Task:
    """A calibration of these parts."""
    return Task(msgspec.structs.replace(config, seed=seed), parts, Path("ibl-dy016"), "", "study", base)


def source_of(task: Task) -> tuple[Any, Source]:
    """The configuration of the network, and what it is trained on."""
    config = fits.recipe(task)
    specs = tuple(task.parts.fit.spec(name) for name in config.outputs)
    return config, Source(task.parts.fit, task.parts.select, scalers.fit(task.parts.fit, specs, config.min_rate_hz))


def base_of(session: Session, seed: int) -> Base:
    """The base of half A, and its recording's first 120 trials."""
    task = task_of(BASE, parts_of(session, 0, 120), None, seed)
    config, source = source_of(task)
    return as_base(Stages(task, config, source).run(), source, config)


def as_base(model: NEDS, source: Source, config: Any) -> Base:
    """A network in memory as a base."""
    recipe = many.PretrainConfig(("ibl-dy016",), OUTPUTS, model=model.config, masks=config.masks, fit=config.fit)
    header = many.Header(many.FORMAT, source.train.bin_ns, recipe, model.specs, (many.row(source),), 0, 0.0, 0.0)
    return Base("A", many.Pretrained(header, model), ("",), config.masks)


def random_base(base: Base, source: Source, config: Any, seed: int) -> Base:
    """The same network before any training."""
    del config
    fresh = build(base.trunk.header.config, (source,), seed + 100)
    return replace(base, trunk=replace(base.trunk, model=fresh))


def networks(base: Base, of_a: tuple[Source, Any], parts: Parts, seed: int) -> Iterator[tuple[str, NEDS, float]]:
    """Each condition's network, and the CPU seconds that it took."""
    scratch = msgspec.structs.replace(
        TODAY, outputs=OUTPUTS, model=base.trunk.model.config, masks=base.masks, scratch=Scratch(220, 2e-3)
    )
    frozen = msgspec.structs.replace(TODAY, everything=Everything(0, 1e-3), readouts=Readouts(220, 3e-3))
    blank = random_base(base, *of_a, seed)
    each = {"calibrated": (TODAY, base), "scratch": (scratch, None), "random trunk": (frozen, blank)}
    for name, (config, start) in each.items():
        task, began = task_of(config, parts, start, seed), time.process_time()
        yield name, Stages(task, *source_of(task)).run(), time.process_time() - began


def test_values(model: NEDS, linear: dict[str, Linear], parts: Parts, scale: Any) -> dict[str, dict[str, np.ndarray]]:
    """Output -> decoder -> values on the test part."""
    ours, found = loop.decode(model, parts.judge), {}
    for name in OUTPUTS:
        ridge = baseline.predict(linear[name], parts.judge, scale.kept, "continuous")
        found[name] = {"neds": ours[name] * scale.sd[name] + scale.mean[name], "ridge": ridge}
    return found


def sums_of(parts: Parts, name: str, value: np.ndarray) -> np.ndarray:
    """Rows of R2 on the test part, one a trial."""
    bins = parts.judge.bins()
    y = parts.judge.values[name][bins]
    known = np.isfinite(y) & parts.judge.valid[bins]
    return scores.r2_sums(y[known], value[known], parts.judge.segment_of(bins)[known])


def at(n: int, session: Session, of_a: list[tuple[Base, tuple[Source, Any]]], say: Callable[[str], None]) -> list[dict]:
    """Rows of one number of trials: R2 of each condition and output, and its difference from calibrated and ridge."""
    parts = parts_of(session, LAST - n, n)
    task = task_of(TODAY, parts, of_a[0][0], 0)
    config, source = source_of(task)
    specs = tuple(parts.fit.spec(name) for name in OUTPUTS)
    _, refitted, _ = fits.linears(task, config, specs, source.scale)
    sums: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in OUTPUTS}
    seconds: dict[str, list[float]] = {}
    for seed, (base, a) in zip(SEEDS, of_a, strict=True):
        for condition, model, cpu_s in networks(base, a, parts, seed):
            seconds.setdefault(condition, []).append(cpu_s)
            for name, each in test_values(model, refitted, parts, source.scale).items():
                sums[name].setdefault(condition, []).append(sums_of(parts, name, each["neds"]))
                sums[name]["ridge"] = [sums_of(parts, name, each["ridge"])]
        say(f"{n} trials, seed {seed}: done")
    return [
        {
            "trials": n, "output": name, "condition": condition, "cpu_s": seconds.get(condition, []),
            "seeds": [float(scores.r2_of_sums(s.sum(0))) for s in found],
            "r2": bootstrap.pooled(found, scores.r2_of_sums),
            "minus_ridge": bootstrap.paired(found, sums[name]["ridge"], scores.r2_of_sums),
            "calibrated_minus": bootstrap.paired(sums[name]["calibrated"], found, scores.r2_of_sums),
        }
        for name in OUTPUTS
        for condition, found in sums[name].items()
    ]  # fmt: skip


def starts(session: Session, recording: Session, of_a: list[tuple[Base, tuple[Source, Any]]]) -> list[dict]:
    """Skill on the selecting part of each way to start, before and after the stage of rows and read-outs."""
    parts, rows = parts_of(session, LAST - STARTS_AT, STARTS_AT), []
    old = sessions.select(recording, slice(0, 120))
    for name in (*STARTS, *row_starts.KINDS):
        skills = []
        for seed, (base, _) in zip(SEEDS, of_a, strict=True):
            keys = {"everything": Everything(0, 1e-3), **STARTS.get(name, {})}
            task = task_of(msgspec.structs.replace(TODAY, **keys), parts, base, seed)
            stages = Stages(task, *source_of(task))
            if name in row_starts.KINDS:
                stages.start = lambda model, k=name, b=base: row_starts.take(model, k, parts.fit, old, b.trunk.model)
            stages.run()
            skills.append([step.skill for step in stages.steps])
        each = np.array([[one[0], one[-1]] for one in skills], float)
        rows.append({"start": name, "seeds": each.tolist(), "before": each[:, 0].mean(), "after": each[:, 1].mean()})
    return rows


def run(trials: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, at these numbers of trials."""
    torch.set_num_threads(1)
    began, whole = time.process_time(), session_file.load(EXAMPLES / "ibl-dy016" / "session.npz")
    recording, session = half(whole, 0), half(whole, 1)
    of_a = []
    for seed in SEEDS:
        base = base_of(recording, seed)
        config, source = source_of(task_of(BASE, parts_of(recording, 0, 120), None, seed))
        of_a.append((base, (source, config)))
        say(f"base of seed {seed}: done")
    rows = [row for n in trials for row in at(n, session, of_a, say)]
    found = starts(session, recording, of_a)
    return {"rows": rows, "starts": found, "cpu_s": time.process_time() - began, "machine": describe()}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Tables in Markdown."""
    yield "| trials | output | calibrated | scratch | random trunk | ridge | minus scratch | minus ridge |"
    yield "| " + " | ".join(["---"] * 8) + " |"
    for n in sorted({row["trials"] for row in found["rows"]}):
        for name in OUTPUTS:
            of = {r["condition"]: r for r in found["rows"] if r["trials"] == n and r["output"] == name}
            each = [f"{of[c]['r2'][0]:.3f}" for c in ("calibrated", "scratch", "random trunk", "ridge")]
            gains = [_said(of["scratch"]["calibrated_minus"]), _said(of["calibrated"]["minus_ridge"])]
            yield f"| {n} | {name} | {' | '.join([*each, *gains])} |"
    yield ""
    yield "| start | skill before | skill after |"
    yield "| --- | --- | --- |"
    for row in found["starts"]:
        yield f"| {row['start']} | {row['before']:.3f} | {row['after']:.3f} |"


def _said(found: Any) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=list(TRIALS), help="to calibrate with")
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    found = run(given.trials, lambda text: print(text, flush=True))
    if given.out:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(found, enc_hook=float), indent=1) + b"\n")
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
