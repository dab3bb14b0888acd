"""The budget, and what a comparison calls worse."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from benchmarks import report
from benchmarks.latency import (
    bench,
    budget,
    case,
    compare,
    figures,
    floor,
    launches,
    measured,
    saturated,
    sweep,
    watch,
    words,
)
from benchmarks.latency.budget import Limit
from neds_core import checkpoint as checkpoints
from neds_core.data import session_file
from neds_core.errors import ConfigError, DataError
from runtime import config
from tests.benchmarks.latency.scripted import Scripted

PART = {"p50": 0.1, "p90": 0.1, "p99": 0.2, "p99.9": 0.2, "max": 0.2, "n": 100}


def made(seed: int = 0, seconds: int = 24, slow_ms: float = 0.0) -> dict[str, Any]:
    """A report of a run whose waits vary; slow_ms: the engine takes so much longer once a second."""
    rng, run = np.random.default_rng(seed), Scripted(50 * seconds)
    while run.next < 50 * seconds:
        slow = slow_ms if run.next % 50 < 3 else 0.0
        closed = 1 if run.next * 20.0 + 20.0 >= run.now else int((run.now - run.next * 20.0) // 20.0)
        closed = min(max(1, closed), 50 * seconds - run.next)
        run.passes(closed=closed, wait=float(rng.gamma(4.0, 0.2)) if closed == 1 else 0.0, infer=0.3 + slow)
    where = {
        "mode": "paced", "seconds": seconds, "warm_up_s": 0.0, "units": 3, "bin_ms": 20.0, "budget_ms": 20.0,
        "decoder": "neds", "engine": "e", "stopped_by": "seconds",
        "scheduling": "normal", "checkpoint_sha256": "a" * 64, "config_sha256": "b",
        "load": {"rate": 100.0, "burst": 0, "push_ms": 0.0, "streams": 1, "recording": ""},
    }  # fmt: skip
    return finished(report.begun("latency") | where | launches.joined([measured.of(run.taken(), 0.0)]))


def finished(found: dict[str, Any]) -> dict[str, Any]:
    floor = {"timer": PART, "lsl": PART, "zmq": PART, "p50": 0.3, "p99": 0.6}
    found |= {"floor_ms": floor, "memory_copy_gb_s": 5.0}
    return found | {"not_ours_ms": measured.not_ours(found)}


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    return made()


@pytest.fixture(scope="module")
def slow() -> dict[str, Any]:
    return made(1, slow_ms=50.0)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("p99=10ms,miss=1e-4", {"p99": Limit(10.0), "miss": Limit(1e-4)}),
        ("p99.9=500us, max=0.02s", {"p99.9": Limit(0.5), "max": Limit(20.0)}),
        ("miss=0", {"miss": Limit(0.0)}),
        ("p50=1ms,p99=floor+1ms", {"p50": Limit(1.0), "p99": Limit(1.0, over_floor=True)}),
    ],
)
def test_a_budget_is_read(text: str, limits: dict[str, Limit]) -> None:
    assert budget.parse(text) == limits


def test_a_budget_above_the_floor_moves_with_it(quick: dict[str, Any]) -> None:
    """The same run on a machine that takes less itself has more of its own."""
    room = quick["edge_to_pub_ms"]["p99"] - quick["floor_ms"]["p99"]
    limits = budget.parse(f"p99=floor+{room + 0.01:.3f}ms")
    assert budget.broken(limits, quick) == ""
    said = budget.broken(limits, quick | {"floor_ms": quick["floor_ms"] | {"p99": 0.1}})
    assert "(the budget is the floor 0.1 and " in said


@pytest.mark.parametrize(
    "text", ["", "p98=10ms", "p99", "p99=10", "p99=ms", "p99=1.2.3ms", "miss=2", "miss=no", "p99=-1ms", "max=floor+1ms"]
)
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--budget .*(10ms|1e-4)"):
        budget.parse(text)


def test_a_budget_is_broken_in_one_sentence_that_names_the_stage(quick: dict[str, Any], slow: dict[str, Any]) -> None:
    limits = budget.parse("p99=10ms,miss=1e-3")
    assert budget.broken(limits, quick) == ""
    said = budget.broken(limits, slow)
    assert said.startswith("budget broken: p99 of edge_to_pub_ms is ")
    assert f"{slow['deadline_misses']} of 1200 deadlines were missed" in said
    assert f"{slow['deadline_misses']} infer" in said


def test_a_measurement_without_a_sample_keeps_no_budget(quick: dict[str, Any]) -> None:
    nothing = quick | {"scheduled": 0, "deadline_misses": 0, "edge_to_pub_ms": dict.fromkeys(PART)}
    assert budget.broken({"miss": Limit(1.0)}, nothing)
    assert budget.broken({"p99": Limit(10.0)}, nothing)


@pytest.mark.parametrize("seed", range(2, 6))
def test_two_runs_of_one_kind_are_not_told_apart(quick: dict[str, Any], seed: int) -> None:
    assert [c.word for c in compare.compare(quick, made(seed))] == [""] * len(compare.compare(quick, quick))


def test_a_sleep_in_one_stage_is_found_and_named(quick: dict[str, Any], slow: dict[str, Any]) -> None:
    found = {c.name for c in compare.worse(compare.compare(quick, slow))}
    assert {"edge_to_pub_ms max", "infer_ms max", "missed deadlines"} <= found
    assert not any(name.startswith(("send_ms", "sub_ms", "take_ms")) for name in found)
    assert {c.name for c in compare.compare(slow, quick) if c.word == "better"} == found


def test_launches_are_joined_as_one_run_of_which_each_is_still_told(
    quick: dict[str, Any], slow: dict[str, Any]
) -> None:
    both = launches.joined([quick, slow])
    assert both["scheduled"] == 2400
    assert both["deadline_misses"] == slow["deadline_misses"] == sum(both["miss_causes"].values())
    assert both["edge_to_pub_ms"]["n"] == 2400
    assert both["tokens"] == {"closed": 2400, "idle": 0, "invalid": 0, "without_live_data": 0}
    assert both["edge_to_pub_ms"]["max"] == slow["edge_to_pub_ms"]["max"]
    assert quick["edge_to_pub_ms"]["p99"] < both["edge_to_pub_ms"]["p99"] < slow["edge_to_pub_ms"]["p99"]
    assert both["blocks"]["launch"] == [0] * 24 + [1] * 24
    assert both["blocks"]["infer_ms"]["max"] == quick["blocks"]["infer_ms"]["max"] + slow["blocks"]["infer_ms"]["max"]
    assert [miss["t_s"] for miss in both["misses"]] == pytest.approx([24.0 + m["t_s"] for m in slow["misses"]])
    assert [one["edge_to_pub_ms"] for one in both["launches"]] == [quick["edge_to_pub_ms"], slow["edge_to_pub_ms"]]
    assert launches.joined([quick])["edge_to_pub_ms"] == quick["edge_to_pub_ms"]


def several(*shift_ms: float) -> dict[str, Any]:
    """A report of as many launches, in which all waits of a launch are shifted by so much."""
    parts = []
    for seed, shift in enumerate(shift_ms):
        part = made(seed, 12)
        for name in ("wait_ms", "edge_to_pub_ms"):
            for s, values in part["blocks"][name].items():
                part["blocks"][name][s] = [None if v is None else v + shift for v in values]
        parts.append(part)
    return parts[0] | launches.joined(parts)


def test_what_two_launches_of_one_code_differ_by_is_noise() -> None:
    """Paired seconds alone would call it a change: within a launch nothing shows it."""
    worse = {c.name for c in compare.worse(compare.compare(several(0.0, 0.7, 0.1), several(0.7, 0.0, 0.8)))}
    assert worse == set()
    worse = {c.name for c in compare.worse(compare.compare(several(0.0, 0.1, 0.0), several(0.7, 0.8, 0.8)))}
    assert {"wait_ms p50", "edge_to_pub_ms p50"} <= worse
    with pytest.raises(DataError, match=r"launches \(3, 2\)"):
        compare.compare(several(0.0, 0.0, 0.0), several(0.0, 0.0))


def test_what_a_slower_machine_explains_is_no_change(quick: dict[str, Any]) -> None:
    """All that takes a third longer does, in the sender as well; its own sleep would still show."""
    slower = copy.deepcopy(quick)
    for name, block in slower["blocks"].items():
        if name.endswith("_ms") and isinstance(block, dict):
            for statistic, values in block.items():
                block[statistic] = [None if v is None else 1.3 * v for v in values]
    assert compare.drift(quick, slower) == pytest.approx({"p50": 0.3, "max": 0.3}, abs=0.01)
    assert compare.worse(compare.compare(quick, slower)) == []
    for statistic in ("p50", "max"):
        slower["blocks"]["push_ms"][statistic] = quick["blocks"]["push_ms"][statistic]
    assert {"edge_to_pub_ms p50", "wait_ms max"} <= {c.name for c in compare.worse(compare.compare(quick, slower))}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("checkpoint_sha256", "c" * 64, "checkpoint (aaaaaaaaaaaa, cccccccccccc)"),
        ("bin_ms", 10.0, "bin width (20.0, 10.0)"),
        ("scheduling", "SCHED_FIFO 10", "scheduling granted (normal, SCHED_FIFO 10)"),
        ("cores", 64, "cores ("),
    ],
)
def test_unlike_runs_are_refused_unless_forced(quick: dict[str, Any], key: str, value: object, said: str) -> None:
    other = copy.deepcopy(quick)
    (other["machine"] if key == "cores" else other)[key] = value
    with pytest.raises(DataError, match="--force") as refused:
        compare.compare(quick, other)
    assert said in str(refused.value)
    assert compare.worse(compare.compare(quick, other, force=True)) == []


def test_runs_that_are_too_short_are_refused(quick: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the shorter one has 10 blocks, 16 are needed; measure for longer"):
        compare.compare(quick, made(1, seconds=10) | {"seconds": 24})


def test_a_report_is_read_as_it_was_written_and_others_are_refused(quick: dict[str, Any], tmp_path: Path) -> None:
    report.save(quick, tmp_path / "a.json")
    assert report.load(tmp_path / "a.json") == quick
    (tmp_path / "text.json").write_text("no report")
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "new.json").write_text('{"schema": 99, "kind": "latency"}')
    for name, said in {"gone": "does not exist", "text": "no report", "other": "no report", "new": "schema 99"}.items():
        with pytest.raises(DataError, match=said):
            report.load(tmp_path / f"{name}.json")


def test_the_page_holds_the_table_and_its_pictures_and_loads_nothing(slow: dict[str, Any], tmp_path: Path) -> None:
    pictures = figures.draw(slow, tmp_path / "run")
    report.page(slow, words.lines(slow), pictures, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(pictures) == 2
    assert not any(word in page for word in ("http:", "https:", "<script", "<link", 'src="/'))
    for line in words.lines(slow):
        assert line.split()[0].replace("&", "&amp;") in page
    assert f"by stage: infer {slow['deadline_misses']}" in page


def test_a_sweep_that_is_stopped_has_kept_what_it_measured(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The points before the stop, in the tables that they belong to; the runs themselves are another's test."""
    one, kept = quick | {"counters": {"spikes_lost_upstream": 0}}, list[dict[str, Any]]()
    results = iter([one, one])

    def paced(asked: object, **given: object) -> dict[str, Any]:
        if (found := next(results, None)) is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(bench, "paced", paced)
    monkeypatch.setattr(floor, "measure", lambda seconds: quick["floor_ms"])
    with pytest.raises(KeyboardInterrupt):
        sweep.run(("units", "bins"), 1.0, 0.0, keep=kept.append)
    loads = {name: [row["load"] for row in rows] for name, rows in kept[-1]["tables"].items()}
    assert loads == {"units": ["100 units", "449 units"], "bins": ["bins of 20 ms"]}


