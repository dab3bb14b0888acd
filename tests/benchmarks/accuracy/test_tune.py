"""The search of a configuration: chosen on validation, and resumable."""

from __future__ import annotations

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

CONFIG = """
recording = "session.npz"
outputs = ["wheel_speed"]
[model]
width = 16
layers = 1
heads = 2
band = 5
[fit]
steps = 4
batch = 8
window_bins = 20
check_every = 2
threads = 1
"""


def test_a_search_goes_on_where_it_stopped_and_never_reads_the_test_part(session: Session, tmp_path: Path) -> None:
    """Two trials, then two more; the best scores the same on a recording with another last fifth."""
    pytest.importorskip("optuna", reason="needs the [tune] extra")
    path, storage = tmp_path / "c.toml", tmp_path / "c.sqlite"
    path.write_text(CONFIG)
    test = np.arange(session.n_bins) >= 48 * 25
    other = replace(session, counts=np.where(test[:, None], 9, session.counts).astype(np.uint8))
    seen: list[tuple[int, float]] = []

    session_file.save(session, tmp_path / "session.npz")
    tune.search(path, 2, storage, on_trial=lambda n, value, _: seen.append((n, value)))
    best = tune.search(path, 4, storage, on_trial=lambda n, value, _: seen.append((n, value)))

    assert [n for n, _ in seen] == [0, 1, 2, 3]
    assert best["validation_skill"] == max(value for _, value in seen)
    assert tune.search(path, 4, storage) == best
    session_file.save(other, tmp_path / "session.npz")
    assert tune.skill(toml.load(path, TrainConfig), other, best, seeds=1) == best["validation_skill"]
    path.write_text(CONFIG.replace("steps = 4", "steps = 5"))
    with pytest.raises(ConfigError, match="another configuration"):
        tune.search(path, 5, storage)


def test_a_configuration_to_fine_tune_is_refused(session: Session, tmp_path: Path) -> None:
    """Its trials would start afresh, in the stages of fine-tuning."""
    (tmp_path / "c.toml").write_text(CONFIG + '[finetune]\ntrunk = "t.safetensors"')
    values = {key: low for key, (low, _, _) in tune.SPACE.items()}

    with pytest.raises(ConfigError, match="finetune"):
        tune.skill(toml.load(tmp_path / "c.toml", TrainConfig), session, values, seeds=1)
