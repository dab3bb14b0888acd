"""Peers are judged by what a subscriber received: latencies, ages, equality, and the gate over them."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.latency.peers import decoders, heard, rows, table
from benchmarks.latency.peers.heard import Messages, Sent
from runtime.cli import main as cli
from runtime.wire import Flag

MS = 1_000_000
BIN = 20 * MS


# --- what was received ---


def messages(*rows: dict[str, Any]) -> Messages:
    """Messages by their ends in bins; published 1 ms after their bin and received 1 ms later, unless said."""
    found = []
    for row in rows:
        end = row["end"] * BIN
        pub = row.get("pub", end + MS)
        value = row.get("value", 1.0)
        found.append((row.get("recv", pub + MS), pub, end, row.get("flags", 0), MS, row.get("until", 2**62), value))
    *ints, values = np.array(found, object).T
    return Messages(*(np.array(each, np.int64) for each in ints), values=np.array(values, float)[:, None])


def sent(bins: int = 200, stall: tuple[int, int] = (100 * BIN, 150 * BIN)) -> Sent:
    """A chunk every 5 ms, out at once, none in the stall; a trial of all bins."""
    due = np.arange(0, bins * BIN, BIN // 4)
    out = np.where((due >= stall[0]) & (due < stall[1]), stall[1], due)
    edges = (np.arange(bins) + 1) * BIN
    return Sent(edges, np.arange(bins), np.zeros(bins, int), np.stack([due, due, out], 1), stall)


@pytest.mark.parametrize(
    ("row", "empty", "old"),
    [
        ({"end": 100}, 0, 0),  # its bin was over before the stall
        ({"end": 105}, 1, 0),
        ({"end": 105, "value": np.nan}, 0, 0),
        ({"end": 105, "flags": int(Flag.GAP)}, 0, 0),
        ({"end": 105, "until": 105 * BIN}, 0, 0),
        ({"end": 105, "pub": 151 * BIN}, 0, 1),  # its data came with the rest, a second late
        ({"end": 105, "pub": 151 * BIN, "flags": int(Flag.STALE)}, 0, 0),
        ({"end": 98, "pub": 101 * BIN}, 0, 1),  # 60 ms after its bin
        ({"end": 151}, 0, 0),
        ({"end": 60, "pub": 70 * BIN}, 0, 0),  # not around the stall
    ],
)
def test_the_age_of_a_message_is_judged(row: dict[str, Any], empty: int, old: int) -> None:
    found = heard.wrong_ages(sent(), messages(row), BIN)
    assert (found["empty"], found["old"]) == (empty, old)


def test_values_after_the_stall_are_counted() -> None:
    found = heard.wrong_ages(sent(), messages({"end": 160}, {"end": 161, "value": np.nan}, {"end": 162}), BIN)
    assert (found["back"], found["after"]) == (2, 50)
    assert heard.wrong_ages(sent(stall=(0, 0)), messages({"end": 105}), BIN)["empty"] == 0


def test_a_bin_is_charged_until_what_replaced_it() -> None:
    """Bins 1 to 5: 1 in time, 2 and 3 served by 3, 4 and 5 by nothing; at the deadlines a client has what had come."""
    found = messages({"end": 1, "value": 1.0}, {"end": 3, "pub": 3 * BIN + 15 * MS, "value": 3.0})
    pub, recv = heard.served(sent(), found, np.arange(5), 9 * BIN)
    assert (pub // MS).tolist() == [1, 35, 15, 100, 80]
    assert (recv - pub).tolist()[:3] == [MS] * 3
    held = heard.delivered(sent(), found, np.arange(5))[:, 0]
    assert held.tolist() == [1.0, 1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    "row", [{"value": np.nan}, {"end": 2.5}, {"end": 250}], ids=["no value", "no bin", "not a bin of a trial"]
)
def test_a_message_without_a_value_or_without_a_bin_serves_nothing(row: dict[str, Any]) -> None:
    """Whoever sends it: bin 2 is served by what replaced it, as if the message had not come."""
    others = [{"end": 1}, {"end": 3}]
    with_it = heard.served(sent(), messages(*others, {"end": 2} | row), np.arange(3), 9 * BIN)
    assert (with_it[0] // MS).tolist() == [1, 21, 1]
    assert np.array_equal(with_it, heard.served(sent(), messages(*others), np.arange(3), 9 * BIN))


def made_row(size: str, program: str, decoder: str, step: float, p99: float, **more: Any) -> dict[str, Any]:
    times = {"p50": p99 / 2, "p90": p99, "p99": p99, "p99.9": p99, "max": p99}
    stall = {"messages": 50, "empty": 0, "old": 0, "after": 40, "back": 40}
    made = {"step_ms": times | {"p50": step}, "edge_to_pub_ms": times, "edge_to_sub_ms": times, "stall": stall}
    made |= {"deadline_misses": 0, "scheduled": 94, "r2": None}
    if decoder in ("neds", *decoders.EQUAL):
        made |= {"received_max_abs": 1e-6, "received": 94, "received_of": 94, "received_unequal": 0}
    where = {"name": decoder, "size": size, "program": program, "decoder": decoder, "skipped": "", "wrong": ""}
    where["weights"] = "float32"
    return where | made | more


FOUND = [
    made_row("published", "run", "neds", 1.0, 2.0), made_row("demo", "run", "neds", 0.1, 1.0),
    made_row("published", "loop", "kv", 6.0, 8.0), made_row("published", "loop", "eager", 70.0, 99.0),
    made_row("published", "loop", "compile", 40.0, 99.0), made_row("", "loop", "kalman", 0.02, 1.5),
    made_row("published", "loop", "onnx", 50.0, 99.0),
    *(made_row("published", "run", "neds", 0.7, 1.9, weights=weights, name=weights) for weights in rows.SMALLER),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (0, {}, ""),
        (2, {"step_ms": {"p50": 4.9}}, "4.9 times faster than kv: the gate is 5"),
        (4, {"step_ms": {"p50": 29.0}}, "29.0 times faster than full: the gate is 30"),
        (5, {"edge_to_pub_ms": {"p99": 0.6}}, "p99 of edge_to_pub_ms of neds (demo) is 1.67 times"),
        (8, {"edge_to_pub_ms": {"p99": 3.0}}, "p99 of edge_to_pub_ms of int8 (published) is 2.0 times"),
        (8, {"received_max_abs": 0.09}, ""),  # what int8 may cost
        (
            8,
            {"received_max_abs": 0.11, "received_unequal": 1},
            "int8 (published): received values of 1 of 94 bins are off, by up to 1.10e-01: the gate is 0.1",
        ),
        (8, {"step_ms": {"p50": 99.0}}, ""),  # full forwards and the cache are held to float32
        (1, {"stall": {"empty": 1, "old": 2}}, "sent 3 messages of a wrong age"),
        (0, {"received": 92}, "neds (published): values of 92 of 94 bins were received: the gate is 0.99"),
        (2, {"received": 0, "received_of": 0, "received_max_abs": None}, "values of 0 of 0 bins were received"),
        (3, {"received": 40, "received_of": 40}, ""),  # late in all others, which cost it their latency
        (4, {"received_unequal": 9, "received_max_abs": 0.1, "deadline_misses": 94}, ""),  # bins without their spikes
        (0, {"received_unequal": 1, "received_max_abs": 0.1, "deadline_misses": 94}, "neds (published): received"),
        (4, {"received_unequal": 1, "received_max_abs": 2e-4}, "compile (published): received values of 1 of 94 bins"),
        (3, {"wrong": "off by 2.00e-03, more than 0.0001"}, "eager (published) is off by 2.00e-03"),
    ],
)
def test_the_gate(place: int, change: dict[str, Any], words: str) -> None:
    found = copy.deepcopy(FOUND)
    found[place] |= change
    told = table.gate(found)
    assert told["passed"] is (not words)
    assert any(words in line for line in told["broken"]) == bool(words)


def test_what_was_not_measured_has_no_ratio_and_a_reason() -> None:
    skipped = {name: value for name, value in FOUND[3].items() if name != "step_ms"} | {"skipped": "not installed"}
    told = table.gate([FOUND[0], skipped])
    assert (told["ratios"], told["broken"], told["passed"]) == ({}, [], None)
    assert set(table.RATIOS) == {line.split()[0] for line in told["incomplete"]}
    assert "full forward, torch eager (published): not installed" in told["incomplete"][0]
    lines = list(table.lines({"rows": [FOUND[0], skipped], "gate": told, "rounds": 1, "trials": 2, "tail_launches": 3}))
    assert "| eager | not installed | | | | | | |" in lines
    assert "the gate holds" not in lines
    assert [line for line in lines if line.startswith("incomplete: kv_step lacks torch KV cache (published)")]


@pytest.mark.parametrize("place", range(len(FOUND)))
def test_a_gate_without_one_of_its_rows_does_not_hold(place: int) -> None:
    """Also without the strongest of several peers, though the ratio over the others is as good as it has to be."""
    told = table.gate([row for k, row in enumerate(FOUND) if k != place])
    assert told["passed"] is None
    assert told["incomplete"]
    assert not told["broken"]


def test_a_tail_is_held_to_no_row_that_fails() -> None:
    """A Kalman filter whose machine gave it no time is late in everything: any other tail would look short."""
    found = copy.deepcopy(FOUND)
    found[5] |= {"deadline_misses": 45, "edge_to_pub_ms": {"p99": 900.0}}
    told = table.gate(found)
    assert told["passed"] is None
    assert {line.split(" lacks ")[0] for line in told["incomplete"]} == set(table.RATIOS) - set(table.LEAST)
    assert told["incomplete"][0].endswith("kalman: missed 45 of 94, measure again")


# --- a real run ---


@pytest.mark.slow
def test_two_rows_are_measured_over_real_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours and a ridge on the demo: only the ridge makes values of nothing."""
    out = tmp_path / "peers.json"
    given = ["--quick", "--only", "^(demo ours|ridge, numpy)$", "--out", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", ["neds-rt", "bench", "peers", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, 3)  # a busy machine may break a ratio
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, ridge = found["rows"]
    assert found["kind"] == "latency-peers"
    assert ours["stall"]["empty"] == ours["stall"]["old"] == 0
    assert ridge["stall"]["empty"] > 30
    assert ours["received_max_abs"] < 1e-4
    assert ours["received"] > 0.9 * ours["received_of"] == 0.9 * 94
    for row in (ours, ridge):
        assert row["scheduled"] == 94
        assert row["step_ms"]["n"] > 0
        assert row["r2"]["wheel_speed"]["value"] > 0.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["peers.cdf.png", "peers.html", "peers.json"]
