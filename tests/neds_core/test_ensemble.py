"""Checkpoints of several seeds joined in one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from neds_core import checkpoint as files, ensemble
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.tensors import read_tensors
from neds_core.config import TrainConfig
from neds_core.errors import CheckpointError


@pytest.fixture(scope="module")
def seeds(make_checkpoint: Callable[..., Checkpoint]) -> list[Checkpoint]:
    """Three networks, each of its own seed and share in the blend."""
    found = []
    for seed in range(3):
        made = make_checkpoint(seed=seed)
        blend = {"wheel_speed": 0.3 + 0.1 * seed, "choice": 0.8}
        record = msgspec.structs.replace(made.header.record, seed=seed, seconds=10.0, test_looks=2)
        header = msgspec.structs.replace(made.header, blend=blend, record=record)
        found.append(replace(made, header=header, sha=f"sha-{seed}"))
    return found


def of_band(made: Checkpoint, band: int) -> TrainConfig:
    """Its configuration, with another band."""
    return msgspec.structs.replace(made.header.config, model=msgspec.structs.replace(made.model.config, band=band))


def changed(made: Checkpoint, **header: Any) -> Checkpoint:
    """With another header."""
    return replace(made, header=msgspec.structs.replace(made.header, **header))


def test_what_is_joined_is_read_back(seeds: list[Checkpoint], tmp_path: Path) -> None:
    """Networks in their order, what they share once, and how each came about."""
    files.save(ensemble.join(seeds, "all"), tmp_path / "all.safetensors")

    read = files.load(tmp_path / "all.safetensors")

    assert read.header.name == "all"
    assert [m.name for m in read.header.members] == ["tiny", "tiny-1", "tiny-2"]
    assert [m.sha for m in read.header.members] == ["sha-0", "sha-1", "sha-2"]
    assert [m.record.seed for m in read.header.members] == [0, 1, 2]
    assert (read.header.record.seconds, read.header.record.test_looks) == (30.0, 0)
    assert read.header.blend == {"wheel_speed": pytest.approx(0.4), "choice": pytest.approx(0.8)}
    for one, network in zip(seeds, read.networks, strict=True):
        for name, value in one.model.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), name
    names = set(read_tensors(tmp_path / "all.safetensors")[0])
    assert {name.split("/")[0] for name in names} == {
        "units",
        "trial_mean",
        "linear",
        "member.0",
        "member.1",
        "member.2",
    }


def test_a_member_alone_is_the_checkpoint_that_came(seeds: list[Checkpoint]) -> None:
    """Its network, name, blend and record."""
    joined = ensemble.join(seeds, "all")

    for m, one in enumerate(seeds):
        alone = joined.alone(m)
        assert alone.model is one.model
        assert alone.networks == (one.model,)
        assert alone.header == one.header
    assert seeds[0].alone(0) is seeds[0]


def test_an_ensemble_joins_with_one_more(seeds: list[Checkpoint]) -> None:
    """Two and one are the same three as at once."""
    once = ensemble.join(seeds, "all")
    twice = ensemble.join([ensemble.join(seeds[:2], "two"), seeds[2]], "all")

    assert twice.header.members == once.header.members
    assert twice.networks == once.networks


def test_a_share_of_the_linear_decoder_may_be_given(seeds: list[Checkpoint]) -> None:
    """To every output of every network alike."""
    joined = ensemble.join(seeds, "all", linear_share=0.25)

    for blend in (joined.header.blend, *(member.blend for member in joined.header.members)):
        assert blend == {"wheel_speed": 0.75, "choice": 0.75}


UNLIKE: dict[str, Callable[[Checkpoint], Checkpoint]] = {
    "their bin width differs": lambda made: changed(made, bin_ns=10_000_000),
    "their unit map differs": lambda made: changed(made, unit_map_sha="another"),
    "their outputs differ": lambda made: changed(made, specs=made.specs[:1]),
    "their model configuration differs": lambda made: changed(
        made,
        config=msgspec.structs.replace(made.header.config, model=msgspec.structs.replace(made.model.config, band=6)),
    ),
    "their kept units differ": lambda made: replace(made, scalers=replace(made.scalers, kept=~made.scalers.kept)),
    "their scales of outputs differ": lambda made: changed(made, mean={"wheel_speed": 7.0}),
    "their recording differs": lambda made: changed(
        made, record=msgspec.structs.replace(made.header.record, recording_sha="another")
    ),
    "their linear decoders differ": lambda made: replace(
        made, linear={k: replace(v, weight=v.weight * 1.1) for k, v in made.linear.items()}
    ),
    "'tiny-1' holds no linear decoder": lambda made: replace(made, linear={}),
}


@pytest.mark.parametrize("why", UNLIKE)
def test_unlike_checkpoints_are_refused(seeds: list[Checkpoint], why: str) -> None:
    """By what differs, before anything is written."""
    with pytest.raises(CheckpointError, match=re.escape(why)):
        ensemble.join([seeds[0], UNLIKE[why](seeds[1])], "all")


def test_other_scales_of_units_are_refused(
    seeds: list[Checkpoint], make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    """When joined, and in a file that somebody else wrote."""
    other = replace(make_checkpoint(seed=4), sha="other")
    other.model.tokenizer().gain.mul_(2.0)
    with pytest.raises(CheckpointError, match="their scales of units differ"):
        ensemble.join([seeds[0], other], "all")

    filtered = [replace(make_checkpoint(seed=s, filter_taus_ms=(40.0,)), sha=f"filters {s}") for s in (0, 1)]
    filtered[1].model.get_buffer("units.0.filter_gain").mul_(2.0)
    with pytest.raises(CheckpointError, match="their scales of units differ"):
        ensemble.join(filtered, "all")

    joined = replace(ensemble.join(seeds[:2], "all"), others=(other.model,))
    with pytest.raises(CheckpointError, match="the members' scales of units differ"):
        files.save(joined, tmp_path / "all.safetensors")


@pytest.mark.parametrize(("which", "why"), [((0,), "needs two checkpoints"), ((0, 1, 0), "is given twice")])
def test_an_ensemble_is_of_two_or_more(seeds: list[Checkpoint], which: tuple[int, ...], why: str) -> None:
    """Different ones."""
    with pytest.raises(CheckpointError, match=why):
        ensemble.join([seeds[m] for m in which], "all")


def test_a_network_that_is_missing_is_said(seeds: list[Checkpoint], tmp_path: Path) -> None:
    """A header of three and the tensors of two."""
    joined = ensemble.join(seeds, "all")
    with pytest.raises(CheckpointError, match="do not fit"):
        files.save(replace(joined, others=joined.others[:1]), tmp_path / "all.safetensors")
    assert not list(tmp_path.iterdir())
