"""What a certificate judges: each fault fails its own line, with a remedy, and no other."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from neds_core.data.session import BehaviourSpec
from runtime.certificate.evidence import Heard, judge, most
from runtime.config import InputConfig, RigConfig
from runtime.core.latency import Latency
from runtime.core.run_log import Exchange, Header, LoggedEvent, Outcome, RunLog

CONFIG = RigConfig("rig", "c", InputConfig("s"))
PLAN: dict[str, Any] = {
    "streams": [{"name": "spikes", "verdict": "GO", "reasons": [], "notes": ["2 units never fired"]}],
    "too_slow": "", "step_ms": 0.1,
}  # fmt: skip
TIMES = {"p50": 1.0, "p90": 1.2, "p99": 2.0, "p99.9": 3.0, "max": 4.0}
SUMMARY: dict[str, Any] = {
    "stopped_by": "seconds", "run_s": 60.0, "edge_to_pub_decoded_ms": TIMES, "deadline_misses": 0,
    "miss_causes": {"gc": 0},
    "spikes": {"received": 1000, "binned": 990, "late": 10, "quarantined": 0, "out_of_range": 0},
    "tokens": {"closed": 6000, "published": 4000, "superseded": 0, "invalid": 0, "idle": 2000, "scored": 4000},
    "counters": {"late_markers": 2, "segments_held": 1},
    "lost_upstream": 0, "streamed_vs_offline_max_abs": 2e-6, "scheduling": "normal", "stolen_ms": 10.0,
    "outputs": {"wheel": {"r2": 0.5}, "choice": {"balanced_accuracy": None}}, "decoder": "neds",
}  # fmt: skip
FLOOR = {"p50": 0.4, "p99": 1.0}


def in_time(n: int) -> dict[str, Latency]:
    """So many bins with values, each after 1 ms."""
    latency = Latency()
    latency.histogram.record_value(1000, n)
    return {"edge_to_pub_decoded_ms": latency}


def heard(states: tuple[str, ...] = ("RUNNING", "IDLE")) -> Heard:
    """A run of 6,000 bins, 4,000 of them with values, that went through these states."""
    header = Header(
        rig="rig", source="live", decoder="neds", engine="e", model="m", model_sha="s", model_created="",
        unit_map_sha="u", bin_ns=20_000_000, budget_ms=20.0, specs=(BehaviourSpec("wheel", "continuous"),),
    )  # fmt: skip
    log = RunLog(header, 1, 3, 1)
    before = "READY"
    for state in states:
        log.events.append(LoggedEvent(0, "state", f"{before} to {state}: 40 % late"))
        before = state
    log.outcome = Outcome(stopped_by="seconds")
    log.latency = in_time(4000)
    return Heard(copy.deepcopy(PLAN), copy.deepcopy(SUMMARY), log, 60.0, FLOOR)


def verdicts(found: Heard, misses: float = 1e-3) -> dict[str, str]:
    """FAILs by name: their remedies."""
    return {line.name: line.remedy for line in judge(found, CONFIG, misses) if line.verdict == "FAIL"}


def test_a_rig_in_order_passes_every_line() -> None:
    lines = judge(heard(), CONFIG, 1e-3)
    assert verdicts(heard()) == {}
    assert all(line.remedy == "" for line in lines)
    told = {line.name: line.said for line in lines}
    assert "0 of 4000 bins with values later than 20 ms (at most 7.5e-04 at 95 % confidence" in told["deadline"]
    assert "4000 of 4000 bins inside segments carried a value" in told["values"]
    assert told["values"].endswith("2 late markers, 1 segments held")
    assert told["skill wheel"] == "r2 0.500 (neds)"
    assert "skill choice" not in told  # a score that is no evidence


def slowed(found: Heard, late: int = 9) -> None:
    """Some bins with values were late, and as many between segments."""
    found.summary["deadline_misses"], found.summary["miss_causes"] = 2 * late, {"engine": 2 * late}
    if late:
        found.log.latency["edge_to_pub_decoded_ms"].histogram.record_value(25_000, late)


def put(where: str, *keys: str, value: Any) -> Callable[[Heard], None]:
    """Change one number of the plan or the summary."""

    def change(found: Heard) -> None:
        tree = getattr(found, where)
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "name", "remedy"),
    [
        (put("plan", "streams", value=[PLAN["streams"][0] | {"verdict": "NO-GO", "reasons": ["set x = 3"]}]),
         "stream spikes", "set x = 3"),
        (put("plan", "too_slow", value="a step takes 30 ms"), "pace", "a step takes 30 ms"),
        (put("summary", "stopped_by", value="player_gone"), "run", "look at its sender"),
        (slowed, "deadline", "more than 0.001 of the deadlines may have been missed (engine 18)"),
        (put("summary", "spikes", "binned", value=989), "spikes", "this is a bug of neds-rt"),
        (put("summary", "tokens", "idle", value=1999), "tokens", "this is a bug of neds-rt"),
        (put("summary", "tokens", value={"closed": 6000, "published": 3950, "superseded": 20, "invalid": 30,
         "idle": 2000, "scored": 3950}), "values", "fewer than 99% did"),
        (put("summary", "lost_upstream", value=3), "lost", "look at the load and the network"),
        (put("summary", "spikes", value={"received": 100, "binned": 90, "late": 10, "quarantined": 0,
         "out_of_range": 0}), "dropped", "more than health.late_share"),
        (put("summary", "streamed_vs_offline_max_abs", value=0.01), "exact", "run neds-rt verify"),
        (put("summary", "streamed_vs_offline_max_abs", value=None), "exact", "start the task"),
    ],
)  # fmt: skip
def test_each_fault_fails_its_own_line_with_a_remedy(change: Callable[[Heard], None], name: str, remedy: str) -> None:
    found = heard()
    change(found)
    failed = verdicts(found)
    assert list(failed) == [name]
    assert remedy in failed[name]


def test_another_decoder_that_took_over_meanwhile_fails() -> None:
    found = heard()
    found.log.outcome = msgspec.structs.replace(
        found.log.outcome, exchanges=(Exchange(9, "neds", "e", "second", "b" * 64, "", "swap"),)
    )
    assert list(verdicts(found)) == ["exchanges"]
    told = {line.name: line.said for line in judge(found, CONFIG, 1e-3)}
    assert told["exchanges"] == "swap to second (bbbbbbbbbbbb)"


@pytest.mark.parametrize("state", ["FAULT", "LOST", "STALLED"])
def test_a_state_in_which_nothing_is_decoded_fails(state: str) -> None:
    failed = verdicts(heard(("RUNNING", state, "RUNNING")))
    assert list(failed) == ["states"]
    assert failed["states"].startswith(f"1 times, at first: RUNNING to {state}: 40 % late")


def test_a_rig_that_never_decoded_fails() -> None:
    assert list(verdicts(heard(("IDLE",)))) == ["states"]


def test_misses_that_are_allowed_pass() -> None:
    """At 95 % confidence: 9 of 4,009 are at most 3.9e-3."""
    found = heard()
    slowed(found)
    assert verdicts(found, misses=4e-3) == {}
    assert list(verdicts(found, misses=3e-3)) == ["deadline"]


@settings(max_examples=25)
@given(st.integers(0, 6), st.integers(1, 6000), st.sampled_from([1e-3, 1e-2, 0.5]))
def test_a_run_that_is_too_short_fails_and_says_how_long_it_has_to_be(late: int, more: int, misses: float) -> None:
    """What it says is enough for as many misses a second; and no short run passes."""
    n = late + more
    found = heard()
    found.log.latency = in_time(more)
    slowed(found, late)
    failed = verdicts(found, misses)
    assert failed.keys() <= {"deadline"}
    assert bool(failed) == (most(late, n) > misses)
    said = re.search(r"certify for (\d+) s", failed.get("deadline", ""))
    if said is not None:
        many = int(said[1]) / 60 * n
        assert most(int(late * many / n), int(many)) <= misses
        assert int(said[1]) >= 60 * n**-1 * 2.99 / misses - 10
    elif failed:
        assert late > 0.9 * misses * n


def test_a_second_shows_nothing() -> None:
    found = heard()
    found.log.latency = in_time(50)
    found.summary["run_s"] = 1.0
    assert verdicts(found, 1e-3) == {"deadline": "50 bins with values are too few to show 0.001; certify for 60 s"}


@given(st.integers(0, 50), st.integers(100, 100_000))
def test_the_bound_is_that_of_the_poisson_law(k: int, n: int) -> None:
    """Garwood's exact upper limit; 3/n for none."""
    expected = min(1.0, float(stats.chi2.ppf(0.95, 2 * (k + 1))) / 2 / n)
    assert most(k, n) == pytest.approx(expected, rel=1e-6)
    assert k or most(k, n) * n == pytest.approx(3.0, abs=0.01)
