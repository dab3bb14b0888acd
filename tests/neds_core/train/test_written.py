"""What a training writes: names with dots, files of others, a full disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.data import lead, session as sessions
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.linear import baseline
from neds_core.train import command
from neds_core.train.log import Silent

Prepared = Callable[..., Path]
SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_each_checkpoint_has_a_log_of_its_own(prepared: Prepared, tmp_path: Path) -> None:
    """A name may hold dots; the ending is .safetensors or none."""
    path = prepared()
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
def test_another_file_is_never_overwritten(
    prepared: Prepared, heard: Any, tmp_path: Path, out: str, many: bool
) -> None:
    """A recording, a configuration, notes where the log would be, a folder; nothing is trained."""
    path = prepared()
    if many:
        path.write_text('recordings = ["session.npz"]\noutputs = ["wheel_speed"]\n')
    (tmp_path / "notes.jsonl").write_text('{"note": "my own"}\n')
    (tmp_path / "folder").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    with pytest.raises(ConfigError, match=r"exists and is no|does not exist; make it first"):
        command.run(path, tmp_path / out, [], heard)

    assert heard.stages == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_a_checkpoint_of_ours_is_trained_again(prepared: Prepared, tmp_path: Path) -> None:
    """Another configuration's result is overwritten, as is its log."""
    path, out = prepared(), tmp_path / "a.safetensors"
    command.run(path, out, [], Silent())
    first = out.read_bytes()
    path.write_text(path.read_text().replace("steps = 6", "steps = 9"))

    command.run(path, out, [], Silent())

    assert out.read_bytes() != first


@pytest.mark.parametrize(("n_bytes", "file"), [(100, "train.jsonl"), (2000, "train.state")])
def test_a_disk_that_fills_up_ends_a_training_in_one_sentence(
    prepared: Prepared, small_disk: SmallDisk, tmp_path: Path, n_bytes: int, file: str
) -> None:
    """Whatever is written first; nothing half-written is left, and with more room the same command goes on."""
    path = prepared()
    with (
        small_disk(n_bytes),
        pytest.raises(ConfigError, match=rf"{file} cannot be written \(File too large\); make"),
    ):
        command.run(path, None, [], Silent())
    assert not list(tmp_path.glob("*.partial"))

    command.run(path, None, [], Silent())

    assert checkpoints.load(path.with_suffix(".safetensors")).header.record.best_step > 0


@pytest.mark.parametrize(("first", "second"), [("a", "a.safetensors"), ("a.safetensors", "a")])
def test_two_checkpoints_never_share_a_log(
    prepared: Prepared, heard: Any, tmp_path: Path, first: str, second: str
) -> None:
    """a.jsonl belongs to one of them."""
    path = prepared()
    command.run(path, tmp_path / first, [], Silent())
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    with pytest.raises(ConfigError, match=rf"a\.jsonl is the log of .*/{first}; give another name, or move"):
        command.run(path, tmp_path / second, [], heard)

    assert heard.stages == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["a.state", "a.jsonl", "a.refit.safetensors", "a.partial", "a.state.safetensors"])
def test_a_name_of_what_lies_beside_a_checkpoint_is_refused(prepared: Prepared, tmp_path: Path, name: str) -> None:
    """A checkpoint called a.refit would keep its state where that of the refit of a lies."""
    with pytest.raises(ConfigError, match="is the ending of a file beside a checkpoint; give another name"):
        command.run(prepared(), tmp_path / name, [], Silent())


def test_an_ensemble_is_written_beside_its_members_and_again_without_training(
    prepared: Prepared, heard: Any, tmp_path: Path
) -> None:
    """One checkpoint of both; members that are done before are taken as they are."""
    path = prepared(more="[ensemble]\nseeds = [3, 5]\nlinear_share = 0.25\n")
    command.run(path, tmp_path / "all.safetensors", [], Silent())

    made = checkpoints.load(tmp_path / "all.safetensors")
    alone = [checkpoints.load(tmp_path / f"all-seed{seed}.safetensors") for seed in (3, 5)]
    assert [m.record.seed for m in made.header.members] == [3, 5]
    assert [m.sha for m in made.header.members] == [one.sha for one in alone]
    assert made.header.blend == {"wheel_speed": 0.75, "choice": 0.75}

    (tmp_path / "all.safetensors").unlink()
    command.run(path, tmp_path / "all.safetensors", [], heard)
    assert heard.stages == []
    assert checkpoints.load(tmp_path / "all.safetensors").header.members == made.header.members


@pytest.mark.parametrize(
    ("text", "seeds", "says"),
    [
        ("[ensemble]\nseeds = [0, 1]\n", [2], "--seed and ensemble.seeds both name seeds"),
        ("[ensemble]\nseeds = [4]\n", [], "two seeds or more"),
        ("[ensemble]\nseeds = [4, 4]\n", [], "each once"),
        ("[ensemble]\nlinear_share = 0.5\n", [], "name its seeds in ensemble.seeds"),
    ],
)
def test_an_ensemble_without_seeds_of_its_own_is_refused(
    prepared: Prepared, heard: Any, text: str, seeds: list[int], says: str
) -> None:
    path = prepared(more=text)
    with pytest.raises(ConfigError, match=says):
        command.run(path, None, seeds, heard)
    assert heard.stages == []


def test_an_output_is_trained_to_say_what_comes_later(
    prepared: Prepared, session: Session, heard: Any, tmp_path: Path
) -> None:
    """Scales, linear decoder and evidence are of the wheel 60 ms later."""
    command.run(prepared(more="[lead_ms]\nwheel_speed = 60"), tmp_path / "a.safetensors", [], heard)

    made = checkpoints.load(tmp_path / "a.safetensors")
    assert [spec.lead_ms for spec in made.specs] == [60.0, 0.0]
    assert "wheel_speed: 60 ms ahead; filter of its target: none stated" in heard.lines
    parts = lead.split(session, {"wheel_speed": 60.0})
    train = parts.train
    assert made.header.mean["wheel_speed"] == pytest.approx(np.nanmean(train.values["wheel_speed"][train.valid]))
    rows = sessions.split(session).validation.bins()
    expected = np.full(len(rows), np.nan, np.float32).reshape(-1, 25)
    usable = np.where(session.valid[rows], session.values["wheel_speed"][rows], np.nan).reshape(-1, 25)
    expected[:, :-3] = usable[:, 3:]
    expected[~session.valid[rows].reshape(-1, 25)] = np.nan
    assert made.judged is not None
    np.testing.assert_array_equal(made.judged.target["wheel_speed"], expected.ravel())
    ridge = made.linear["wheel_speed"]
    again = baseline.refit(parts.development, made.specs[0], made.scalers, ridge.bank, ridge.penalty)
    np.testing.assert_array_equal(ridge.weight, again.weight)
