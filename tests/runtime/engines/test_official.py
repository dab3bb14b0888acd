"""`neds-rt parity` and `neds-rt import-official`, from the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neds_core import checkpoint as checkpoints
from neds_core.data import session_file
from neds_core.data.session import Session
from runtime.cli import main as cli

GOLDEN = Path(__file__).parents[2] / "neds_core" / "golden" / "neds_official.npz"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neds-rt", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy with its JSON of sizes."""
    shutil.copy(GOLDEN.with_suffix(".json"), tmp_path)
    return Path(shutil.copy(GOLDEN, tmp_path))


@pytest.fixture
def published(golden: Path) -> Path:
    """The golden weights as the published training saves them, without sizes beside them."""
    with np.load(golden) as arrays:
        weights = {k.removeprefix("weights/"): torch.from_numpy(arrays[k]) for k in arrays.files if "weights/" in k}
    torch.save({"epoch": 7, "model": weights, "optimizer": {}, "lr_sched": {}}, golden.with_name("model.pt"))
    return golden.with_name("model.pt")


def test_parity_prints_every_error(call: Call, golden: Path) -> None:
    """Every case and modality, as a table or as one JSON object; all within the limit."""
    code, table, _ = call("parity", golden)
    json_code, out, _ = call("parity", golden, "--json")

    found = json.loads(out.splitlines()[-1])
    assert (code, json_code) == (0, 0)
    assert list(found["cases"]) == ["encoding", "decoding", "within_spike", "cross_random"]
    for case, row in found["cases"].items():
        assert list(row) == ["spike", "choice", "block", "wheel", "whisker"]
        assert all(0 < error < 1e-5 for error in row.values())
        assert case in table
    assert found["within"]
    assert 0 < found["worst_relative"] < 1e-5


def test_parity_fails_where_an_output_is_off(call: Call, golden: Path) -> None:
    """By 1e-4 in one number: exit code 3, and the error is printed. A missing file is the user's: 2."""
    with np.load(golden) as bundle:
        arrays = {k: bundle[k] for k in bundle.files}
    arrays["decoding/out/wheel"][2, 3] += 1e-4
    np.savez(golden, **arrays)

    code, out, _ = call("parity", golden, "--json")
    golden.with_suffix(".json").unlink()
    missing, _, err = call("parity", golden)

    found = json.loads(out.splitlines()[-1])
    assert (code, missing) == (3, 2)
    assert not found["within"]
    assert found["cases"]["decoding"]["wheel"] == pytest.approx(1e-4, rel=0.02)
    assert "put the JSON of sizes there" in err


def test_import_writes_a_checkpoint_and_says_what_it_assumed(call: Call, published: Path, session: Session) -> None:
    """With sizes from a file, from the command line, or assumed; units and ranges where they are given."""
    out = published.with_name("x.safetensors")
    units = published.with_name("session.npz")
    session_file.save(session, units)  # 12 units

    assumed = call("import-official", published, "--out", out)
    heads = checkpoints.load(out).model.config.heads
    told = call("import-official", published, "--out", out, "--heads", 4, "--range", "wheel_speed=1:13")
    read = checkpoints.load(out)
    sizes = call("import-official", published, "--out", out, "--sizes", GOLDEN.with_suffix(".json"))

    assert (assumed[0], told[0], sizes[0]) == (0, 0, 0)
    assert "assumed: 8 heads" in assumed[1]
    assert heads == 8
    assert "heads" not in told[1]
    assert read.model.config.heads == 4
    assert (read.header.mean["wheel_speed"], read.header.sd["wheel_speed"]) == (1.0, 12.0)
    assert "rows of the session table" not in sizes[1]
    for arguments, says in (
        (("--units", units), "add --session"),
        (("--range", "wheel_speed=3"), "is not NAME=MIN:MAX"),
        (("--range", "wheel_speed=3:1"), "the minimum is not below the maximum"),
        (("--range", "wheel=0:1"), "not a continuous behaviour"),
        (("--sizes", GOLDEN.with_suffix(".json"), "--heads", 4), "leave one of them out"),
    ):
        before = out.stat().st_mtime_ns
        code, _, err = call("import-official", published, "--out", out, *arguments)
        assert (code, len(err.splitlines())) == (2, 1)
        assert says in err
        assert out.stat().st_mtime_ns == before
    code, _, err = call("import-official", published, "--out", published.with_name("no") / "x.safetensors")
    assert (code, "its folder does not exist" in err) == (2, True)
