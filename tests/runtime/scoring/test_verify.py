"""What the engines are told when they are verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import pack as numba_pack
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import Session
from runtime.engines.stream import StreamEngine
from runtime.scoring import verify as verifying

SHIPPED = sorted((Path(__file__).parents[3] / "examples").glob("*/*.safetensors"))


def test_behaviour_is_the_recordings_bin_by_bin(tiny_checkpoint: Checkpoint, session: Session) -> None:
    """In the outputs' order, NaN where nothing is known, and all NaN of one that was not recorded."""
    lacks = replace(
        session, specs=session.specs[:1], values={"wheel_speed": session.values["wheel_speed"]},
        segments=session.segments[4:7], segment_ids=session.segment_ids[4:7],
    )  # fmt: skip
    few = replace(session, segments=lacks.segments, segment_ids=lacks.segment_ids)

    whole, blind = verifying.told(tiny_checkpoint, few), verifying.told(tiny_checkpoint, lacks)

    np.testing.assert_array_equal(whole.bins, np.arange(100, 175))
    np.testing.assert_array_equal(whole.behaviour[:, 0], session.values["wheel_speed"])
    known = session.values["choice"] >= 0
    np.testing.assert_array_equal(whole.behaviour[known, 1], session.values["choice"][known])
    assert np.isnan(whole.behaviour[~known, 1]).all()
    assert np.isnan(blind.behaviour[:, 1]).all()
    assert [t.reset for t in whole.tokens(None)] == [t % 25 == 0 for t in range(75)]


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_checkpoint_is_right_in_every_engine(path: Path) -> None:
    """Over its whole recording: float32 within 1e-5 of the offline reference, compact weights within their bounds."""
    rows, failed = verifying.verify(checkpoints.load(path), sessions.load(path.parent / "session.npz"))

    assert failed == []
    assert len(rows) >= 2
    exact = {name: row for name, row in rows.items() if not name.endswith(("bfloat16", "int8"))}
    assert exact
    assert all(row["max_abs"] <= 1e-5 for row in exact.values())


@pytest.mark.slow
def test_weights_as_large_models_keep_them_are_as_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 in three bytes each, which no shipped checkpoint is large enough for, in every engine that has them."""
    folder = SHIPPED[0].parents[1] / "bci-monkey-20131218"
    checkpoint, session = checkpoints.load(folder / "neds.safetensors"), sessions.load(folder / "session.npz")
    monkeypatch.setattr(numba_pack, "LARGE", 0)
    assert StreamEngine(checkpoint).weights.stack.up.weight.dtype == np.uint8

    rows, failed = verifying.verify(checkpoint, session)

    assert failed == []
    assert sum(row["bound"] == 1e-5 for row in rows.values()) >= 4  # among them decoding, rates, beside behaviour