def test_a_sweep_says_which_load_breaks_the_budget_and_where(
    quick: dict[str, Any], slow: dict[str, Any], tmp_path: Path
) -> None:
    rows = [
        {"load": f"{n} units", "units": n} | sweep.row(one | {"counters": {"spikes_lost_upstream": 0}})
        for n, one in ((100, quick), (2000, slow))
    ]
    found = sweep.finished({"units": rows, "conditions": rows}, 24.0, quick["floor_ms"])
    assert [row["broken"] for row in rows] == [False, True]
    table = list(sweep.lines(found))
    assert table[0].startswith("10,000 spikes/s, bins of 20 ms ")
    assert table[2].startswith("2000 units")
    assert table[1].endswith("not shown")
    assert table[2].endswith("infer  broken")
    assert table[3] == table[-2] == "the budget of 2 loads: 0 kept, 1 broken, 1 not shown"
    pictures = figures.draw(found, tmp_path / "s")
    report.page(found, table, pictures, tmp_path / "s.html")
    assert (tmp_path / "s.html").read_text().count("data:image/png") == 1


@given(of=st.integers(1, 100_000), missed=st.integers(0, 50))
def test_a_load_is_broken_by_more_misses_than_chance_gives_a_run_within_the_budget(of: int, missed: int) -> None:
    """By the Poisson tail, summed up directly; one more miss never mends it."""
    expected = sweep.BROKEN * of
    tail = 1.0 - sum(math.exp(-expected) * expected**k / math.factorial(k) for k in range(missed))
    assert sweep.broken(missed, of) == (missed > 0 and tail < sweep.SURE)
    assert sweep.broken(missed + 1, of) >= sweep.broken(missed, of)


