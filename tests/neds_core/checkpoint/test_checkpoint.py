"""A checkpoint decodes after its file as it did before, and a wrong file is refused in one sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save_file

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from neds_core.errors import CheckpointError
from neds_core.model import offline
from tests.neds_core.checkpoint.files import contents, refusal


def test_a_checkpoint_survives_its_file(checkpoint: Checkpoint, path: Path, session: Session) -> None:
    """Identical outputs, linear decoders, scalers, units and header; the SHA-256 is the file's."""
    read = checkpoints.load(path)

    spans, clock = [(0, 25), (25, 50)], session.clock()
    ours, theirs = (offline.decode(c.model, session.counts, session.valid, clock, spans) for c in (checkpoint, read))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    for name, linear in checkpoint.linear.items():
        assert (linear.bank, linear.penalty) == (read.linear[name].bank, read.linear[name].penalty)
        np.testing.assert_array_equal(linear.weight, read.linear[name].weight)
        np.testing.assert_array_equal(linear.bias, read.linear[name].bias)
    for name in ("kept", "spike_mean", "spike_gain"):
        np.testing.assert_array_equal(getattr(checkpoint.scalers, name), getattr(read.scalers, name))
    for name in ("prior", "trial_mean", "mean", "sd"):
        ours, theirs = getattr(checkpoint.scalers, name), getattr(read.scalers, name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert read.header == checkpoint.header
    assert read.units.sha256 == checkpoint.units.sha256 == session.units.sha256
    assert read.clocked
    assert not read.model.training
    checkpoints.save(read, path.with_stem("again"))
    assert checkpoints.load(path.with_stem("again")).sha == read.sha
    assert sorted(p.name for p in path.parent.iterdir()) == ["again.safetensors", "neds.safetensors"]


def test_filters_survive_their_file(make_checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Those of other time constants than the configuration's, or of other bins, are refused."""
    made = make_checkpoint(filter_taus_ms=(40.0, 600.0))
    checkpoints.save(made, tmp_path / "filters.safetensors")

    read = checkpoints.load(tmp_path / "filters.safetensors")

    assert made.scalers.filters is not None
    assert read.scalers.filters is not None
    for name in ("keep", "mean", "gain"):
        np.testing.assert_array_equal(getattr(made.scalers.filters, name), getattr(read.scalers.filters, name))
    assert torch.equal(read.model.state_dict()["units.0.rows"], made.model.state_dict()["units.0.rows"])
    made.model.get_buffer("units.0.filter_keep").mul_(0.99)
    with pytest.raises(CheckpointError, match="its filters are not those of filter_taus_ms"):
        checkpoints.save(made, tmp_path / "other.safetensors")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    """So is a folder."""
    assert "does not exist; check the path" in refusal(tmp_path / "none.safetensors")
    assert "does not exist; check the path" in refusal(tmp_path)


@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_truncated_checkpoint_is_refused(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    """Wherever it was cut."""
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    checkpoints.save(checkpoint, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])

    assert "is cut short; copy or train it again" in refusal(path)


@given(data=st.data())
def test_a_damaged_header_is_read_or_refused(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A character changed anywhere in the header: no other error gets out."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    checkpoints.save(checkpoint, path)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, 7 + int.from_bytes(raw[:8], "little")))
    raw[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789"{}[],'))
    path.write_bytes(raw)

    try:
        read = checkpoints.load(path)
    except CheckpointError as error:
        refused = str(error)
    else:
        refused = ""
        assert read.header.specs
    assert "\n" not in refused


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    """A torch checkpoint, and a pickle that would run something if it were read."""
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    ran = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (ran,)

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Touch()))

    assert "not a safetensors file" in refusal(tmp_path / "model.pt")
    assert "not a safetensors file" in refusal(tmp_path / "evil.safetensors")
    assert not ran.exists()


def test_somebody_elses_safetensors_is_refused(tmp_path: Path) -> None:
    """With metadata of their own, and without any."""
    for metadata in ({"format": "pt"}, None):
        save_file({"weight": torch.zeros(3)}, tmp_path / "theirs.safetensors", metadata=metadata)

        assert "was not written by neds-rt" in refusal(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, not 1; train it again"),
        ({"mood": 1}, "do not fit this version"),
        ({"bin_ns": "20 ms"}, "do not fit this version"),
        ({"unit_map_sha": "0" * 64}, "unit table does not match its own SHA-256"),
        ({"specs": []}, "do not fit this version"),
    ],
    ids=["format", "unknown key", "wrong type", "unit map", "no outputs"],
)
def test_a_foreign_header_is_refused(path: Path, change: dict[str, object], message: str) -> None:
    """Another format, another version's keys, other units, other outputs than the tensors'."""
    tensors, metadata = contents(path)
    header = json.loads(metadata["neds_rt"]) | change
    save_file(tensors, path, metadata={"neds_rt": json.dumps(header)})

    assert message in refusal(path)


def other_unit(tensors: dict[str, torch.Tensor]) -> None:
    tensors["units/ids"][2] += 1


def other_region(tensors: dict[str, torch.Tensor]) -> None:
    tensors["units/region"][0] += 1


def other_depth(tensors: dict[str, torch.Tensor]) -> None:
    tensors["units/depth_um"][1] += 1


def one_unit_less(tensors: dict[str, torch.Tensor]) -> None:
    tensors["units/ids"] = tensors["units/ids"][1:].clone()


def region_is_no_text(tensors: dict[str, torch.Tensor]) -> None:
    tensors["units/region"][:] = 255


def no_kept(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["units/kept"]


def no_weight(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model/mask_token"]


def other_width(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model/mask_token"] = torch.zeros(17)


def no_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model/blocks.0.up.weight"][0, 1] = torch.nan


def no_end(tensors: dict[str, torch.Tensor]) -> None:
    tensors["linear/choice/weight"][0, 1] = torch.inf


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        *((edit, "a weight is not finite") for edit in (no_number, no_end)),
        *((edit, "unit table does not match") for edit in (other_unit, other_region, other_depth)),
        *((edit, "do not fit") for edit in (one_unit_less, region_is_no_text, no_kept, no_weight, other_width)),
    ],
)
def test_tampered_tensors_are_refused(
    path: Path, edit: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    """A unit table that is not the one trained on, or tensors that are missing or of another shape."""
    tensors, metadata = contents(path)
    edit(tensors)
    save_file(tensors, path, metadata=metadata)

    assert message in refusal(path)
