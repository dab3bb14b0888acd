"""`neds-rt bench transfer`: a folder or made-up animals in; tables, a figure and JSON out."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.studies import made_up, transfer
from benchmarks.studies.transfer import CEILING, CONDITIONS, PLAIN
from neds_core.data import synthetic
from neds_core.scores import bootstrap
from runtime.cli import commands as cli
from tests.benchmarks.mice import write
from tests.benchmarks.studies.tiny import TINY, TRIALS


def test_the_command_reads_a_folder_and_prints_one_object(
    mice: list[Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles in, tables, a figure and JSON out; the file is no longer than its rows."""
    write(tmp_path / "sessions", mice)
    quick = msgspec.structs.replace(TINY, snapshots=(4,))
    monkeypatch.setattr(transfer, "QUICK", quick)
    monkeypatch.setattr(bootstrap, "RULES", bootstrap.Resampling(times=100))
    words = [
        tmp_path / "sessions",
        "--quick",
        "--trials",
        10,
        "--seeds",
        1,
        "--out",
        tmp_path / "x.jsonl",
        "--figure",
        tmp_path / "x.png",
        "--json",
    ]

    cli.app(["bench", "transfer", *map(str, words)], standalone_mode=False)

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {one["session"] for one in result["sessions"]} == {
        f"steinmetz2019-{b.mouse}-day{m}" for m, b in enumerate(mice)
    }
    assert (tmp_path / "x.png").stat().st_size > 5_000
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 3 * (len(CONDITIONS) + 1)


def test_the_command_makes_animals_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same study of synthetic animals, their ceiling in the tables, every session called so."""
    small = synthetic.World(animals=2, sessions=1, trials=TRIALS, trial_bins=12, regions=("ca1",), units_per_region=6)
    monkeypatch.setattr(made_up, "WORLD", small)
    monkeypatch.setattr(transfer, "QUICK", msgspec.structs.replace(TINY, snapshots=(4,)))
    monkeypatch.setattr(bootstrap, "RULES", bootstrap.Resampling(times=100))
    words = ["--made-up", "--quick", "--trials", "10", "--seeds", "1", "--out", str(tmp_path / "x.jsonl"), "--json"]

    cli.app(["bench", "transfer", *words, "--figure", str(tmp_path / "x.png")], standalone_mode=False)

    out = capsys.readouterr().out.splitlines()
    result = json.loads(out[-1])
    assert [one["condition"] for one in result["scores"][:6]] == [*CONDITIONS, PLAIN, CEILING]
    assert {one["target"] for one in result["scores"]} == {"choice", *transfer.TRACES, "bits_per_spike"}
    assert all(one["session"].startswith("synthetic") for one in result["sessions"])
    assert any("mean of all" in line for line in out)
    assert (tmp_path / "x.png").stat().st_size > 5_000
