"""`fit` is `neds-rt train` as a call: the same bits, from the same parts of the recording."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neds_core import checkpoint as files, fit, load, score, toml
from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig, TrainConfig
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError
from neds_core.files import sha256
from neds_core.train import command
from neds_core.train.log import Silent

KEYS: dict[str, Any] = {
    "outputs": ["wheel_speed", "choice"],
    "model": {"width": 16, "layers": 1, "heads": 2, "band": 5},
    "fit": {"steps": 6, "check_every": 3, "save_every": 5, "batch": 4, "window_bins": 20, "threads": 1},
    "linear": {"lags": [1], "filter_taus_ms": [[40.0]], "penalties": [100.0], "folds": 3},
}


def identity(made: Checkpoint) -> dict[str, Any]:
    """The header but for when it was made, and how long that took."""
    header: dict[str, Any] = msgspec.to_builtins(made.header)
    for record in (header["record"], *(member["record"] for member in header.get("members", ()))):
        del record["created"], record["seconds"]
    for member in header.get("members", ()):
        del member["sha"]  # of the file, with those in it
    return header


def same_tensors(one: Path, other: Path) -> bool:
    """To the bit, those of judging included."""
    ours, theirs = load_file(one), load_file(other)
    return {k: v.numpy().tobytes() for k, v in ours.items()} == {k: v.numpy().tobytes() for k, v in theirs.items()}


def saved(made: Checkpoint, path: Path) -> Path:
    files.save(made, path)
    return path


@pytest.mark.parametrize("more", ["", "[ensemble]\nseeds = [1, 2]\nlinear_share = 0.4\n"], ids=["one", "ensemble"])
def test_a_fit_is_what_the_command_trains(
    prepared: Callable[..., Path], session: Session, tmp_path: Path, more: str
) -> None:
    """Every tensor, and every word of the header: of a recording in memory, by the same file of keys."""
    config = prepared()
    if more:
        config.write_text(config.read_text() + more, encoding="utf-8")
    seed = 0 if more else 3
    trained = tmp_path / "tiny.safetensors"
    command.run(config, trained, [] if more else [seed], Silent())
    (tmp_path / "called").mkdir()

    made = fit(session, str(config), out=str(tmp_path / "called" / "tiny.safetensors"), seed=seed)

    assert same_tensors(trained, tmp_path / "called" / "tiny.safetensors")
    assert identity(made) == identity(files.load(trained))
    assert made.sha == files.load(tmp_path / "called" / "tiny.safetensors").sha
    assert sorted(p.name for p in (tmp_path / "called").iterdir()) == ["tiny.safetensors"]


def test_keys_are_those_of_the_file(prepared: Callable[..., Path], session: Session, tmp_path: Path) -> None:
    """As dicts or structs, of a recording by its path; nothing is written or printed without being asked for."""
    config = prepared()
    wanted = saved(fit(config.with_name("session.npz"), config), tmp_path / "a.safetensors")
    keys = KEYS | {"model": ModelConfig(width=16, layers=1, heads=2, band=5)}

    made = fit(str(config.with_name("session.npz")), **keys)

    assert same_tensors(wanted, saved(made, tmp_path / "b.safetensors"))
    assert made.sha == ""
    assert made.header.name == "session"
    assert msgspec.structs.replace(made.header.config, recording="session.npz") == toml.load(config, TrainConfig)


def test_the_test_part_is_not_looked_at(session: Session, tmp_path: Path) -> None:
    """Other spikes and behaviour in the last 20 %: the same checkpoint to the bit."""
    rows = sessions.split(session).test.bins()
    counts, wheel = session.counts.copy(), session.values["wheel_speed"].copy()
    counts[rows], wheel[rows] = 200, -1e6
    choice = session.values["choice"].copy()
    choice[rows] = 1 - choice[rows].clip(0)
    other = replace(session, counts=counts, values={"wheel_speed": wheel, "choice": choice})

    each = [saved(fit(one, **KEYS), tmp_path / f"{k}.safetensors") for k, one in enumerate((session, other))]

    assert same_tensors(*each)


def test_the_record_names_the_file_that_was_loaded(session: Session, tmp_path: Path) -> None:
    """Not the one that is written meanwhile, which other versions of its libraries write with other bytes."""
    session_file.save(session, tmp_path / "session.npz")
    with zipfile.ZipFile(tmp_path / "session.npz", "a") as file:
        file.comment = b"written by another"
    loaded = load(tmp_path / "session.npz")

    made = fit(loaded, **KEYS)

    assert made.header.record.recording_sha == sha256(tmp_path / "session.npz")
    assert fit(session, **KEYS).header.record.recording_sha not in ("", made.header.record.recording_sha)


def test_what_was_changed_since_is_not_that_file(session: Session, tmp_path: Path) -> None:
    """Some of its segments, or other values: their first 70 % reach into the test part of the file."""
    session_file.save(session, tmp_path / "session.npz")
    loaded = load(tmp_path / "session.npz")
    late = sessions.select(loaded, slice(30, 60))
    parts = sessions.split(loaded)
    wheel = loaded.values["wheel_speed"]
    others = (
        late, *(parts.train, parts.validation, parts.test, parts.development),
        replace(loaded, segments=loaded.segments[:50], segment_ids=loaded.segment_ids[:50]),
        replace(loaded, values=loaded.values | {"wheel_speed": wheel + 1}),
        replace(loaded, counts=loaded.counts[::-1]),
    )  # fmt: skip

    assert [each.file_sha for each in others] == [""] * len(others)
    assert replace(loaded, name="renamed", licence="").file_sha == loaded.file_sha == sha256(tmp_path / "session.npz")
    made = fit(late, **KEYS)
    assert made.header.record.recording_sha not in ("", loaded.file_sha)
    assert "not known whether this part (test) was trained on" in score(made, loaded).note
    wheel[:5] = 0.0  # in place, which nobody is told of
    assert loaded.of_file() == ""


def test_without_outputs_all_behaviours_are_learned(session: Session) -> None:
    made = fit(session, **{key: table for key, table in KEYS.items() if key != "outputs"})

    assert [spec.name for spec in made.specs] == ["wheel_speed", "choice"]
    assert made.header.name == "planted"


def test_it_is_quiet_unless_asked(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """Then it says what the command says; torch has the threads that it had."""
    said: list[str] = []
    torch.set_num_threads(2)
    try:
        fit(session, **KEYS)
        assert capsys.readouterr() == ("", "")
        fit(session, progress=said.append, **KEYS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)

    assert capsys.readouterr() == ("", "")
    assert "NEDS, stopped on validation" in said
    assert any(line.startswith("step 6/6 loss") for line in said)
    assert said[-1].startswith("choice: balanced accuracy on validation NEDS")


def test_an_interrupt_keeps_the_best_so_far(session: Session) -> None:
    """Which the record says; before there is one, it is an interrupt like any other, and of an ensemble always."""

    def interrupted(at: str) -> Callable[[str], None]:
        def said(line: str) -> None:
            if line.startswith(at):
                raise KeyboardInterrupt

        return said

    long = KEYS | {"fit": KEYS["fit"] | {"steps": 12}}
    made = fit(session, progress=interrupted("step 9/"), **long)

    assert made.header.record.interrupted
    for at, keys in (("NEDS, stopped", KEYS), ("step 9/", long | {"ensemble": {"seeds": [0, 1]}})):
        with pytest.raises(KeyboardInterrupt):
            fit(session, progress=interrupted(at), **keys)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """Somebody else's file."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": {"widht": 32}}, "fit: model.widht: unknown key, did you mean 'width'?"),
        ({"epochs": 3}, "fit: epochs: unknown key"),
        ({"fit": {"steps": 0}}, "fit: fit.steps: expected `int` >= 1; correct the value 0"),
        ({"outputs": "wheel_speed"}, "fit: outputs is the text 'wheel_speed'; give a list of names"),
        ({"config": TrainConfig("", ("choice",))}, "fit: outputs, model, fit, linear and a configuration both say"),
        ({"seed": 4, "ensemble": {"seeds": [0, 1]}}, "fit: seed=4 and ensemble.seeds both name seeds"),
    ],
)
def test_what_cannot_be_is_one_sentence(session: Session, more: dict[str, Any], says: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ConfigError) as refused:
        fit(session, **(KEYS | more))
    assert str(refused.value).startswith(says)


def test_another_file_is_not_overwritten(session: Session, foreign: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        fit(session, out=foreign, **KEYS)


def test_a_recording_that_cannot_be_learned_is_refused(session: Session) -> None:
    """By its name: the file that it is written to meanwhile means nothing to anybody."""
    still = session.values | {"wheel_speed": np.ones(session.n_bins, np.float32)}
    with pytest.raises(DataError, match=r"^recording 'planted': wheel_speed does not vary"):
        fit(replace(session, values=still), **KEYS)
