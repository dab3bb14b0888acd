"""What a report says of a run comes from its log: one sample a scheduled bin, charged until the send."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from benchmarks.latency import measured, passes
from benchmarks.latency.drive import Taken
from runtime.wire import Flag
from tests.benchmarks.latency.scripted import MS, Scripted

any_pass = st.fixed_dictionaries(
    {
        "closed": st.integers(1, 12), "wait": st.floats(0.0, 15.0), "take": st.floats(0.0, 40.0),
        "infer": st.floats(0.001, 40.0), "send": st.floats(0.0, 9.0), "after": st.floats(0.0, 60.0),
        "valid": st.booleans(),
    }
)  # fmt: skip


@given(st.lists(any_pass, min_size=1, max_size=12))
def test_the_log_gives_the_same_samples_as_the_loop_counted(each: list[dict]) -> None:
    """Whatever the passes: as many, as long, as late, and for the same causes."""
    run = Scripted(200)
    for one in each:
        run.passes(**one)
    found = measured.of(run.taken(), 0.0)

    for name in ("edge_to_pub_ms", "edge_to_pub_decoded_ms", "infer_ms", "send_ms", "age_ms"):
        assert {k: v for k, v in found[name].items() if k != "n"} == run.accounting.latency[name].summary_ms(), name
    assert found["edge_to_pub_ms"]["n"] == found["scheduled"] == run.next
    assert found["deadline_misses"] == sum(run.accounting.misses.values())
    assert found["miss_causes"] == run.accounting.misses
    assert sum(found["miss_stages"].values()) == found["deadline_misses"]


@given(st.lists(any_pass, min_size=1, max_size=12))
def test_the_parts_of_a_bin_sum_to_its_latency(each: list[dict]) -> None:
    run = Scripted(200)
    for one in each:
        run.passes(**one)
    found = passes.scheduled(run.log)
    assert (found.parts >= 0).all()
    charged = run.log.sent_ns[found.at] - run.log.t_end_ns[: run.log.n]
    np.testing.assert_array_equal(found.edge_to_pub, charged)


def one_slow(**stage: float) -> Taken:
    """Bins in time, but for one pass; the three bins after it close together as soon as the loop is back."""
    run = Scripted(200)
    for _ in range(20):
        run.passes()
    run.passes(**stage)
    run.passes(closed=3, wait=0.0)
    for _ in range(20):
        run.passes()
    return run.taken()


@pytest.mark.parametrize("stage", ["take", "infer", "send", "after", "wait"])
def test_the_stage_that_took_the_time_is_named_for_every_bin_that_it_delayed(stage: str) -> None:
    """Also those that waited while the loop was busy with the one before."""
    found = measured.of(one_slow(**{stage: 70.0}), 0.0)
    assert list(found["miss_stages"]) == [stage]
    assert found["slowest_stage"] == stage
    assert found["deadline_misses"] == (2 if stage == "after" else 3)
    assert {miss["stage"] for miss in found["misses"]} == {stage}


def test_a_pass_that_closed_nothing_and_took_long_is_the_loops_own() -> None:
    run = Scripted(50)
    for _ in range(5):
        run.passes()
    run.woke, run.now = run.now + 1.0, run.now + 60.0  # a pass of which no row tells
    run.passes(closed=3, wait=0.0)
    found = measured.of(run.taken(), 0.0)
    assert list(found["miss_stages"]) == [passes.ELSEWHERE]


def test_reading_for_the_caches_beyond_the_edge_is_named() -> None:
    """Of every bin that closes in that pass, and not the loop's own."""
    run = Scripted(50)
    for _ in range(5):
        run.passes()
    run.passes(closed=3, wait=0.0, warm=70.0)
    run.passes()
    found = measured.of(run.taken(), 0.0)
    assert found["miss_stages"] == {passes.WARM: 3}
    assert found["slowest_stage"] == passes.WARM


def test_the_warm_up_is_counted_apart() -> None:
    run = Scripted(200)
    run.passes(infer=90.0)
    for _ in range(99):
        run.passes()
    found = measured.of(run.taken(), 1.0)
    assert (found["warm_up"]["n"], found["warm_up"]["deadline_misses"]) == (50, 4)
    assert (found["scheduled"], found["deadline_misses"], found["edge_to_pub_ms"]["n"]) == (50, 0, 50)
    assert found["blocks"]["n"] == [50]


def test_bins_that_the_clock_closed_are_a_row_of_their_own() -> None:
    run = Scripted(50)
    for k in range(20):
        run.passes(wait=10.0 if k % 4 == 0 else 1.0)
    run.log.flags[:20:4] = int(Flag.PARTIAL)
    found = measured.of(run.taken(), 0.0)
    assert (found["closed_by_allowance_ms"]["n"], found["closed_by_stream_ms"]["n"]) == (5, 15)
    assert found["closed_by_allowance_ms"]["p50"] == pytest.approx(10.6, abs=0.02)


def test_the_wait_is_split_at_the_senders_push() -> None:
    """The chunk of a bin's edge was out 0.2 ms after it, and the loop woke 0.8 ms later."""
    run = Scripted(50)
    for _ in range(20):
        run.passes()
    found = measured.of(run.taken(), 0.0)
    assert found["sender_ms"]["max"] == pytest.approx(0.2, abs=0.002)
    assert found["arrive_ms"]["max"] == pytest.approx(0.8, abs=0.002)


def test_what_was_superseded_reaches_a_subscriber_with_what_replaced_it() -> None:
    found = measured.of(one_slow(infer=70.0), 0.0)
    assert found["edge_to_sub_ms"]["n"] == found["edge_to_pub_ms"]["n"]
    assert found["sub_ms"]["n"] < found["edge_to_pub_ms"]["n"]
    assert found["sub_ms"]["max"] == pytest.approx(0.4, abs=0.002)


def test_what_the_machine_took_is_told_second_by_second() -> None:
    run = Scripted(200)
    for _ in range(100):
        run.passes()
    t = np.arange(9) * 250 * MS
    samples = np.stack([t, np.arange(9) * 5.0, np.where(t > 1000 * MS, 30.0, 10.0)], 1)
    found = measured.of(run.taken(samples=samples), 0.0)
    assert found["run_delay_ms"] == pytest.approx(40.0, abs=0.5)
    assert found["blocks"]["run_delay_ms"] == [pytest.approx(20.0, abs=0.5)] * 2
