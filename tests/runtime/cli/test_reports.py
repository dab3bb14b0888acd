"""The report of `neds-rt train` and `evaluate`: what the page says, what it may not, and where it cannot be written."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html import escape, unescape
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from matplotlib import image

from benchmarks.accuracy import reported
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions, session_file
from neds_core.data.session import BehaviourSpec, Session
from runtime.start import called

Call = Callable[..., int]
EXTERNAL = re.compile(r"""(src|href)\s*=|url\(|@import|https?://[^\s<]*["')]""")


@pytest.fixture
def walk(unbroken: Session) -> Session:
    """60 s unbroken: units that know where an animal is on a circle, and where its head points; the last is silent."""
    rng, n = np.random.default_rng(4), 3000
    turn = np.cumsum(rng.normal(0.0, 0.06, n)) + np.arange(n) * 0.02
    values = {
        "x": 50 * np.cos(turn),
        "y": 50 * np.sin(turn),
        "head_cos": np.cos(2 * turn),
        "head_sin": np.sin(2 * turn),
    }
    rate = np.exp(np.stack([np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)], 1))
    counts = np.c_[rng.poisson(0.4 * rate), np.zeros(n)].astype(np.uint8)
    specs = (
        *(BehaviourSpec(name, "continuous", "cm", group="place") for name in ("x", "y")),
        *(BehaviourSpec(f"head_{side}", "continuous", group="head", angle=side) for side in ("cos", "sin")),
    )
    return replace(
        unbroken, name="walk", counts=counts, valid=np.ones(n, bool), specs=specs, events=None,
        values={name: v.astype(np.float32) for name, v in values.items()}, segments=np.array([[0, n]], np.int64),
    )  # fmt: skip


def pictures(page: str) -> dict[str, np.ndarray]:
    """Name -> pixels of every picture of a page that loads nothing."""
    found = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', page)
    rest = re.sub(r'<img alt="[^"]+" src="data:image/png;base64,[^"]+">', "", page)
    assert "<img" not in rest
    assert not EXTERNAL.search(re.sub(r"<pre>.*?</pre>", "", rest, flags=re.DOTALL))
    return {unescape(name): image.imread(BytesIO(base64.b64decode(data))) for name, data in found}


@pytest.mark.parametrize("made", [("joined",), ("a b", "c"), ()], ids=["one", "several", "stopped"])
def test_a_training_ends_with_what_comes_next(
    call: Call, prepared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, made: tuple[str, ...],
) -> None:  # fmt: skip
    """One command, of the checkpoints that it returns alone: of an ensemble the joined one; none where it stopped."""
    monkeypatch.setattr("neds_core.train.command.train", lambda *_: tuple(map(Path, made)))
    assert call("train", prepared(), "--no-report") == 0
    following = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next:")]
    command = f"next: {called('neds-rt')} evaluate {tmp_path / 'session.npz'} {shlex.join(made)}"
    assert following == ([command] if made else [])


