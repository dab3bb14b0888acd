"""The table of degraded sorting holds what the decoders say on those spikes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.metrics import r2_score

from benchmarks.studies import degraded
from neds_core import checkpoint as checkpoints, ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.data import degrade, session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, DataError
from neds_core.linear import baseline
from neds_core.scores import bootstrap
from runtime.cli import commands as cli
from runtime.engines.layout import layout
from runtime.live import offline


def test_an_ensemble_is_decoded_by_all_of_its_networks(
    session: Session, make_checkpoint: Callable[..., Checkpoint]
) -> None:
    """As a run does."""
    both = ensemble.join([replace(make_checkpoint(seed=k), sha=str(k)) for k in range(2)], "both")
    held_out = sessions.split(session).test
    found = degraded.decode(both, held_out)
    for name in degraded.DECODERS:
        log = offline.stream(both, held_out, name)
        expected = log.values[log.decoded_rows(), layout(both).columns["wheel_speed"].start]
        np.testing.assert_allclose(found["wheel_speed"][name], expected, atol=1e-4)


def test_rows_are_scores_of_the_test_part(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command: the ridge's rows equal scikit-learn's R2 of its own outputs on the last 20 % of trials."""
    session_file.save(session, tmp_path / "session.npz")
    made = make_checkpoint()
    checkpoints.save(made, tmp_path / "a.safetensors")

    cli.app(
        ["bench", "degraded", str(tmp_path / "session.npz"), str(tmp_path / "a.safetensors"), "--draws", "2", "--json"],
        standalone_mode=False,
    )

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = result["outputs"]["wheel_speed"]
    parts = sessions.split(session)
    rate = np.concatenate([session.counts[a:b] for a, b in parts.train.segments]).mean(0)
    assert list(rows) == ["intact", *degrade.conditions(rate)]
    bins = parts.test.bins()
    y = session.values["wheel_speed"][bins]
    known = np.isfinite(y) & session.valid[bins]
    for name, worsen in {"intact": lambda one, seed: one, **degrade.conditions(rate)}.items():
        each = []
        for seed in range(2):
            test = replace(worsen(session, seed), segments=parts.test.segments, segment_ids=parts.test.segment_ids)
            value = baseline.predict(made.linear["wheel_speed"], test, made.scalers.kept, "continuous")
            each.append(r2_score(y[known], value[known]))
        assert rows[name]["ridge"]["r2"] == pytest.approx(np.mean(each), abs=1e-6)  # float32 sums
        lost = rows["intact"]["ridge"]["r2"] - rows[name]["ridge"]["r2"]
        assert rows[name]["ridge"]["lost_r2"] == pytest.approx(lost)
        gain = rows[name]["neds_minus_ridge"]
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert rows["units_absent_20"]["ridge"]["r2"] < rows["intact"]["ridge"]["r2"]
    assert "no claim about online-sorted" in result["note"]
    assert result["machine"]["versions"]["numpy"] == np.__version__


def test_a_continuous_recording_is_resampled_by_blocks(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One segment is no sample: its blocks are drawn, here of 0.2 s."""
    monkeypatch.setattr(bootstrap, "RULES", bootstrap.Resampling(block_s=0.2))
    one = replace(session, segments=np.array([[0, session.n_bins]]), segment_ids=np.zeros(1, np.int64))
    session_file.save(one, tmp_path / "session.npz")
    checkpoints.save(make_checkpoint(), tmp_path / "a.safetensors")

    result = degraded.bench(tmp_path / "session.npz", [tmp_path / "a.safetensors"], draws=1)

    gain = result["outputs"]["wheel_speed"]["intact"]["neds_minus_ridge"]
    assert gain["low"] < gain["value"] - 0.01 < gain["value"] + 0.01 < gain["high"]


def test_another_recordings_checkpoint_is_refused(
    session: Session, unbroken: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    """Rows of other units would be degraded in the wrong places."""
    session_file.save(unbroken, tmp_path / "other.npz")
    checkpoints.save(make_checkpoint(), tmp_path / "a.safetensors")

    with pytest.raises(DataError, match="trained on other units"):
        degraded.bench(tmp_path / "other.npz", [tmp_path / "a.safetensors"])


def test_a_checkpoint_without_a_ridge_is_refused(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    """Imported weights have nothing to be compared with."""
    session_file.save(session, tmp_path / "session.npz")
    made, origin = make_checkpoint(), checkpoints.Imported("published.pt", "0" * 64, 1, ("one",), (0,), ())
    header = msgspec.structs.replace(made.header, linear={}, blend={}, imported=origin)
    checkpoints.save(replace(made, header=header, linear={}), tmp_path / "imported.safetensors")

    with pytest.raises(CheckpointError, match="holds no ridge to compare with"):
        degraded.bench(tmp_path / "session.npz", [tmp_path / "imported.safetensors"])
