"""`neds-rt calibrate`: its exit codes, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neds_core import checkpoint
from neds_core.data.session import Session
from neds_core.io import nwb
from runtime.core import timeline

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


@pytest.fixture(scope="module")
def home(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration and a session whose labels are those of other trials."""
    tmp_path = tmp_path_factory.mktemp("calibrate")
    (tmp_path / "calibrate.toml").write_text(TINY, encoding="utf-8")
    order = np.random.default_rng(0).permutation(60)
    values = {name: v.reshape(60, 25)[order].ravel() for name, v in session.values.items()}
    shuffled = replace(session, values=values, events=timeline.spread(session.counts, session.bin_ns, 0))
    nwb.save(shuffled, tmp_path / "shuffled.nwb", nwb.Origin(0, nwb.Subject(), {}, {}))
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of pynwb's libraries
@pytest.mark.parametrize(("of", "code"), [("session.npz", 0), ("shuffled.nwb", 3)])
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


def test_a_session_that_cannot_be_calibrated_on_is_refused(
    fails: Callable[..., str], home: Path, rig_home: Path
) -> None:
    """In one sentence, before a process is started and after."""
    out, base = home / "today.safetensors", rig_home / "tiny.safetensors"

    said = fails("calibrate", "--session", home / "gone.npz", "--from", base, "--out", out)
    assert "does not exist" in said
    said = fails("calibrate", "--session", home / "shuffled.nwb", "--out", out)
    assert "outputs is empty, and there is no base" in said


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((), "neither a RIG.toml nor --session given"),
        (("rig.toml", "--session", "s.npz", "--trials", 40), "a RIG.toml and --session given"),
        (("rig.toml",), "nothing says when enough has come; give --trials N or --minutes M"),
        (("--session", "s.npz", "--trials", 40), "--trials is for a collection; leave it out"),
        (("--session", "s.npz", "--allow-replay"), "--allow-replay is for a collection"),
        (("rig.toml", "--trials", 40), "outputs is empty, and there is no base"),
        (("rig.toml", "--trials", 40, "--config", "calibrate.toml"), "outputs is empty, and there is no base"),
        (("rig.toml", "--trials", 40, "--from", "gone.safetensors"), "gone.safetensors"),
        (("rig.toml", "--trials", 40, "--yes"), "--yes is for an update; give --update too"),
        (("--session", "s.npz", "--update"), "--update collects from a rig whose run decodes"),
        (
            ("rig.toml", "--trials", 40, "--update", "--from", "x"),
            "--update starts from what the rig's run",
        ),
        (("rig.toml", "--trials", 40, "--out", "shuffled.nwb"), "exists and is no checkpoint"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anybody_waits_for_a_rig(
    fails: Callable[..., str], home: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[object, ...], why: str
) -> None:
    """Without a stream, a folder or a process."""
    monkeypatch.chdir(home)
    out = () if "--out" in given else ("--out", "today.safetensors")
    assert why in fails("calibrate", *given, *out)
