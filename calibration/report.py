"""The report of a calibration: one value, as JSON or as lines of text. Pages and figures are made of it alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from calibration import insight, update
from calibration.fitting.fit import Fitted, Step
from calibration.insight import Contribution, Learning
from calibration.judge import Judgement, Reliability
from calibration.update import Compared
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Offer, Score
from neds_core.data.parts import LEAST
from neds_core.data.session import Session
from neds_core.scores import judging
from runtime.core.values import Token
from runtime.engines import create, prepare

LATENCY_STEPS = 1000
ORDER = ("constant", "ridge", "neds", "blend")
SHOWN = 600  # bins of a trace that are kept
TOP = 20  # units of an output that are shown


class Latency(Struct, frozen=True):
    """Time of one step of the engine here, unpaced, over so many steps."""

    engine: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    steps: int


class Part(Struct, frozen=True):
    """A part of the session."""

    segments: int
    bins: int
    seconds: float


class LagCurve(Struct, frozen=True):
    """R2 of a trace moved against the spikes, on the fitting part; best_ms 0 = in step, or nothing can be told."""

    lag_ms: list[float]
    r2: list[float | None]
    best_ms: float


class Trace(Struct, frozen=True):
    """The first bins of the judging part: what was measured (None = not known), and what is offered, in `unit`.

    segment: of each bin, counted from 0; half: half width of a 95 % interval, by the errors on the selecting part.
    """

    decoder: str
    unit: str
    bin_ms: float
    segment: list[int]
    measured: list[float | None]
    value: list[float]
    half: float | None


class Report(Struct, frozen=True):
    """All that a calibration measured.

    units, units_kept: of the session, those at or above min_rate_hz; rows_kept: units that kept their rows of the base;
    not_judged: outputs with inferred labels; blend: share of NEDS. seconds: wall time, all in all. compared: with the
    decoder that it is an update of, None = of none. page_unwritten: why there is no page beside it, '' = there is.
    """

    session: str
    base: str
    checkpoint: str
    checkpoint_sha: str
    passed: bool
    units: int
    units_kept: int
    rows_kept: int
    parts: dict[str, Part]
    stages: tuple[Step, ...]
    offers: dict[str, Offer]
    not_judged: list[str]
    blend: dict[str, float]
    reliability: dict[str, Reliability]
    lags: dict[str, LagCurve]
    traces: dict[str, Trace]
    learning: dict[str, Learning]
    contributions: dict[str, Contribution]
    latency: Latency
    report_seconds: float  # of it, for learning curves and contributions
    seconds: float
    compared: dict[str, Compared] | None = None
    page_unwritten: str = ""


def latency(made: Checkpoint, part: Session, steps: int = LATENCY_STEPS) -> Latency:
    """Time the engine of what is recommended on the counts of a part, after its warm-up."""
    engine = create.create(made, "recommended")
    prepare.warm_up(engine, len(made.units))
    bins, clock, took = part.bins(), part.clock(), np.zeros(steps)
    counts = part.counts[bins].astype(np.uint16)
    for i in range(steps):
        k = i % len(bins)
        t = int(bins[k])
        if clock[t] == 0 or k == 0:
            engine.reset()
        token = Token(i, 0, counts[k], valid=bool(part.valid[t]), clock=int(clock[t]))
        begin = time.perf_counter_ns()
        engine.step(token)
        took[i] = (time.perf_counter_ns() - begin) * 1e-6
    p50, p99 = np.percentile(took, [50, 99])
    return Latency(engine.name, float(p50), float(p99), float(took.max()), steps)


def make(fitted: Fitted, judgement: Judgement, base: str, began: float) -> Report:
    """The report before its checkpoint is written; began: `time.monotonic()` of the start."""
    made, parts = judgement.made, fitted.parts
    named = {"fit": parts.fit, "select": parts.select, "judge": parts.judge}
    start = time.monotonic()
    learning = insight.learning(fitted, parts, list(judgement.offers))
    contributions = insight.units(fitted, parts.select, judgement.offers)
    took = time.monotonic() - start
    words = {offer.word for offer in judgement.offers.values()}
    return Report(
        session=parts.fit.name,
        base=base,
        checkpoint=made.header.name,
        checkpoint_sha=made.sha,
        passed=bool(words) and words <= {"PASS", "RIDGE"},
        units=len(made.units),
        units_kept=int(made.scalers.kept.sum()),
        rows_kept=fitted.units_kept,
        parts={k: Part(len(p.segments), len(p.bins()), len(p.bins()) * p.bin_ns * 1e-9) for k, p in named.items()},
        stages=fitted.steps,
        offers=judgement.offers,
        not_judged=[spec.name for spec in made.specs if spec.name not in judgement.offers],
        blend=made.header.blend,
        reliability=judgement.reliability,
        lags={
            name: LagCurve(
                lag.lag_ms.tolist(), [float(v) if np.isfinite(v) else None for v in lag.r2], lag.best_ms
            )
            for name, lag in fitted.lags.items()
        },
        traces=dict(traces(judgement)),
        learning=learning,
        contributions=contributions,
        latency=latency(made, parts.fit),
        report_seconds=took,
        seconds=time.monotonic() - began,
    )  # fmt: skip


def traces(judgement: Judgement) -> Iterator[tuple[str, Trace]]:
    """What is offered of each trace beside what was measured, by output."""
    made, said = judgement.made, judgement.said
    for spec in (s for s in made.specs if s.kind == "continuous" and s.name in judgement.offers):
        decoder = judgement.offers[spec.name].decoder
        value = judging.values(said, spec.name, judging.shares_of(made, spec.name))[decoder][:SHOWN]
        spread = made.header.verdicts[spec.name].spread.get(decoder)
        measured = [float(v) if np.isfinite(v) else None for v in said.target[spec.name][:SHOWN]]
        segment = (said.segment[:SHOWN] - said.segment[0]).tolist()
        half = None if spread is None else 1.96 * spread.constant
        yield (
            spec.name, Trace(decoder, spec.unit, made.header.bin_ns * 1e-6, segment, measured, value.tolist(), half),
        )  # fmt: skip


def top(of: Contribution) -> list[int]:
    """Rows of the tested units that matter most to what is offered: the most that it loses first."""
    known = {k: drop for k, drop in enumerate(of.drops[1]) if drop is not None}
    return sorted(known, key=lambda k: -known[k])[:TOP]


def sure(of: Contribution) -> list[int]:
    """Rows of the units whose drop is above noise, the most first; none where the whole decoder is not."""
    _, drops, lows = of.drops
    if of.whole_low is None or of.whole_low <= 0:
        return []
    known = {k: drops[k] or 0.0 for k, low in enumerate(lows) if low is not None and low > 0}
    return sorted(known, key=lambda k: -known[k])


def _units(name: str, of: Contribution) -> str:
    """A line on what units carry."""
    decoder, drops, lows = of.drops
    tested = sum(drop is not None for drop in drops)
    begins = f"{name}: units that {decoder} loses most without, on select ({of.measure} {of.whole:.3f} of {of.decoder})"
    if of.whole_low is None or of.whole_low <= 0:
        return f"{begins}: not above noise, for {of.decoder} is not surely above the constant there"
    rows = sure(of)
    each = ", ".join(f"{of.ids[k]} {drops[k]:+.3f} (at least {lows[k]:+.3f})" for k in rows[:5])
    if not rows:
        return f"{begins}: of {tested} tested none is above noise"
    return f"{begins}, {len(rows)} of {tested} tested above noise (by chance about {0.025 * tested:.0f}): {each}"


def lines(found: Report) -> Iterator[str]:
    """As text."""
    yield f"session {found.session}, base {found.base or 'none'}: {found.units_kept} of {found.units} units used"
    if found.rows_kept:
        yield f"rows of the base kept: {found.rows_kept} units"
    yield "parts: " + ", ".join(f"{k} {p.segments} segments ({p.seconds:.0f} s)" for k, p in found.parts.items())
    yield "stage                      seconds  skill on select"
    for stage in found.stages:
        of = f"  best step {stage.best_step} of {stage.steps}" if stage.steps else ""
        skill = f"{stage.skill:.3f}" if stage.skill is not None else "-"
        yield f"{stage.name:26} {stage.seconds:7.1f}  {skill:>6}{of}"
    trials = found.parts["judge"].segments >= LEAST
    for name, offer in found.offers.items():
        yield f"{name}: {_word(offer, 'TRIALS' if trials else 'BLOCKS OF 10 S')}"
        if offer.scores:
            each = [f"{k} {score(offer.scores[k])}" for k in ORDER if k in offer.scores]
            yield f"  {offer.measure} of {offer.n} judging segments or blocks: {', '.join(each)}"
        yield f"  {offer.reason}"
    for name in found.not_judged:
        yield f"{name}: not judged, its labels are inferred"
    for name, of in found.reliability.items():
        temperature = ", ".join(f"{k} {t:.2f}" for k, t in of.temperature.items())
        yield (
            f"{name}: calibration error {of.error:.3f}, {of.error_before:.3f} without temperatures ({of.bins} bins, "
            f"{of.n} trials); temperature {temperature}"
        )
    for name, of in found.learning.items():
        each = ", ".join(f"{n} {score(s) if s else 'too few'}" for n, s in zip(of.trials, of.linear, strict=True))
        yield f"{name}: {of.measure} of the linear decoder on select, by trials that fitted it: {each}"
    for name, of in found.contributions.items():
        yield _units(name, of)
    step = found.latency
    yield f"one step here ({step.engine}): p50 {step.p50_ms:.2f} ms, p99 {step.p99_ms:.2f} ms, max {step.max_ms:.2f} ms"
    if found.compared is not None:
        yield from update.lines(found.compared)
    ending = "passed: every judged output may be published" if found.passed else "not passed: see the outputs above"
    yield f"gate {ending} ({found.seconds:.0f} s)"


def _word(offer: Offer, what: str) -> str:
    if offer.word == "NEED":
        return f"NEED {offer.n_more} MORE {what}"
    return f"{offer.word}, offered {offer.decoder}" if offer.word in ("PASS", "RIDGE") else offer.word


def score(of: Score) -> str:
    """A score with its interval."""
    limits = "" if of.low is None or of.high is None else f" [{of.low:.3f}, {of.high:.3f}]"
    return f"{of.value:.3f}{limits}"
