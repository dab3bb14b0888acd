"""What a rehearsal says of a run: latencies by phase, messages against the log, and when it holds."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from calibration.rehearsal import found as finding
from calibration.rehearsal.found import Exact, Messages
from calibration.rehearsal.heard import Heard
from runtime.core.run_log import Exchange, Header, Outcome, RunLog
from runtime.io.chain import Link
from runtime.wire import Decode, Flag

MS, BIN = 1_000_000, 20_000_000
OLD, NEW, TURN = "0" * 64, "1" * 64, 6


@pytest.fixture
def log() -> RunLog:
    """Ten bins of a run in which another decoder takes over at bin 6; bin 3 and 4 leave with bin 5, 30 ms late."""
    header = Header(
        rig="r", source="replay", decoder="neds", engine="e", model="old", model_sha=OLD, model_created="",
        unit_map_sha="", bin_ns=BIN, budget_ms=20.0, specs=(),
    )  # fmt: skip
    made = RunLog(header, 10, 1, 1)
    made.n = 10
    made.t_end_ns[:] = np.arange(1, 11) * BIN
    made.sent_ns[:] = made.t_end_ns + 2 * MS
    made.sent_ns[3:5] = 0
    made.sent_ns[5] += 28 * MS
    made.outcome = Outcome(stopped_by="signal", exchanges=(Exchange(TURN, "neds", "e", "new", NEW, ""),))
    return made


def message(token: int, sha: str, flags: int = 0, seq: int | None = None) -> Decode:
    return Decode(
        1, token if seq is None else seq, token, (token + 1) * BIN, 0, "", "replay", [], "neds", "e", {}, None, 0.1,
        2.0, "RUNNING", flags, 0, 60.0, sha, "",
    )  # fmt: skip


def of(*messages: Decode) -> Heard:
    return Heard(list(messages))


def test_a_superseded_bin_is_charged_until_the_send_that_replaced_it(log: RunLog) -> None:
    all_of_it = finding.phase("all", log, 0, 2**62)
    assert (all_of_it.bins, all_of_it.misses) == (10, 3)
    assert all_of_it.edge_to_pub_ms["max"] == 70.0
    assert all_of_it.edge_to_pub_ms["p50"] == 2.0
    late = finding.phase("some", log, 4 * BIN, 6 * BIN)
    assert (late.bins, late.misses, late.edge_to_pub_ms["max"]) == (2, 2, 70.0)
    assert finding.phase("none", log, 2**61, 2**62).bins == 0


def test_messages_are_compared_with_who_decoded_their_bin(log: RunLog) -> None:
    right = [message(k, OLD if k < TURN else NEW, Flag.SWAP if k == TURN else 0) for k in range(10)]
    assert finding.messages(log, of(*right)) == Messages(10, 0, 0, 0, 0)
    for k, wrong in ((2, NEW), (8, OLD)):
        assert finding.messages(log, of(*right[:k], message(k, wrong), *right[k + 1 :])).wrong_model == 1
    unsaid = finding.messages(log, of(*right[:TURN], message(TURN, NEW), *right[TURN + 1 :]))
    assert unsaid.wrong_model == 1
    fewer = finding.messages(log, of(*right[:5], *right[TURN + 1 :]))
    assert (fewer.wrong_model, fewer.lost) == (0, 2)


def test_stale_messages_count_around_the_exchange(log: RunLog) -> None:
    heard = of(message(0, OLD))
    edge = int(log.t_end_ns[TURN])
    heard.stale_ns = [edge - finding.AROUND_NS - 1, edge, edge + finding.AROUND_NS]
    found = finding.messages(log, heard)
    assert (found.stale_at_swap, found.stale) == (2, 3)


def test_it_holds_only_where_all_of_it_does() -> None:
    said, exact = Messages(10, 0, 0, 3, 2), Exact(1e-6, 2e-6, 50)
    taken = Link("t", "r", "swap", "taken", OLD, NEW, "new", "", TURN)
    assert finding.holds(said, exact, [taken], TURN)
    for wrong in ({"wrong_model": 1}, {"stale_at_swap": 1}, {"heard": 0}):
        assert not finding.holds(msgspec.structs.replace(said, **wrong), exact, [taken], TURN)
    for wrong in ({"first": None}, {"first": 1e-3}, {"all": 1e-3}, {"all": float("nan")}):
        assert not finding.holds(said, msgspec.structs.replace(exact, **wrong), [taken], TURN)
    assert not finding.holds(said, exact, [taken], TURN + 1)
    assert not finding.holds(said, exact, [msgspec.structs.replace(taken, outcome="accepted")], TURN)
