"""Whether every output of a training can be learned and judged at all: asked before hours go into it."""

from __future__ import annotations

import numpy as np

from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data import scalers
from neds_core.data.checks.session import varies
from neds_core.data.session import BehaviourSpec, Session, Splits
from neds_core.errors import ConfigError, DataError
from neds_core.linear import baseline

REMEDY = "leave it out of outputs, or give a recording in which it does"


def check(config: TrainConfig, parts: Splits) -> None:
    """Refuse a training of one recording whose outputs cannot be judged. Raises `DataError` or `ConfigError`."""
    specs = tuple(parts.train.spec(name) for name in config.outputs)
    for part, name in ((parts.train, "training"), (parts.validation, "validation")):
        check_part(part, specs, name)
        for spec in specs:
            if spec.kind == "class":
                _check_class(part, spec, name)
        longest = int(np.diff(part.segments).max())
        if config.model.attention == "full" and longest > config.model.window_bins:
            raise ConfigError(
                f"recording {part.name!r} has a segment of {longest} bins, longer than the window of full attention "
                f"({config.model.window_bins}); raise model.window_bins, or set attention = 'causal'"
            )
    check_pauses(config, parts.train)
    traces = [spec for spec in specs if spec.kind == "continuous"]
    if traces and not np.all([scalers.known(parts.train, spec) for spec in traces], axis=0).any():
        names = ", ".join(spec.name for spec in traces)
        raise DataError(f"no bin of the training part has {names} known together; train them apart")


def check_part(part: Session, specs: tuple[BehaviourSpec, ...], name: str) -> None:
    """Every output is known in a part, and its traces vary there, so that a score of them is a number."""
    for spec in specs:
        rows = scalers.known(part, spec)
        if spec.kind == "continuous" and not varies(values := part.values[spec.name][rows]):
            raise DataError(
                f"recording {part.name!r}: {spec.name} does not vary in the {name} part ({values[0]:g} throughout); "
                f"{REMEDY}"
            )


def check_pauses(config: TrainConfig | PretrainConfig, train: Session) -> None:
    """A window that goes on from another segment needs two of them. Raises `ConfigError`."""
    if config.masks.pause and (np.diff(train.segments) > 0).sum() < 2:
        raise ConfigError(
            f"masks.pause = {config.masks.pause:g} needs two segments or more, and the training part of recording "
            f"{train.name!r} is one; set it to 0"
        )


def _check_class(part: Session, spec: BehaviourSpec, name: str) -> None:
    """A class is known where it is judged, at the last bin of a trial, and is not the same in all of them."""
    label = part.values[spec.name][part.bins()][baseline.decision_bins(part, part.bins())]
    known = np.unique(label[label >= 0])
    if not len(known):
        raise DataError(
            f"recording {part.name!r}: {spec.name} is not known at the last bin of any trial of the {name} part, "
            "where it is judged; label the trials to their ends, or leave it out of outputs"
        )
    if len(known) == 1:
        raise DataError(
            f"recording {part.name!r}: {spec.name} is {spec.classes[known[0]]!r} in each of the {(label >= 0).sum()} "
            f"labelled trials of the {name} part; {REMEDY.replace('does', 'differs')}"
        )
