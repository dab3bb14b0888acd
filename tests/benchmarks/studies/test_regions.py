"""The map's table through the command: planted regions are found, unrelated embeddings are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from benchmarks.accuracy.mice.steinmetz import FOLDER
from benchmarks.studies import region_figures, region_inputs
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.config import PretrainConfig
from neds_core.data import scalers, session as sessions, session_file
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.model.model import NEDS
from neds_core.train import many as pretrain
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source
from runtime.cli import commands as cli

U = 48


def recording(session: Session, name: str, seed: int) -> Session:
    """48 units in three regions of 16, in random order; the trial's time course tells the regions."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(U) % 3)
    course = np.exp(-((np.arange(25) - np.array([[4], [12], [20]])) ** 2) / 40) + 0.3
    rate = np.tile(course[label].T, (60, 1))
    units = sessions.UnitTable(np.arange(U) + seed, np.array(["ca1", "lp", "vis"])[label], np.full(U, np.nan, "f4"))
    return replace(session, name=name, units=units, counts=rng.poisson(rate).astype(np.uint8), valid=session.valid)


def with_rows(made: Checkpoint, one: Session, tells: bool) -> Checkpoint:
    """The checkpoint's shape for another unit table; the tokenizer's rows tell the region or do not."""
    model = type(made.model)(made.header.config.model, (U,), made.specs).eval().requires_grad_(False)
    label = np.unique(one.units.region, return_inverse=True)[1]
    noise = torch.randn(U, 16, generator=torch.Generator().manual_seed(int(one.units.ids[0])))
    code = torch.eye(16)[label] if tells else torch.zeros(U, 16)
    model.tokenizer().rows.copy_(3 * code + noise)
    scale = replace(made.scalers, kept=np.ones(U, bool))
    linear = {
        k: replace(v, weight=np.zeros((v.bank.n_features(U), v.weight.shape[1]), np.float32))
        for k, v in made.linear.items()
    }
    header = msgspec.structs.replace(made.header, unit_map_sha=one.units.sha256)
    return Checkpoint(header, model, one.units, scale, linear)


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    """The JSON that `neds-rt bench regions` prints last."""
    cli.app(["bench", "regions", *map(str, words), "--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_one_recording(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A telling model far above its permuted labels, a blank one at chance; figures are drawn; the note is carried."""
    one = recording(session, "ibl-dy016-like", 0)
    session_file.save(one, tmp_path / "one.npz")
    made = make_checkpoint()
    for name, tells in (("telling", True), ("blank", False)):
        checkpoints.save(with_rows(made, one, tells), tmp_path / f"{name}.safetensors")

    result = call(
        capsys, tmp_path / "one.npz", "--model", f"telling={tmp_path / 'telling.safetensors'}",
        "--model", f"blank={tmp_path / 'blank.safetensors'}", "--permutations", "4", "--repeats", "1",
        "--figures", tmp_path / "maps",
    )  # fmt: skip

    rows = result["rows"]
    assert result["regions"] == {"ca1": 16, "lp": 16, "vis": 16}
    assert rows["shape"]["balanced_accuracy"] > 0.9
    assert rows["telling: tokenizer"]["balanced_accuracy"] > 0.8
    assert rows["telling: both"]["permuted"]["p"] == pytest.approx(1 / 5)
    assert rows["blank: both"]["balanced_accuracy"] < 0.6
    assert rows["blank: both"]["permuted"]["p"] > 0.2
    assert np.sum(result["confusion"]["telling: both"], 1) == pytest.approx([16, 16, 16], abs=0.05)
    gap = result["comparisons"]["blank"][f"both - {result['strongest_plain']}"]
    assert gap["low"] <= gap["value"] <= gap["high"] < 0
    assert any("shifts all units of a region" in note for note in result["notes"])
    assert any("not comparable with published" in note for note in result["notes"])
    drawn = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert drawn == [
        "region_confusion_blank_both.png", "region_confusion_plain.png", "region_confusion_telling_both.png",
        "region_map_pca_blank.png", "region_map_pca_telling.png",
    ]  # fmt: skip


def test_one_session_is_left_out_at_a_time(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three recordings count as three animals; checkpoints find their recording by its units, in any order."""
    models: list[str | Path] = []
    for seed in (3, 1, 2):
        one = recording(session, f"mouse{seed}", seed)
        session_file.save(one, tmp_path / f"{seed}.npz")
        checkpoints.save(with_rows(make_checkpoint(), one, True), tmp_path / f"{seed}.safetensors")
        models += ["--model", f"multi={tmp_path / f'{seed}.safetensors'}"]
    files = [tmp_path / f"{seed}.npz" for seed in (1, 2, 3)]

    result = call(capsys, *files, *models, "--permutations", "0")

    assert result["units"] == 3 * U
    assert result["scheme"].startswith("one session left out")
    assert result["rows"]["multi: tokenizer"]["balanced_accuracy"] > 0.8
    assert result["rows"]["shape"]["balanced_accuracy"] > 0.9
    assert result["session_identity"]["balanced_accuracy"] < 0.5  # every session has as much of each region
    assert any("multi: " in note and "no frame" in note for note in result["notes"])
    with pytest.raises(CheckpointError, match="give the missing ones"):
        call(capsys, *files, *models[:4])
    with pytest.raises(DataError, match="a map needs two"):
        call(capsys, *files, "--min-animals", "4")


def of_many(made: Checkpoint, many: list[Session], telling: list[bool]) -> Pretrained:
    """One trunk for several recordings; of each, the tokenizer's rows tell the region or do not."""
    size = made.header.config.model
    model = NEDS(size, (U,) * len(many), made.specs).eval().requires_grad_(False)
    rows = []
    for s, (one, tells) in enumerate(zip(many, telling, strict=True)):
        model.tokenizer(s).rows.copy_(with_rows(made, one, tells).model.tokenizer().rows)
        parts = sessions.split(one)
        scale = replace(scalers.fit(parts.train, made.specs, 0.5), kept=np.arange(U) != s)
        rows.append(pretrain.row(Source(parts.train, parts.validation, scale)))
    config = PretrainConfig(tuple(one.name for one in many), tuple(s.name for s in made.specs), model=size)
    return Pretrained(pretrain.Header(1, many[0].bin_ns, config, made.specs, tuple(rows), 1, 0.0, 1.0), model)


def test_one_file_serves_all_its_recordings(
    session: Session, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each recording finds its own rows and kept units by its unit table, whatever the order of the files."""
    many = [recording(session, f"mouse{seed}", seed) for seed in (3, 1, 2)]
    for one in many:
        session_file.save(one, tmp_path / f"{one.name}.npz")
    made = make_checkpoint()
    pretrain.save(of_many(made, many, [True] * 3), tmp_path / "trunk.safetensors")
    pretrain.save(of_many(made, many, [True, False, True]), tmp_path / "mixed.safetensors")
    pretrain.save(of_many(made, many[:2], [True] * 2), tmp_path / "two.safetensors")
    files = [tmp_path / f"mouse{seed}.npz" for seed in (1, 2, 3)]

    result = call(
        capsys, *files, "--model", f"trunk={tmp_path / 'trunk.safetensors'}",
        "--model", f"trunk={tmp_path / 'trunk.safetensors'}", "--permutations", "0",
    )  # fmt: skip
    embedded = region_inputs.embedded(tmp_path / "mixed.safetensors")

    assert result["units"] == 3 * (U - 1)  # one unit of each recording was not kept in training
    assert result["rows"]["trunk: tokenizer"]["balanced_accuracy"] > 0.8
    assert len(result["rows"]["trunk: both"]["per_seed"]) == 2
    assert not any("no frame" in note for note in result["notes"])
    assert [one.units_sha for one in embedded] == [one.units.sha256 for one in many]
    assert [int(np.flatnonzero(~one.kept)[0]) for one in embedded] == [0, 1, 2]
    with pytest.raises(CheckpointError, match="give the missing ones"):
        call(capsys, *files, "--model", f"two={tmp_path / 'two.safetensors'}")


def test_wrong_options_are_refused(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in one sentence."""
    session_file.save(session, tmp_path / "one.npz")
    with pytest.raises(DataError, match="is not NAME=CHECKPOINT"):
        call(capsys, tmp_path / "one.npz", "--model", "neds.safetensors")
    with pytest.raises(ConfigError, match="choose pca or umap"):
        call(capsys, tmp_path / "one.npz", "--projection", "tsne")


def test_what_is_no_recording_is_refused(session: Session, tmp_path: Path) -> None:
    """No file, a file cut short, an array, a published bundle without its counts: one sentence with the path."""
    session_file.save(session, tmp_path / "short.npz")
    whole = (tmp_path / "short.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "bundle.npz", mouse="Hench", brain_area=np.array(["ca1"]))
    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))

    for name in ("absent.npz", "short.npz", "array.npy", "bundle.npz", "foreign.npz"):
        with pytest.raises(DataError, match=name) as error:
            region_inputs.read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_published_bundle_names_its_mouse() -> None:
    """So regions can be counted over mice, not over sessions."""
    one = region_inputs.read(FOLDER / "session09_Hench_2017-06-16.npz")

    assert (one.animal, one.session.name) == ("Hench", "session09_Hench_2017-06-16")
    assert len(one.session.segments) == 298  # 80 % of 372
    assert one.kept.shape == (788,)


@pytest.mark.filterwarnings("ignore:Tensorflow not installed")
def test_umap_is_an_extra() -> None:
    """Two dimensions where it is installed; else one sentence with the remedy."""
    x = np.random.default_rng(0).normal(size=(40, 6))
    if find_spec("umap") is None:
        with pytest.raises(ConfigError, match="neds-rt\\[map\\]"):
            region_figures.plane(x, "umap")
    else:
        assert region_figures.plane(x, "umap")[0].shape == (40, 2)
