"""The search of a configuration: chosen on validation, and resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import tune
from neds_core import toml
from neds_core.config import TrainConfig
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError


def test_a_search_goes_on_where_it_stopped_and_never_reads_the_test_part(
    prepared: Callable[..., Path], session: Session, tmp_path: Path
) -> None:
    """Two trials, then two more; the best scores the same on a recording with another last fifth."""
    pytest.importorskip("optuna", reason="needs the [tune] extra")
    path, storage = prepared(outputs=("wheel_speed",), steps=4), tmp_path / "c.sqlite"
    test = np.arange(session.n_bins) >= 48 * 25
    other = replace(session, counts=np.where(test[:, None], 9, session.counts).astype(np.uint8))
    seen: list[tuple[int, float]] = []

    tune.search(path, 2, storage, on_trial=lambda n, value, _: seen.append((n, value)))
    best = tune.search(path, 4, storage, on_trial=lambda n, value, _: seen.append((n, value)))

    assert [n for n, _ in seen] == [0, 1, 2, 3]
    assert best["validation_skill"] == max(value for _, value in seen)
    assert tune.search(path, 4, storage) == best
    session_file.save(other, tmp_path / "session.npz")
    assert tune.skill(toml.load(path, TrainConfig), other, best, seeds=1) == best["validation_skill"]
    path.write_text(path.read_text().replace("steps = 4", "steps = 5"))
    with pytest.raises(ConfigError, match="another configuration"):
        tune.search(path, 5, storage)


def test_a_configuration_to_fine_tune_is_refused(prepared: Callable[..., Path], session: Session) -> None:
    """Its trials would start afresh, in the stages of fine-tuning."""
    path = prepared(outputs=("wheel_speed",))
    path.write_text(path.read_text() + '[finetune]\ntrunk = "t.safetensors"')
    values = {key: low for key, (low, _, _) in tune.SPACE.items()}

    with pytest.raises(ConfigError, match="finetune"):
        tune.skill(toml.load(path, TrainConfig), session, values, seeds=1)
