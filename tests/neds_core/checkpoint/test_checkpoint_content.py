"""A checkpoint is what was written, and holds numbers that can decode, or it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from safetensors.torch import save_file

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import UnitTable
from neds_core.errors import CheckpointError
from neds_core.model.rows import read_units, unit_tensors
from tests.neds_core.checkpoint.files import contents, refusal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"bin_ns": n}, f"bin_ns is {n}, not between") for n in (0, -20_000_000, 1, 10**12)),
        *(({"sd": {"wheel_speed": sd}}, "scale of wheel_speed is incomplete or not above 0") for sd in (0.0, -2.0)),
        ({"sd": {}}, "'wheel_speed'"),
        ({"blend": {"wheel_speed": 1.5, "choice": 0.5}}, "decoders of wheel_speed are incomplete"),
        ({"prior": {"choice": [0.5]}}, "class shares of choice are incomplete"),
        ({"prior": {"choice": [1.5, -0.5]}}, "class shares of choice are incomplete"),
    ],
)
def test_numbers_that_cannot_decode_are_refused(path: Path, change: dict[str, object], message: str) -> None:
    """A grid without width, a scale that turns values around."""
    tensors, metadata = contents(path)
    save_file(tensors, path, metadata={"neds_rt": json.dumps(json.loads(metadata["neds_rt"]) | change)})

    assert message in refusal(path)


@given(at=st.floats(0.0, 1.0, exclude_max=True), bit=st.integers(0, 7))
@example(at=0.9999, bit=1)  # of units/kept: a bool that is 3
def test_a_flipped_bit_of_a_tensor_is_refused(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory, at: float, bit: int
) -> None:
    """Wherever it is: the weights would still be numbers."""
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    checkpoints.save(checkpoint, path)
    raw = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(raw[:8], "little")
    raw[begin + int(at * (len(raw) - begin))] ^= 1 << bit
    path.write_bytes(raw)

    refusal(path)


def test_another_number_in_the_header_is_refused(path: Path) -> None:
    """The hash is of the header too."""
    tensors, metadata = contents(path)
    header = json.loads(metadata["neds_rt"]) | {"blend": {"wheel_speed": 0.36, "choice": 0.8}}
    save_file(tensors, path, metadata=metadata | {"neds_rt": json.dumps(header)})

    assert "its content does not match its own SHA-256" in refusal(path)


def test_a_file_from_before_the_hash_is_read(path: Path) -> None:
    """As are the shipped ones."""
    tensors, metadata = contents(path)
    save_file(tensors, path, metadata={"neds_rt": metadata["neds_rt"]})

    assert checkpoints.load(path).header.name == "tiny"


def test_what_nothing_could_load_is_not_written(checkpoint: Checkpoint, path: Path) -> None:
    """It is read once before it takes its place; the file of before stays."""
    before = path.read_bytes()
    for change in ({"bin_ns": 1}, {"sd": {"wheel_speed": float("nan")}}):
        header = msgspec.structs.replace(checkpoint.header, **change)
        with pytest.raises(CheckpointError, match=r"neds\.safetensors: header and tensors do not fit"):
            checkpoints.save(replace(checkpoint, header=header), path)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_one_unit_of_no_region_survives_its_file(checkpoint: Checkpoint) -> None:
    """Regions are lines of text, and one empty line is a line."""
    for region in ([""], ["", ""], ["ca1", ""]):
        units = UnitTable(np.arange(len(region)), np.array(region), np.zeros(len(region), np.float32))
        assert read_units(unit_tensors(units, "units/"), "units/").region.tolist() == region
