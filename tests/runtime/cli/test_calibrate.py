"""`neds-rt calibrate`: its exit codes, and what it prints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from calibration import command, process, update
from neds_core import checkpoint
from neds_core.checkpoint.judged import Score
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.io import nwb
from runtime import config as rigs
from runtime.cli import calibrate
from runtime.core import timeline
from runtime.io.block_file import MAGIC, packed
from runtime.io.control import Answer, Control, Request, Running, State, Swap
from tests.calibration.rigs import collected

BROUGHT = Path(__file__).parents[3] / "examples" / "bci-monkey-20131218" / "online-decoder-block1.safetensors"
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
    call: Callable[..., int], home: Path, rig_home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], of: str, code: int,
) -> None:  # fmt: skip
    """0 = all judged outputs are offered; 3 = the file is written all the same, and says that it is not.

    In this process: tests/calibration/test_command.py has the child.
    """
    recording = (rig_home if code == 0 else home) / of
    monkeypatch.setattr(process, "run", command.run)
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
    said = fails("calibrate", "--session", home / "gone.npz", "--out", out)
    assert "gone.npz does not exist; check the path of --session" in said
    said = fails("calibrate", "--session", home / "shuffled.nwb", "--from", BROUGHT, "--out", out)
    assert "is a decoder that was brought, so it has no network to start from" in said


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
        (("--session", "s.npz", "--resume"), "--resume is for a collection; leave it out"),
        (("rig.toml", "--trials", 40, "--update", "--resume"), "--resume is for data of another day"),
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


def test_a_finished_collection_of_another_day_or_rig_is_not_fitted_again(
    fails: Callable[..., str], make_rig: Callable[..., Path], session: Session, rig_home: Path, tmp_path: Path
) -> None:
    """It holds enough, so no stream says that it is another one's."""
    rig = make_rig(input='spikes = "x"\nmarkers = "y"\nbehaviours = {wheel_speed = "z"}')
    config, day_ns = msgspec.to_builtins(rigs.load(rig)), 24 * 3600 * 10**9
    log = collected(session, rig="test", config=config, utc_ns=time.time_ns() - day_ns)
    (tmp_path / "today-session").mkdir()
    (tmp_path / "today-session" / "run-001.blocks").write_bytes(MAGIC + packed(log))
    asked = ("--from", rig_home / "tiny.safetensors", "--trials", 40, "--out", tmp_path / "today.safetensors")

    said = fails("calibrate", rig, *asked)
    assert "today-session holds a collection whose newest data are 24.0 h old; name another with --out, or" in said
    rig.write_text(rig.read_text().replace('rig = "test"', 'rig = "left"'))
    said = fails("calibrate", rig, *asked, "--resume")
    assert said.endswith("holds a collection of rig 'test', this one is 'left'; name another with --out")


class Proposed:
    """What an update reports."""

    def __init__(self, *limits: float) -> None:
        self.offers = {"wheel_speed": None}
        self.compared = {"wheel_speed": update.Compared("R2", 5, 0.5, 0.6, Score(0.1, *limits))}


@pytest.mark.parametrize(
    ("found", "code"),
    [(Proposed(0.0, 0.2), 0), (Proposed(-0.2, -0.1), 3), (Proposed(), 3)],
    ids=["no worse", "worse", "no interval"],
)
def test_yes_swaps_only_what_is_known_not_to_be_worse(rig_home: Path, found: Proposed, code: int) -> None:
    """And only in place of what it is an update of."""
    asked, says = list[Request](), [Running("r", "neds", "m", "a" * 64, 7, "", True, 0, "", 0, "c")]

    def answer(request: Request) -> Answer:
        asked.append(request)
        return Answer(True, "done", running=says[0])

    given = calibrate.Options(rig=Path("rig.toml"), out=rig_home / "tiny.safetensors", update=True, yes=True)
    was = update.Running(Path("r"), "m", "a" * 64, "neds")
    with Control(0) as control:
        control.serve(answer, lambda: None)
        assert calibrate.propose(given, found, control.address, was) == code
        assert [each.expect for each in asked if isinstance(each, Swap)] == ([was.sha] if code == 0 else [])
        asked.clear()
        says[0] = msgspec.structs.replace(says[0], model="n", model_sha="b" * 64)
        with pytest.raises(ConfigError, match=r"decodes with n \(bbbbbbbbbbbb\) by now, .*nothing is swapped"):
            calibrate.propose(given, found, control.address, was)
        assert asked == [State()]
