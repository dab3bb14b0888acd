"""Every measurement leaves the same kind of report; what is measured is what the repository's results hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import report
from benchmarks.accuracy import compare as accuracy
from benchmarks.cost import ensembles, kernels, train_throughput
from benchmarks.latency import compare
from neds_core.errors import ConfigError, DataError
from runtime.cli import commands as cli

RESULTS = Path(__file__).parents[4] / "benchmarks" / "results"


def kept(name: str, kind: Any = dict) -> Callable[..., Any]:
    """A measurement that gives what an earlier one gave."""
    found = msgspec.json.decode((RESULTS / name).read_bytes(), type=kind)
    return lambda *given, **named: found


MEASURED = {
    "kernels --out {}": ("kernels", kernels, kept("kernels-cpu.json")),
    "kernels --ensembles --out {}": ("kernels-ensembles", ensembles, kept("ensembles-cpu.json")),
    "train --out {}": ("train", train_throughput, kept("train-throughput-cpu.json", train_throughput.Table)),
    "accuracy --quick --out rows.jsonl --report {}": ("accuracy", accuracy, lambda *given, **named: []),
}


@pytest.mark.parametrize("words", MEASURED)
def test_a_measurement_leaves_a_report_and_its_page(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --json prints is what the file holds, with all that it held before; the page holds the table."""
    kind, where, measured = MEASURED[words]
    monkeypatch.setattr(where, "run", measured)
    out = tmp_path / "found.json"
    cli.app(["bench", *words.format(out).split(), "--json"], standalone_mode=False)
    printed = capsys.readouterr().out.splitlines()
    found = report.load(out)
    assert found == json.loads(printed[-1])
    assert (found["kind"], found["schema"]) == (kind, report.SCHEMA)
    assert {"created", "command", "machine"} <= set(found)
    assert {"git", "limits", "governor"} <= set(found["machine"])
    if before := msgspec.to_builtins(measured()):
        assert set(before) <= set(found)
        assert found["rows"] == before["rows"]
        assert set(before["machine"]) <= set(found["machine"])
    page = out.with_suffix(".html").read_text()
    assert all(escape(line) in page for line in printed[:-1])
    assert page.count("data:image/png;base64,") == (kind == "kernels")
    with pytest.raises(DataError, match=f"a report of {kind} has no seconds to compare"):
        compare.compare(found, found)


@pytest.mark.parametrize("words", MEASURED)
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(MEASURED[words][1], "run", lambda *given, **named: calls.append(given))
    for path, said in (("a.txt", "is no .json"), ("gone/a.json", "its folder does not exist")):
        with pytest.raises(ConfigError, match=said):
            cli.app(["bench", *words.format(tmp_path / path).split()], standalone_mode=False)
    assert calls == []
