"""Search of a training configuration: chosen on the validation part, never on the test part; resumable.

The search space is narrow on purpose: learning rate, weight decay, dropouts, mask ratio and the share of
decoding masks, around the values of the configuration at hand (Zhang et al. 2025, App. C, search the first,
the second and the ratio). Every trial is a whole training; its score is the best validation skill, averaged
over seeds. Trials are kept in an SQLite file: the same call goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from msgspec import structs

from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.data import lead, scalers, session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.train import loop
from neds_core.train.sources import Source

if TYPE_CHECKING:
    import optuna  # pyright: ignore[reportMissingImports]


SPACE = {  # key: lowest, highest, whether logarithmic
    "fit.learning_rate": (3e-4, 6e-3, True),
    "fit.weight_decay": (1e-3, 1.0, True),
    "model.dropout": (0.0, 0.5, False),
    "model.unit_dropout": (0.0, 0.6, False),
    "masks.ratio": (0.1, 0.5, False),
    "masks.decoding": (0.5, 5.0, True),
}


def skill(base: TrainConfig, session: Session, values: dict[str, float], seeds: int) -> float:
    """Best validation skill of `base` with the values of SPACE's keys, averaged over seeds 0, 1, ..."""
    for key in SPACE:
        part, name = key.split(".")
        base = structs.replace(base, **{part: structs.replace(getattr(base, part), **{name: values[key]})})
    parts = lead.split(session, base.lead_ms)
    specs = tuple(parts.train.spec(name) for name in base.outputs)
    scale = scalers.fit(parts.train, specs, base.min_rate_hz, base.model.filter_taus_ms)
    source = Source(parts.train, parts.validation, scale)
    fits = (loop.fit(loop.Plan(base, (source,), seed)) for seed in range(seeds))
    return float(np.mean([fit.best_skill for fit in fits]))


def search(
    path: Path,
    trials: int,
    storage: Path,
    seeds: int = 1,
    on_trial: Callable[[int, float, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Run trials until the storage holds `trials` finished ones; the best one's values by key.

    path: training CONFIG.toml of one recording. Raises `ConfigError` where Optuna is missing or the
    storage belongs to another configuration.
    """
    try:
        import optuna  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("Optuna is not installed; install neds-rt with its [tune] extra") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    base = toml.load(path, TrainConfig)
    torch.set_num_threads(base.fit.threads)
    session = session_file.load(path.parent / base.recording)
    study = optuna.create_study(
        study_name="neds-rt",
        direction="maximize",
        storage=f"sqlite:///{storage}",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(),
    )
    text, kept = path.read_text(encoding="utf-8"), study.user_attrs.get("config")
    if kept not in (None, text):
        raise ConfigError(f"{storage} holds a search from another configuration; give another --storage")
    study.set_user_attr("config", text)

    def score(trial: optuna.Trial) -> float:
        values = {key: trial.suggest_float(key, low, high, log=log) for key, (low, high, log) in SPACE.items()}
        return skill(base, session, values, seeds)

    def done() -> int:
        return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))

    while done() < trials:
        study.optimize(score, n_trials=1)
        last = study.trials[-1]
        if on_trial is not None and last.value is not None:
            on_trial(last.number, last.value, last.params)
    return {"validation_skill": study.best_value, **study.best_params}