@pytest.mark.parametrize(
    ("missed", "of", "said"),
    [
        (0, 200, "not shown"), (0, sweep.ENOUGH - 1, "not shown"), (0, sweep.ENOUGH, "kept"), (1, 4000, "not shown"),
        (1, 5000, "kept"), (5, 200, "broken"), (9, 3000, "broken"), (0, 0, "not shown"),
    ],
)  # fmt: skip
def test_a_budget_is_kept_only_where_enough_bins_show_it(
    quick: dict[str, Any], missed: int, of: int, said: str
) -> None:
    counted = {"deadline_misses": missed, "scheduled": of, "counters": {"spikes_lost_upstream": 0}}
    made = sweep.row(quick | counted)
    assert sweep.word(made) == said
    assert made["miss_share_at_most"] >= made["miss_share"]


@pytest.mark.parametrize("bin_ms", sorted({p.bin_ms for points in sweep.POINTS.values() for p in points}))
def test_every_bin_width_of_a_sweep_is_one_that_a_rig_may_have(bin_ms: float, tmp_path: Path) -> None:
    """Its files are read as a run reads them."""
    point = sweep.Point(units=8, rate=100.0, bin_ms=bin_ms)
    asked = sweep.asked(point, 1.0, 0.0)
    made = case.prepare(tmp_path, asked.config, asked.load, 1.0, asked.checkpoint)
    read = config.load(made.rig)
    assert read.bins.lateness_ms < read.output.budget_ms == bin_ms
    assert checkpoints.load(Path(read.checkpoint)).header.bin_ns == bin_ms * 1e6
    played = session_file.load(made.recording)
    assert played.bin_ns == bin_ms * 1e6
    assert len(played.units) == 8


def test_a_pause_back_to_back_counts_for_the_bins_that_it_held_up() -> None:
    """100 bins of 1 ms and one of 50: it stands for those that would have come 49, 48, ... ms earlier."""
    found = saturated.corrected(np.array([1e6] * 100 + [50e6], np.int64))
    assert found.histogram.get_total_count() == 100 + 50
    assert found.summary_ms()["p90"] == pytest.approx(36.0, abs=2.0)


def test_a_watched_machine_keeps_its_last_result_until_one_is_no_worse(
    quick: dict[str, Any], slow: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worse one lies beside it; after another checkpoint there is nothing to compare with."""
    last, runs = tmp_path / "latency-here.json", tmp_path / "runs"
    assert watch.judge(quick, last, runs) == 0
    assert watch.judge(slow, last, runs) == 3
    assert (report.load(last), report.load(runs / last.name)) == (quick, slow)
    again = made(7)
    assert watch.judge(again, last, runs) == 0
    assert report.load(last) == again
    assert watch.judge(slow | {"checkpoint_sha256": "c" * 64}, last, runs) == 0
    assert "unlike: checkpoint (aaaaaaaaaaaa, cccccccccccc)" in capsys.readouterr().out
