"""A soak finds what grows, what breaks and what does not come back; most of it from numbers made by hand."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import given, strategies as st

from benchmarks import report
from benchmarks.latency import soak
from benchmarks.latency.faults import LASTS_S, RECOVERY_S, Fault, plan
from benchmarks.latency.load import Load
from benchmarks.latency.soak import Asked
from benchmarks.latency.witness import Witness, balanced
from neds_core.checkpoint import Checkpoint
from runtime.cli import main as cli
from runtime.config import EngineConfig, InputConfig, RigConfig
from runtime.io.lsl_clock import now_ns
from runtime.wire import Decode, Event, Flag, Output, topic

LEAKY = Path(__file__).with_name("leaky.py")
COUNTERS = {
    "spikes_received": 9, "spikes_binned": 8, "spikes_late": 1, "spikes_lost_upstream": 3, "tokens_closed": 5,
    "tokens_published": 4, "tokens_idle": 1, "deadline_misses": 2,
}  # fmt: skip
FLAT = {"per_hour": 0.0, "low": -1.0, "high": 1.0, "at_least": -0.1}
FAULT = {"kind": "loop stopped", "at_s": 9.0, "lasts_s": 0.2, "said": ["state: RUNNING to STALLED"], "more": 0}
TIMES = {"p50": 1.0, "p90": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0}
FOUND: dict[str, Any] = report.begun("soak") | {
    "seconds": 60.0, "row_s": 60.0, "warm_up_s": 5.0, "seed": 7, "growth": dict.fromkeys(soak.LEAST, FLAT),
    "drift_ms": FLAT, "median_ms": 1.0, "drifts": False, "broken": [], "counters": COUNTERS, "balanced": True,
    "stopped_by": "seconds", "scheduling": "normal", "stolen_ms": 0.0, "budget_ms": 20.0,
    "faults": [FAULT | {"back_after_s": 0.1}], "samples": [[5.0, 400.0, 20, 60], [65.0, 400.0, 20, 60]],
    "rows": [{
        "from_s": 0.0, "n": 3000, "edge_to_pub_ms": TIMES, "deadline_misses": 0, "rss_mb": 400.0, "threads": 20,
        "files": 60, "counters": {"spikes_received": 9}, "unbalanced": 0,
    }],
}  # fmt: skip


# --- what grows ---


@given(st.floats(-50.0, 50.0), st.floats(0.0, 500.0), st.integers(8, 400), st.floats(0.5, 60.0))
def test_a_line_is_found_as_steep_as_it_is(per_s: float, at: float, n: int, step_s: float) -> None:
    t = np.arange(n) * step_s
    found = soak.slope(t, at + per_s * t)
    assert found["per_hour"] == pytest.approx(per_s * 3600.0, abs=0.01)
    assert found["at_least"] == pytest.approx(per_s * t[-1], abs=0.01)


@given(st.integers(0, 2**32))
def test_noise_is_no_leak_and_a_leak_is_seen_through_it(seed: int) -> None:
    """Of a megabyte, beside 8 MB an hour over two hours."""
    t = np.arange(7200.0)
    noise = np.random.default_rng(seed).normal(400.0, 1.0, len(t))
    still, grown = soak.slope(t, noise), soak.slope(t, noise + 8.0 * t / 3600.0)
    assert still["at_least"] is not None
    assert still["at_least"] < 1.0
    assert grown["at_least"] is not None
    assert grown["at_least"] > soak.LEAST["rss_mb"]


def test_too_short_a_soak_has_no_slope() -> None:
    assert set(soak.slope(np.arange(7.0), np.arange(7.0)).values()) == {None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"growth": FOUND["growth"] | {"rss_mb": FLAT | {"at_least": 8.0}}}, "memory of the loop (MB) grows by"),
        ({"growth": FOUND["growth"] | {"files": FLAT | {"at_least": 9.0}}}, "its open files grows by"),
        ({"balanced": False}, "conservation is broken"),
        ({"rows": [FOUND["rows"][0] | {"unbalanced": 2}]}, "conservation is broken: in 2 of the statuses"),
        ({"stopped_by": "stream_changed"}, "ended by stream changed"),
        ({"rows": []}, "nothing was heard"),
        ({"faults": [FAULT | {"back_after_s": None}]}, "after loop stopped at 9 s the run did not come back"),
    ],
)
def test_what_fails_a_soak_is_a_sentence(change: dict[str, Any], says: str | None) -> None:
    said = list(soak.broken(FOUND | change))
    assert len(said) == (says is not None)
    assert says is None or says in said[0]
    assert list(soak.lines(FOUND | change | {"broken": said}))[-1] == ("FAIL" if says else "PASS")


def test_a_drift_of_the_median_counts_where_it_matters() -> None:
    assert not soak.drifts(FOUND)
    assert soak.drifts(FOUND | {"drift_ms": FLAT | {"at_least": 0.3}})
    assert not soak.drifts(FOUND | {"drift_ms": FLAT | {"at_least": 0.3}, "median_ms": 10.0})


def test_laws_are_judged_by_the_counters_alone() -> None:
    assert balanced(COUNTERS)
    assert not balanced(COUNTERS | {"spikes_late": 2})
    assert not balanced(COUNTERS | {"tokens_idle": 0})


def test_the_page_holds_table_and_picture(tmp_path: Path) -> None:
    report.page(FOUND, soak.lines(FOUND), soak.draw(FOUND, tmp_path / "s"), tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "loop stopped for 0.2 s; decoding again 0.1 s later" in page


# --- faults ---


@given(st.integers(0, 10**6), st.floats(10.0, 5000.0), st.floats(3.0, 300.0))
def test_faults_follow_from_the_seed_and_leave_time_to_recover(seed: int, seconds: float, every_s: float) -> None:
    found = plan(seed, 5.0, 5.0 + seconds, every_s)
    assert found == plan(seed, 5.0, 5.0 + seconds, every_s)
    ends = [5.0 - RECOVERY_S, *(fault.end_s for fault in found)]
    for fault, before_s in zip(found, ends, strict=False):
        least, most = LASTS_S[fault.kind]
        assert fault.at_s >= before_s + RECOVERY_S
        assert least - 1e-3 <= fault.lasts_s <= most + 1e-3
        assert fault.end_s + RECOVERY_S <= 5.0 + seconds
    for k in range(0, len(found) - 3, 4):
        assert {fault.kind for fault in found[k : k + 4]} == set(LASTS_S)


# --- the witness ---


def message(
    seq: int, token: int, took_ms: float, flags: int = 0, state: str = "RUNNING", value: float | None = 1.0,
    start_ns: int = 0,
) -> Decode:  # fmt: skip
    t_end = start_ns + token * 20_000_000
    return Decode(
        1, seq, token, t_end, t_end + round(took_ms * 1e6), "", "live", [], "neds", "e",
        {"x": Output(value), "c": Output(probs=[0.5, 0.5])}, None, 0.1, took_ms, state, flags, 0, 0.0, "", "",
    )  # fmt: skip


LATER = Fault("loop stopped", 9.0, 0.1)


def back(messages: list[tuple[float, str, float | None, float]]) -> float | None:
    """What is told of a fault from 2 to 3 s; messages by when they came, state, value, and when their bin began, in s
    after the start. 100 bins a trial, 2 s between."""
    witness = Witness("tcp://127.0.0.1:9", 0, 20_000_000, 60.0, 0.0)
    witness.close()
    for k, (came_s, state, value, began_s) in enumerate(messages):
        token = round(began_s / 0.02) + 1
        witness.estimate(message(k, token, 1.0, state=state, value=value, start_ns=witness.began_ns), came_s)
    return soak.told(fault := Fault("sender restarted", 2.0, 1.0), witness, [fault, LATER])["back_after_s"]


BEFORE = [(0.02 * k + 0.02, "RUNNING", 1.0, 0.02 * k) for k in range(100)]


def test_a_sender_of_markers_that_stays_dead_does_not_come_back() -> None:
    """Its loop is IDLE for ever, as between two trials; with one that plays on, the next trial is what tells."""
    dead = [(0.02 * k + 0.02, "IDLE", None, 0.02 * k) for k in range(150, 440)]
    assert back([*BEFORE, *dead]) is None
    again = [(came_s, "RUNNING", 1.0, began_s) for came_s, _, _, began_s in dead if came_s > 5.0]
    assert back([*BEFORE, *dead[:100], *again]) == pytest.approx(2.02, abs=0.03)


@pytest.mark.parametrize(
    ("one", "counts"),
    [
        ((4.0, "RUNNING", 1.0, 3.9), True),
        ((4.0, "DEGRADED", 1.0, 3.9), True),
        ((4.0, "IDLE", 1.0, 3.9), False),
        ((4.0, "STALLED", 1.0, 3.9), False),
        ((4.0, "RUNNING", None, 3.9), False),
        ((4.0, "RUNNING", float("nan"), 3.9), False),
        ((3.1, "RUNNING", 1.0, 2.9), False),  # of what was sent before the fault was over
        ((9.2, "RUNNING", 1.0, 9.1), False),  # after the next fault began
    ],
)
def test_only_a_value_of_a_later_bin_and_before_the_next_fault_is_a_return(
    one: tuple[float, str, float | None, float], counts: bool
) -> None:
    assert (back([*BEFORE, one]) is not None) == counts


def test_a_superseded_bin_is_charged_until_the_message_that_replaced_it() -> None:
    """Over ZeroMQ: three bins closed with one message, one message was lost, one event was told."""
    socket = zmq.Context().socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    witness = Witness(f"tcp://127.0.0.1:{port}", 0, 20_000_000, 60.0, 0.0)
    listening = threading.Thread(target=witness.listen, args=(20.0, lambda now_s: None))
    listening.start()
    time.sleep(0.5)  # a subscription takes a moment
    start_ns = now_ns() - 120_000_000
    for one in (message(k, n, 1.0, start_ns=start_ns) for k, n in ((1, 1), (2, 4), (4, 5))):
        socket.send_multipart([topic("decode", "rig"), msgspec.msgpack.encode(one)])
    socket.send_multipart([topic("event", "rig"), msgspec.msgpack.encode(Event(1, "state", 0, "RUNNING to IDLE"))])
    witness.samples.append((0.0, 400.0, 1, 1))
    socket.send_multipart([topic("decode", "rig"), msgspec.msgpack.encode(message(5, 5, 0.0, int(Flag.END)))])
    listening.join()
    socket.context.destroy(linger=0)
    (row,) = witness.rows
    assert (row["n"], witness.unheard) == (5, 1)
    assert row["edge_to_pub_ms"]["max"] == pytest.approx(41.0, rel=1e-2)
    assert [event[1:] for event in witness.events] == [("state", "RUNNING to IDLE")]
    ((came_s, began_s),) = witness.good  # the clock of both is the LSL clock of this machine
    assert 0.02 < came_s - began_s < 5.0  # a busy machine has it later


# --- real runs ---


def asked(checkpoint: Checkpoint, seconds: float, **more: Any) -> Asked:
    config = RigConfig("test", "", InputConfig("spikes"), engine=EngineConfig(decoder="neds"))
    return Asked(config, Load(rate=400.0, streams=1), seconds, seconds / 3, 3.0, checkpoint=checkpoint, **more)


@pytest.mark.slow
def test_a_planted_leak_is_found(make_checkpoint: Callable[..., Checkpoint]) -> None:
    """100 kB a bin, 5 MB a second: in 10 s it is beyond doubt."""
    found = soak.run(asked(make_checkpoint(), 10.0, loop=(sys.executable, "-P", str(LEAKY), "100000")))
    assert [said for said in found["broken"] if said.startswith("memory of the loop (MB) grows by")]
    assert found["growth"]["rss_mb"]["per_hour"] == pytest.approx(18_000.0, rel=0.3)
    assert found["balanced"]


@pytest.mark.slow
def test_faults_are_told_and_the_run_comes_back(make_checkpoint: Callable[..., Checkpoint]) -> None:
    """Each kind once: no leak, and every spike and bin accounted for."""
    made = soak.run(asked(make_checkpoint(), 42.0, faults=2))
    assert {fault["kind"] for fault in made["faults"]} == set(LASTS_S)
    assert made["broken"] == []
    said = " ".join(line for fault in made["faults"] for line in fault["said"])
    assert "RUNNING to STALLED" in said
    assert "; checking that its units are the same" in said
    assert (len(made["rows"]), made["unheard"]) == (3, 0)
    assert sum(row["n"] for row in made["rows"]) == pytest.approx(42 * 50, abs=100)


def test_a_soak_needs_its_length(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--hours", "1", "--seconds", "5"]):
        monkeypatch.setattr(sys, "argv", ["neds-rt", "bench", "soak", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert "needs --hours or --seconds, and not both" in capsys.readouterr().err
