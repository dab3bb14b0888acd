"""What a training writes: names with dots, files of others, a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from neds_core import checkpoint as checkpoints
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError, NedsError
from neds_core.train import command
from neds_core.train.log import Silent

TEXT = """recording = "session.npz"
outputs = ["wheel_speed"]
[model]
width = 16
layers = 1
heads = 2
band = 5
[fit]
steps = 6
check_every = 3
batch = 4
window_bins = 20
threads = 1
[linear]
lags = [1]
filter_taus_ms = [[40.0]]
penalties = [100.0]
"""


class Heard(Silent):
    """The stages so far."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str) -> None:
        """One more."""
        self.stages.append(name)


def prepared(folder: Path, session: Session) -> Path:
    """A recording and a short training of it."""
    session_file.save(session, folder / "session.npz")
    path = folder / "train.toml"
    path.write_text(TEXT)
    return path


def test_each_checkpoint_has_a_log_of_its_own(session: Session, tmp_path: Path) -> None:
    """A name may hold dots; the ending is .safetensors or none."""
    path = prepared(tmp_path, session)
    for out, seeds in (("mouse7.day1", []), ("mouse7.day2", []), ("mouse7.day3.safetensors", [0, 1])):
        command.run(path, tmp_path / out, seeds, Silent())

    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "mouse7.day1", "mouse7.day1.jsonl", "mouse7.day2", "mouse7.day2.jsonl",
        "mouse7.day3-seed0.jsonl", "mouse7.day3-seed0.safetensors",
        "mouse7.day3-seed1.jsonl", "mouse7.day3-seed1.safetensors", "session.npz", "train.toml",
    ]  # fmt: skip
    assert checkpoints.load(tmp_path / "mouse7.day1").header.name == "mouse7.day1"


@pytest.mark.parametrize("out", ["session.npz", "train.toml", "notes.jsonl", "notes", "folder", "none/a.safetensors"])
@pytest.mark.parametrize("many", [False, True])
def test_another_file_is_never_overwritten(session: Session, tmp_path: Path, out: str, many: bool) -> None:
    """A recording, a configuration, notes where the log would be, a folder; nothing is trained."""
    path, heard = prepared(tmp_path, session), Heard()
    if many:
        path.write_text('recordings = ["session.npz"]\noutputs = ["wheel_speed"]\n')
    (tmp_path / "notes.jsonl").write_text('{"note": "my own"}\n')
    (tmp_path / "folder").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    with pytest.raises(ConfigError, match=r"exists and is no|does not exist; make it first"):
        command.run(path, tmp_path / out, [], heard)

    assert heard.stages == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_checkpoint_of_ours_is_trained_again(session: Session, tmp_path: Path) -> None:
    """Another configuration's result is overwritten, as is its log."""
    path, out = prepared(tmp_path, session), tmp_path / "a.safetensors"
    command.run(path, out, [], Silent())
    first = out.read_bytes()
    path.write_text(path.read_text().replace("steps = 6", "steps = 9"))

    command.run(path, out, [], Silent())

    assert out.read_bytes() != first


def test_a_full_disk_is_one_sentence(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy; nothing half-written is left."""
    path = prepared(tmp_path, session)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neds_core.checkpoint.to_bytes", full)
    with pytest.raises(NedsError, match=r"train\.safetensors cannot be written \(No space left on device\); make room"):
        command.run(path, None, [], Silent())
    assert not list(tmp_path.glob("*.partial"))
