"""How a training configuration is chosen: rolling origins inside the first 80 % of a recording.

Train on everything before an origin, score the stretch after it, move on. The last 20 %, the
test part, is never read. Each line of the output is one configuration at one origin and seed,
beside the ridge of the same kind on the same bins. The skill of NEDS is its best over the
early-stopping checks on that stretch, so it ranks configurations; it is no fair comparison with
the ridge, which gets no such pick.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import numpy as np
import torch

from neds_core import config, toml
from neds_core.data import lead, scalers, session_file
from neds_core.data.session import Session, part
from neds_core.linear import baseline
from neds_core.scores import r2 as scores
from neds_core.train import loop
from neds_core.train.sources import Source

ORIGINS = ((0.6, 0.7), (0.7, 0.8))  # shares of the recording: train before, score between


def score(settings: config.TrainConfig, before: Session, after: Session, seed: int) -> dict[str, float | int]:
    """Best validation skill of NEDS and the step it came at; R2 of the ridge on the same bins."""
    specs = tuple(before.spec(name) for name in settings.outputs)
    scale = scalers.fit(before, specs, settings.min_rate_hz, settings.model.filter_taus_ms)
    fit = loop.fit(loop.Plan(settings, (Source(before, after, scale),), seed))
    row: dict[str, float | int] = {"neds_skill": fit.best_skill, "best_step": fit.best_step}
    found = baseline.fit(before, specs, scale, settings.linear, settings.model.clock_bins)
    bins = after.bins()
    ridge = []
    for spec in specs:
        if spec.kind == "continuous" and spec.name in (settings.select or settings.outputs):
            y = after.values[spec.name][bins]
            known = np.isfinite(y)
            value = baseline.predict(found[spec.name], after, scale.kept, spec.kind)
            ridge.append(scores.r2(y[known], value[known]))
    if ridge:
        row["ridge_r2"] = float(np.mean(ridge))
    return row


def main() -> None:
    """Command line of `python -m benchmarks.accuracy.rolling_origins`."""
    parser = argparse.ArgumentParser(description="score training configurations on rolling origins")
    parser.add_argument("config", type=Path, nargs="+", help="training CONFIG.toml")
    parser.add_argument("--seed", type=int, action="append")
    given = parser.parse_args()
    for path in given.config:
        settings = toml.load(path, config.TrainConfig)
        torch.set_num_threads(settings.fit.threads)
        session = session_file.load(path.parent / settings.recording)
        for begin, end in ORIGINS:
            for seed in given.seed or [0]:
                before, after = (
                    lead.ahead(part(session, *cut), settings.lead_ms) for cut in ((0.0, begin), (begin, end))
                )
                row = score(settings, before, after, seed)
                where = {"config": path.name, "origin": begin, "seed": seed}
                print(json.dumps({**where, **msgspec.to_builtins(row)}), flush=True)


if __name__ == "__main__":
    main()
