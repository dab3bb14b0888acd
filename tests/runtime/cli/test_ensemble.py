"""`neds-rt ensemble`, and what the other commands make of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session

Fails = Callable[..., str]


@pytest.fixture
def both(make_checkpoint: Callable[..., Checkpoint], tmp_path: Path) -> list[Path]:
    """Checkpoints of two seeds."""
    paths = [tmp_path / f"seed{seed}.safetensors" for seed in range(2)]
    for seed, path in enumerate(paths):
        checkpoints.save(make_checkpoint(seed=seed), path)
    return paths


def test_two_are_joined_scored_and_verified(
    call: Callable[..., int], both: list[Path], session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each member and their sum are held to the offline forward; a look is recorded with all members kept."""
    out, few = tmp_path / "both.v1.safetensors", tmp_path / "few.npz"
    session_file.save(replace(session, segments=session.segments[-12:], segment_ids=session.segment_ids[-12:]), few)
    assert call("ensemble", *both, "--out", out) == 0
    assert "2 networks, share of NEDS in the blend: wheel_speed 0.35, choice 0.80" in capsys.readouterr().out
    assert checkpoints.load(out).header.name == "both.v1"

    assert call("verify", out, few, "--json") in (
        0,
        3,
    )  # random weights miss what fewer bits may cost
    found = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])["engines"]
    sums = {"2 x stream-numba-cpu", "2 x stream-numba-cpu + linear-numba-cpu", "linear-numba-cpu"}
    assert {name.rpartition(", ")[2] for name in found} - sums == {"member 0", "member 1"}
    assert all(found[name]["max_abs"] < 2e-5 for name in sums)

    assert call("evaluate", few, out, "--record", "--json", "--no-report") == 0
    assert msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])["streamed_vs_offline_max_abs"] < 1e-5
    looked = checkpoints.load(out)
    assert (looked.header.record.test_looks, len(looked.networks)) == (1, 2)


def test_what_cannot_be_joined_is_refused(fails: Fails, both: list[Path], tmp_path: Path) -> None:
    """Before anything is written, and never over another file."""
    out = tmp_path / "out.safetensors"
    assert "needs two checkpoints or more" in fails("ensemble", both[0], "--out", out)
    assert "is given twice" in fails("ensemble", both[0], both[0], "--out", out)
    assert "does not exist" in fails("ensemble", both[0], tmp_path / "none.safetensors", "--out", out)
    (tmp_path / "notes").write_text("my own")
    assert "is no checkpoint of neds-rt" in fails("ensemble", *both, "--out", tmp_path / "notes")
