"""What a run is measured beside: hogs, missing rights, and the conditions of a rig."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.latency import conditions, hogs
from benchmarks.latency.bench import Asked
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.cli.bench import asking
from runtime.cli.bench.asking import Options
from runtime.config import InputConfig, RigConfig
from runtime.start import command

SAY = "from runtime.io import system; print(system.raise_priority())"


def test_each_hog_works_until_it_is_ended_and_tells_how_much(tmp_path: Path) -> None:
    """All three at once, so that a start is paid once; none of their processes is left."""
    mine = psutil.Process()
    before = {child.pid for child in mine.children(recursive=True)}
    with hogs.beside([*hogs.KINDS], tmp_path) as did:
        while not (tmp_path / "hog.bin").exists() or len(mine.children(recursive=True)) < len(before) + 4:
            time.sleep(0.05)  # the suite's own limit ends a test that waits in vain
        time.sleep(1.0)
    assert set(did) == set(hogs.KINDS)
    assert did["cpu"]["processes"] == psutil.cpu_count()
    assert did["cpu"]["cpu_s"] > 0.0
    assert did["disk"]["fsyncs"] >= 1
    assert (tmp_path / "hog.bin").stat().st_size <= hogs.FILE_BYTES
    assert {child.pid for child in mine.children(recursive=True)} <= before


def test_the_memory_hog_passes_more_than_the_last_level_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("index0", "32K"), ("index3", "300M")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(text + "\n")
    monkeypatch.setattr(hogs, "CACHES", tmp_path)
    monkeypatch.setattr(hogs, "MOST_SHARE", 1e6)
    assert hogs.memory_bytes() == 600 << 20
    (tmp_path / "index3" / "size").write_text("8M\n")
    assert hogs.memory_bytes() == hogs.LEAST_BYTES
    monkeypatch.setattr(hogs, "MOST_SHARE", 0.0)
    assert hogs.memory_bytes() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights are of Linux")
def test_a_command_without_rights_is_granted_nothing() -> None:
    """As root it gives up what root has."""
    line = command("benchmarks.latency.ungranted", sys.executable, "-c", SAY)
    said = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]).stdout
    assert said.startswith("normal (SCHED_FIFO was not granted")
    assert said.strip().endswith("memory not locked")


def test_the_conditions_of_a_rig_are_all_different_and_begin_with_the_rig_itself(
    tmp_path: Path, make_checkpoint: type[Checkpoint]
) -> None:
    """Every hog, every decoder, every weight precision, and one network where it lies beside several."""
    path = tmp_path / "ensemble.safetensors"
    checkpoints.save(make_checkpoint(), path)
    behaviours = {"x": "s-x", "y": "s-y"}
    given = RigConfig("test", str(path), InputConfig("s", markers="m", behaviours=behaviours))
    asked = Asked(given, seconds=1.0)
    found = dict(conditions.conditions(asked))
    assert len({repr(each) for each in found.values()}) == len(found)
    assert next(iter(found.items())) == ("as it is, 4 streams", asked)
    assert {each.hogs for each in found.values()} == {(), *((kind,) for kind in hogs.KINDS)}
    assert {each.load.streams for each in found.values()} == {0, 2, 3}
    assert {each.config.engine.weights for each in found.values()} == {"float32", "bfloat16", "int8"}
    assert {"decoder ridge", "decoder neds", "decoder blend"} <= set(found)
    assert "one network" not in found
    checkpoints.save(make_checkpoint(), tmp_path / conditions.ONE_NETWORK)
    alone = dict(conditions.conditions(asked))["one network"]
    assert alone.config.checkpoint.endswith(conditions.ONE_NETWORK)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Options(hog=["gpu"]), "--hog 'gpu' is not known; choose one of cpu, memory, disk"),
        (Options(hog=["cpu", "cpu"]), "--hog cpu was given twice"),
        (Options(hog=["cpu"], saturated=True), "--saturated takes neither --hog nor --normal-priority"),
        (Options(sweep="units", hog=["cpu"]), "--sweep sets --hog itself"),
        (Options(sweep="all", normal_priority=True), "--sweep sets --normal-priority itself"),
        (Options(sweep="time"), "--sweep 'time' is not known; choose one of units, rate, bins, all, conditions"),
        (Options(sweep="all", seconds=0.0), "--seconds 0.0: is no duration"),
    ],
)
def test_loads_that_cannot_be_meant_are_refused(given: Options, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        asking.check(given)
