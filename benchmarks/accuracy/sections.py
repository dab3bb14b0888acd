"""Parts of a report's page: which units are used, and what was chosen on the validation part."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import figures, report
from benchmarks.accuracy.evaluated import Picture
from neds_core.checkpoint import Checkpoint, Record
from neds_core.checkpoint.judged import Score
from neds_core.data.session import Session
from neds_core.files import beside
from neds_core.linear.linear import Bank
from neds_core.train.log import Line

AT_ONCE = 10_000  # bins that are counted together
MOST = 60  # units that are named for one reason
SAME = 1e-6  # the skill that a log names is that of the checkpoint
MEASURES = {"neds": "NEDS", "ridge": "ridge", "blend": "blend"}


def rates(part: Session) -> np.ndarray:
    """(U,) Hz: spikes in valid bins inside the segments."""
    total, n = np.zeros(len(part.units), np.int64), 0
    for start, stop in part.segments:
        for at in range(start, stop, AT_ONCE):
            rows = slice(at, min(stop, at + AT_ONCE))
            total += part.counts[rows][part.valid[rows]].sum(0, dtype=np.int64)
            n += int(part.valid[rows].sum())
    return total / (max(n, 1) * part.bin_ns * 1e-9)


def units(made: Checkpoint, train: Session | None, shown: Session, name: str) -> Iterator[str]:
    """How many there are, where, how often they fire, and which are left out and why.

    train: what was trained on, None = the recording is another, then rates are of `shown`, the part that is scored;
    name: what to call that.
    """
    kept, rate = made.scalers.kept, rates(train or shown)
    where = name if train is None else "training part"
    yield f"<h2>Units</h2><p>{int(kept.sum())} of {len(kept)} are used. Rates are of the {where}.</p>"
    if rate.any():
        yield pictures([Picture("rates of the units", False, partial(figures.rates, rate[kept], rate[~kept]))])
    least = made.header.config.min_rate_hz
    reasons = {
        "left out: no spike in the training part": ~kept & (rate == 0.0),
        f"left out: below min_rate_hz = {least:g}": ~kept & (rate > 0.0),
    }
    if train is None:
        reasons = {"left out by the training, on another recording": ~kept}
    reasons[f"used, but no spike in the {name}"] = kept & (rates(shown) == 0.0)
    ids = made.units.ids
    found = [(why, str(int(rows.sum())), _named(ids[rows], rate[rows])) for why, rows in reasons.items() if rows.any()]
    yield report.table(("why", "units", "which (Hz)"), found) if found else "<p>None is left out.</p>"
    yield _regions(made.units.region, kept, rate)


def _regions(region: np.ndarray, kept: np.ndarray, rate: np.ndarray) -> str:
    """A row a region, the one with most units first."""
    rows = []
    for name in sorted(np.unique(region), key=lambda name: -int((region == name).sum())):
        used = (region == name) & kept
        median = f"{np.median(rate[used]):.2f}" if used.any() else ""
        rows.append((str(name) or "?", str(int((region == name).sum())), str(int(used.sum())), median))
    return report.table(("region", "units", "used", "median rate of the used (Hz)"), rows)


def _named(ids: np.ndarray, rate: np.ndarray) -> str:
    said = [f"{unit} ({hz:.2g})" if hz else str(unit) for unit, hz in zip(ids[:MOST], rate[:MOST], strict=True)]
    return ", ".join(said) + (f" and {len(ids) - MOST} more" if len(ids) > MOST else "")


def pictures(found: list[Picture]) -> str:
    """The wide ones, then the others two in a row; each in its order."""
    wide = "".join(report.picture(each.png, each.name) for each in found if each.wide)
    others = "".join(f"<div>{report.picture(each.png, each.name)}</div>" for each in found if not each.wide)
    return wide + (f'<div class="two">{others}</div>' if others else "")


def chosen(made: Checkpoint, path: Path) -> Iterator[str]:
    """The step that was kept, the linear decoders, the shares of the blend, and what is recommended."""
    header = made.header
    yield "<h2>Chosen on the validation part</h2>"
    if not header.linear:
        yield "<p>Nothing: this decoder was not trained here.</p>"
        return
    logs = {path.parent / f"{member.name}.jsonl": member.record for member in header.members}
    curves: dict[str, list[tuple[int, float]]] = {}
    said, best, missing = [], {}, []
    most = sum(stage.steps for stage in header.config.stages)
    for log, record in (logs or {beside(path, ".jsonl"): header.record}).items():
        name = f"seed {record.seed}"
        said.append(f"{name}: step {record.best_step} kept, of {most} at most; skill {record.validation_skill:.3f}")
        if curve := learning_curve(log, record):
            curves[name], best[name] = curve, record.best_step
            said[-1] += f"; stopped at step {curve[-1][0]}"
        else:
            missing.append(log.name)
    yield report.text(said)
    if curves:
        yield pictures([Picture("learning curve", False, partial(figures.learning, curves, best))])
    if missing:
        yield f"<p class=soft>No learning curve of {escape(', '.join(missing))}: not there, or of another training.</p>"
    yield _verdicts(made)


def learning_curve(log: Path, record: Record) -> list[tuple[int, float]]:
    """Steps and skills of the training that `record` tells of, from its log; empty where that is not there."""
    try:
        lines = [msgspec.json.decode(line, type=Line) for line in log.read_bytes().splitlines()]
    except (OSError, msgspec.MsgspecError):
        return []
    first = [line for line in lines if lines and line.stage == lines[0].stage]
    points = [(line.step, line.skill) for line in first if line.skill is not None]
    kept = dict(points).get(record.best_step)
    return points if kept is not None and abs(kept - record.validation_skill) < SAME else []


def _verdicts(made: Checkpoint) -> str:
    """A row an output: scores there and what is recommended; and what the linear decoder and the blend take."""
    header = made.header
    scores, reasons = [], []
    for name, verdict in header.verdicts.items():
        each = [_score(verdict.scores.get(decoder)) for decoder in ("neds", "ridge", "blend")]
        scores.append((name, verdict.measure or "not judged", *each, MEASURES[verdict.recommended]))
        reasons.append(f"{name}: {MEASURES[verdict.recommended]} is recommended: {verdict.reason}")
    linear = [
        (name, _bank(of.bank), f"{of.penalty:g}", f"{header.blend[name]:.2f}") for name, of in header.linear.items()
    ]
    return "".join((
        report.table(("output", "score", "NEDS", "ridge", "blend", "recommended"), scores) if scores else "",
        report.text(reasons) if reasons else "",
        report.table(("output", "linear decoder takes", "penalty", "share of NEDS in the blend"), linear),
    ))  # fmt: skip


def _score(found: Score | None) -> str:
    if found is None:
        return ""
    limits = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{limits}"


def _bank(bank: Bank) -> str:
    """What a linear decoder sees of the spikes."""
    of = "square roots of counts" if bank.root else "counts"
    clock = ", the time in the trial" if bank.clock_bins else ""
    if bank.lags:
        return f"{of} of {bank.lags} bin{'s' if bank.lags > 1 else ''}{clock}"
    return f"{of} filtered over {', '.join(f'{tau:g}' for tau in bank.taus_ms)} ms{clock}"
