"""The benchmark of a step on cold caches: nothing that it does before a step changes what the step says."""

from __future__ import annotations

import pytest

from benchmarks.cost import cold
from benchmarks.cost.full_forward import WrongError
from benchmarks.cost.kernel_sweep import Size
from runtime.engines.nothing import Nothing

SIZE = Size(units=10, layers=1, width=16, band=5, spikes=3)


@pytest.mark.slow
def test_every_arm_is_measured_and_compared_with_steps_back_to_back() -> None:
    found = cold.run(size=SIZE, rounds=2)
    rows = {row["name"]: row for row in found["rows"]}
    assert {cold.PLAIN, cold.WARM, "read once", "rehearsed twice", f"int8: {cold.WARM}"} <= set(rows)
    assert all(row["n"] == 2 and 0.0 < row["ms"]["p50"] <= row["ms"]["max"] for row in rows.values())
    assert all(0.0 < row["cpu_percent"] < 100.0 for row in rows.values())
    close = found["back_to_back"]["float32"]["p50"]
    assert found["times_back_to_back"][cold.PLAIN] == round(rows[cold.PLAIN]["ms"]["p50"] / close, 2)
    assert [line.count("|") for line in cold.lines(found)[:-1]] == [8] * (len(rows) + len(cold.PRECISIONS) + 2)


def test_awake_is_asleep_until_the_last_ms_and_then_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    edge_ns, at_ns, looks = 20_000_000, [0], [0]

    def now() -> int:
        at_ns[0] += 1_000
        looks[0] += 1
        return at_ns[0]

    monkeypatch.setattr(cold, "now", now)
    monkeypatch.setattr(cold, "sleep", lambda until_ns: at_ns.__setitem__(0, until_ns))
    cold.awake(edge_ns)
    assert (at_ns[0], looks[0]) == (edge_ns, cold.AWAKE_NS // 1_000)


def test_cpu_is_a_share_of_a_whole_bin() -> None:
    found = cold.Arm("one", Nothing(), cold.sleep, [1.0, 3.0], [1_000_000, 3_000_000]).json()  # pyright: ignore[reportArgumentType]
    assert found["cpu_percent"] == 10.0


def test_what_changes_a_step_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(engine: cold.StreamEngine, times: int = 1) -> None:
        engine.stepper.cache.k[:] += 1.0

    monkeypatch.setattr(cold, "rehearse", wrong)
    with pytest.raises(WrongError, match="it is wrong"):
        cold.run(size=SIZE, rounds=1)
