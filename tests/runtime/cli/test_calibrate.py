"""`neds-rt calibrate`: its exit codes, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neds_core import checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session

TINY = """
[readouts]
steps = 2
learning_rate = 1e-3
[everything]
steps = 0
learning_rate = 1e-3
[fit]
batch = 4
window_bins = 20
check_every = 2
[linear]
lags = [3]
filter_taus_ms = [[40.0, 200.0]]
penalties = [10.0, 1e3]
folds = 3
"""


@pytest.fixture
def home(session: Session, rig_home: Path, tmp_path: Path) -> Path:
    """A folder with the configuration and a session whose labels are those of other trials."""
    (tmp_path / "calibrate.toml").write_text(TINY, encoding="utf-8")
    order = np.random.default_rng(0).permutation(60)
    values = {name: v.reshape(60, 25)[order].ravel() for name, v in session.values.items()}
    session_file.save(replace(session, values=values), tmp_path / "shuffled.npz")
    return tmp_path


@pytest.mark.parametrize(("of", "code"), [("session.npz", 0), ("shuffled.npz", 3)])
def test_the_exit_code_is_the_gates(
    call: Callable[..., int], home: Path, rig_home: Path, capsys: pytest.CaptureFixture[str], of: str, code: int
) -> None:
    """0 = all judged outputs are offered; 3 = the file is written all the same, and says that it is not."""
    recording = (rig_home if code == 0 else home) / of
    out = home / "today.safetensors"

    found = call(
        "calibrate", "--session", recording, "--from", rig_home / "tiny.safetensors", "--config",
        home / "calibrate.toml", "--out", out, "--json",
    )  # fmt: skip

    text = capsys.readouterr().out
    report = json.loads(text.splitlines()[-1])
    assert found == code, text
    assert report["passed"] == (code == 0)
    assert set(report["offers"]) == {"wheel_speed", "choice"}
    gate = checkpoint.load(out).header.gate
    assert gate is not None
    assert gate.passed == (code == 0)
    assert ("its gate passed" if code == 0 else "stays UNGATED") in text


def test_a_session_that_cannot_be_calibrated_on_is_refused(fails: Callable[..., str], home: Path) -> None:
    """In one sentence, before a process is started and after."""
    out = home / "today.safetensors"

    assert "does not exist" in fails("calibrate", "--session", home / "gone.npz", "--out", out)
    assert "outputs is empty, and there is no base" in fails(
        "calibrate", "--session", home / "shuffled.npz", "--out", out
    )