def test_a_training_leaves_a_page(
    call: Call, prepared: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it printed, the units that it left out, the learning curve, and the commands that come next."""
    path = prepared(steps=9)

    assert call("train", path) == 0

    checkpoint, out = tmp_path / "train.safetensors", tmp_path / "train.report.html"
    printed = capsys.readouterr().out.splitlines()
    session = tmp_path / "session.npz"
    assert printed[-2:] == [
        f"report of {checkpoint}: {out}", f"next: {called('neds-rt')} evaluate {session} {checkpoint}"
    ]  # fmt: skip
    page = out.read_text()
    found = pictures(page)
    assert set(found) == {"rates of the units", "learning curve", "wheel_speed-traces", "choice-confusion"}
    assert all(pixels[..., :3].std() > 0.03 for pixels in found.values())
    header = checkpoints.load(checkpoint).header
    for verdict in header.verdicts.values():
        for score in verdict.scores.values():
            assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in page
        assert escape(f" is recommended: {verdict.reason}") in page
    assert "11 of 12 are used" in page
    assert re.search(r"left out: below min_rate_hz = 0.05</td><td[^>]*>1</td><td[^>]*>80 \(0.0", page)  # unit 80
    assert f"step {header.record.best_step} kept, of 9 at most; skill {header.record.validation_skill:.3f}" in page
    assert "looks that the checkpoint records: 0" in page
    for command in (f"evaluate {tmp_path / 'session.npz'} {checkpoint}", "check ", "run ", "init "):
        assert escape(f"neds-rt {command}") in page
    assert escape(f'checkpoint = "{checkpoint}"', quote=True) in page


def test_a_training_page_is_the_same_whatever_the_test_part_holds(
    call: Call, prepared: Callable[..., Path], session: Session, tmp_path: Path
) -> None:
    """Behaviour and spikes of the last 20 % are others on disk after the training: not a byte of the page moves."""
    path = prepared()
    assert call("train", path, "--no-report") == 0
    assert not list(tmp_path.glob("*.html"))
    recording, checkpoint = tmp_path / "session.npz", tmp_path / "train.safetensors"
    before = reported.training(checkpoint, recording)
    rng, bins = np.random.default_rng(0), sessions.split(session).test.bins()
    counts, values = session.counts.copy(), {name: v.copy() for name, v in session.values.items()}
    counts[bins] = 3 * rng.permuted(counts[bins], axis=0)  # the number of spikes is another, too
    values["wheel_speed"][bins], values["choice"][bins] = rng.normal(size=len(bins)), rng.integers(0, 2, len(bins))
    session_file.save(replace(session, counts=counts, values=values), recording)

    assert reported.training(checkpoint, recording) == before

    values["wheel_speed"][sessions.split(session).train.bins()[:5]] += 100.0
    session_file.save(replace(session, counts=counts, values=values), recording)
    assert reported.training(checkpoint, recording) != before  # the page does read what it may


def test_an_unbroken_recording_has_its_track_and_its_angle(
    call: Call, prepared: Callable[..., Path], walk: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the validation part after training, of the held-out part after evaluate; numbers as they are printed."""
    assert call("train", prepared(walk, ("x", "y", "head_cos", "head_sin"))) == 0
    checkpoint, out = tmp_path / "train.safetensors", tmp_path / "train.report.html"
    drawn = {"place-track", "head-traces", "x-traces", "y-traces", "rates of the units", "learning curve"}
    page = out.read_text()
    assert set(pictures(page)) == drawn
    assert "left out: no spike in the training part" in page
    capsys.readouterr()

    assert call("evaluate", tmp_path / "session.npz", checkpoint, "--json") == 0

    found = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert found["report"] == str(out)
    page = out.read_text()
    assert drawn < set(pictures(page))
    for name, row in found["traces"].items():
        for value in (row["neds"][0], row["ridge"], row["blend"][0]):
            assert f"<td>{name}</td><td>R2</td>" in page
            assert f'<td class="n">{value:.3f}</td>' in page
    for group in ("place", "head"):
        (row,) = found["other"][group]
        for decoder in ("neds", "ridge", "blend"):
            assert f'<td class="n">{row[f"{decoder}_median_error_all"]:.1f}</td>' in page
    assert "median error, moving (over 25 cm/s): " in page
    assert "mean of training -" in page  # as printed, too
    assert "too short for intervals" in page
    assert "trial average" not in page
    assert "too few trials<" not in page
    assert escape(f"neds-rt run {tmp_path / 'rig' / 'rig.toml'} --play") in page
    assert "neds-rt certify" in page


def test_every_printed_line_is_on_the_page(
    call: Call, rig_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two checkpoints; both are named by their hash, and the page lies where it was asked for."""
    out, files = tmp_path / "other.html", (rig_home / "session.npz", rig_home / "tiny.safetensors")

    assert call("evaluate", *files, "--report", out, "--split", "all") == 0

    printed, page = capsys.readouterr().out.splitlines(), out.read_text()
    assert printed[-1] == f"report of {files[1]}: {out}"
    assert all(escape(line) in page for line in printed[:-1])
    assert checkpoints.load(files[1]).sha in page
    assert re.search(r"left out by the training, on another recording</td><td[^>]*>1</td><td[^>]*>80 ", page)
    assert set(pictures(page)) >= {"wheel_speed-traces", "choice-confusion"}


def test_a_rig_that_lies_beside_is_named(
    call: Call, make_rig: Callable[..., Path], tiny_checkpoint: Checkpoint, session: Session, tmp_path: Path
) -> None:
    """As a command takes it; where it runs another decoder, that is said."""
    path, recording = tmp_path / "tiny.safetensors", tmp_path / "session.npz"
    checkpoints.save(tiny_checkpoint, path)
    session_file.save(session, recording)
    for checkpoint, said in ((path, False), (None, True)):
        rig = make_rig(checkpoint=checkpoint)
        page = reported.training(path, recording)
        assert f"neds-rt check {rig}" in page
        assert ("which names another decoder" in page) == said
        assert "neds-rt init" not in page


def test_scores_and_checkpoint_outlive_a_report_that_cannot_be_written(
    call: Call, prepared: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in the way of the file that becomes the page: a sentence at the end, and exit code 2 if it was asked."""
    path, checkpoint, page = prepared(), tmp_path / "train.safetensors", tmp_path / "train.report.html"
    (tmp_path / "train.report.html.partial").mkdir()

    assert call("train", path) == 0

    out, err = capsys.readouterr()
    assert f"{checkpoint}: done; " in out
    assert "report of" not in out
    sentence = err.splitlines()[-1].removeprefix("no report is written: ")
    assert sentence.startswith(f"{page} cannot be written (")
    assert sentence.endswith("with --report, or give --no-report")
    assert checkpoints.load(checkpoint).header.record.best_step
    assert call("train", path, "--report", page) == 2
    assert capsys.readouterr().err.endswith(f"neds-rt: {sentence}\n")
    for words, rc in (((), 0), (("--json",), 0), (("--report", page), 2), (("--json", "--report", page), 2)):
        assert call("evaluate", tmp_path / "session.npz", checkpoint, *words) == rc
        out, err = capsys.readouterr()
        if "--json" in words:
            found = msgspec.json.decode(out)
            assert found["traces"]["wheel_speed"]
            assert found["report"] is None
        assert "neds minus ridge" in out or "--json" in words
        assert "report of" not in out
        assert err == f"{'neds-rt' if rc else 'no report is written'}: {sentence}\n"
    (tmp_path / "train.report.html.partial").rmdir()
    assert call("train", path) == 0  # what is done is not trained again, and has its report
    assert "done before from the same" in capsys.readouterr().out
    assert page.is_file()
    page.write_text("<p>my own</p>")
    assert call("train", path) == 0
    assert "no report is written" in (said := capsys.readouterr()).err
    assert "exists and is no report of neds-rt; name another" in said.err
    assert page.read_text() == "<p>my own</p>"


def test_a_report_that_may_not_be_is_refused_first(
    fails: Callable[..., str], rig_home: Path, prepared: Callable[..., Path], tmp_path: Path
) -> None:
    """Before anything is trained or scored, and never over another's file."""
    files = rig_home / "session.npz", rig_home / "tiny.safetensors"
    (tmp_path / "my.html").write_text("<p>my own</p>")
    for command in (("evaluate", *files), ("train", prepared())):
        assert fails(*command, "--report", tmp_path / "x.pdf").endswith("x.pdf: is no .html; give FILE.html")
        assert "its folder does not exist; make it first" in fails(*command, "--report", tmp_path / "no" / "x.html")
        assert "exists and is no report of neds-rt" in fails(*command, "--report", tmp_path / "my.html")
        assert "exclude each other" in fails(*command, "--report", tmp_path / "x.html", "--no-report")
    assert "there is none of --task cross" in fails("evaluate", *files, "--task", "cross", "--report", "x.html")
    several = ("--seed", "0", "--seed", "1", "--report", tmp_path / "x.html")
    assert "--report is for one checkpoint of one recording" in fails("train", prepared(), *several)
