"""Scores pooled over training seeds, with intervals paired by trial."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.data import lead
from neds_core.data.session import BehaviourSpec
from neds_core.errors import DataError
from neds_core.scores import bootstrap, r2 as scores
from runtime.core.engine import BROUGHT, DECODERS
from runtime.engines.layout import layout
from runtime.scoring import score as scoring
from runtime.scoring.score import Row
from runtime.scoring.truth import Truth


@dataclass(frozen=True, slots=True)
class SeedScores:
    """One checkpoint's decoded test part, ready to be pooled over training seeds. bins (n,): of the recording, where
    that is known."""

    checkpoint: Checkpoint
    found: dict[str, np.ndarray]
    truth: Truth
    segment: np.ndarray
    outputs: Row
    exact: float | None
    bins: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def scalars(self) -> dict[str, dict[str, float]]:
        """The plain numbers of each output, for a checkpoint's header."""
        found: dict[str, dict[str, float]] = {}
        for name, row in self.outputs.items():
            rows = {f"{name}.{k}": v for k, v in row.get("contrasts", {}).items()} or {name: row}
            for label, numbers in rows.items():
                plain = {k: float(v) for k, v in numbers.items() if isinstance(v, int | float)}
                found[label] = {k: v for k, v in plain.items() if np.isfinite(v)}
        return found


def pool(seeds: list[SeedScores]) -> Row:
    """Rows over training seeds: R2 of each decoder and seed, and paired gains over ridge with intervals."""
    first = seeds[0]
    headers = [s.checkpoint.header for s in seeds]
    if any(h.specs != headers[0].specs or h.config.model != headers[0].config.model for h in headers):
        raise DataError("these checkpoints are of different kinds (outputs or clock); evaluate each kind by itself")
    bin_ns = first.checkpoint.header.bin_ns
    plan = layout(first.checkpoint)
    trial = bootstrap.RULES.groups(first.segment, bin_ns)
    traces: Row = {}
    for spec in plan.specs:
        if any("mean_r2" not in s.outputs[spec.name] for s in seeds):  # a class, or not scored
            continue
        y = first.truth.traces[spec.name]
        known, column = np.isfinite(y), plan.columns[spec.name].start
        if BROUGHT in first.found:
            traces[spec.name] = _brought(spec, seeds)
            continue
        values = {n: [s.found[n][known, column].astype(np.float64) for s in seeds] for n in DECODERS}
        ridge = values["ridge"][0]
        reference = first.outputs[spec.name]
        row: Row = {name: [scores.r2(y[known], v) for v in per_seed] for name, per_seed in values.items()}
        row["ridge"] = scores.r2(y[known], ridge)
        verdicts = [s.checkpoint.header.verdicts.get(spec.name) for s in seeds]
        row["recommended"] = [verdict.recommended for verdict in verdicts if verdict]
        row["sd"] = [found for s in seeds if (found := s.outputs[spec.name].get("sd"))]
        row |= {"lead_ms": spec.lead_ms} if spec.lead_ms else {}
        row["trial_average"] = reference["mean_r2"]
        row["about_trial_average"] = [s.outputs[spec.name]["neds_r2_about_mean_trial"] for s in seeds]
        row["ridge_about_trial_average"] = reference["ridge_r2_about_mean_trial"]
        for name in ("neds", "blend"):
            row[f"{name}_minus_ridge"] = scoring.gain(y[known], values[name], ridge, trial[known])
            row[f"{name}_ci95"] = [scoring.interval(y[known], v, trial[known]) for v in values[name]]
        row["ridge_ci95"] = scoring.interval(y[known], ridge, trial[known])
        traces[spec.name] = row
    other = {n: [s.outputs[n] for s in seeds] for n in first.outputs if n not in traces}
    exact = [s.exact for s in seeds if s.exact is not None]
    found = {"traces": traces, "other": other, "ahead": list(lead.lines(plan.specs))}
    return found | {"streamed_vs_offline_max_abs": max(exact) if exact else None}


def _brought(spec: BehaviourSpec, seeds: list[SeedScores]) -> Row:
    """A decoder that was brought: R2 and the largest error, as it was streamed. It has nothing beside it."""
    each = [s.outputs[spec.name] for s in seeds]
    return {BROUGHT: [row["r2"] for row in each], "ci95": [row["ci95"] for row in each], "unit": spec.unit,
            "max_abs_error": [row["max_abs_error"] for row in each], "n": [row["n"] for row in each]}  # fmt: skip
