"""One sample for every scheduled token, a superseded one charged until the send that replaced it."""

from __future__ import annotations

import numpy as np

from runtime.core.accounting import Accounting
from runtime.core.misses import Passage
from runtime.core.state import State
from runtime.core.values import NO_TIME, Decoded, Token

MS = 1_000_000
BIN = 20 * MS


def decoded(*, newest_ns: int = 95 * MS, values: bool = True, infer_ns: int = MS) -> Decoded:
    """The bin that ends at 100 ms."""
    token = Token(4, 100 * MS, np.zeros(3, np.uint16), valid=values, newest_ns=newest_ns)
    return Decoded(token, np.zeros(2, np.float32) if values else None, 0, infer_ns, State.RUNNING)


def passage(sent_ms: int, closed: int = 1) -> Passage:
    return Passage(
        edge_ns=100 * MS, due_ns=105 * MS, woke_ns=101 * MS, before_ns=(sent_ms - 1) * MS, sent_ns=sent_ms * MS,
        closed=closed,
    )  # fmt: skip


def test_a_token_in_time_is_a_sample_of_each_latency() -> None:
    accounting = Accounting(BIN, budget_ns=20 * MS)
    accounting.stepped(decoded())
    assert accounting.published(passage(104), decoded())
    found = {name: latency.summary_ms()["max"] for name, latency in accounting.latency.items()}
    assert {name: round(ms or 0) for name, ms in found.items()} == {
        "edge_to_pub_ms": 4, "edge_to_pub_decoded_ms": 4, "wait_ms": 1, "infer_ms": 1, "send_ms": 1, "age_ms": 9,
    }  # fmt: skip
    assert sum(accounting.misses.values()) == 0


def test_superseded_tokens_are_charged_until_the_send() -> None:
    """Three bins closed at once: 4, 24 and 44 ms old when they left; two of them late."""
    accounting = Accounting(BIN, budget_ns=20 * MS)
    accounting.published(passage(104, closed=3), decoded())
    edge_to_pub = accounting.latency["edge_to_pub_ms"]
    assert edge_to_pub.histogram.get_total_count() == 3
    assert round(edge_to_pub.summary_ms()["max"] or 0) == 44
    assert accounting.misses["backlog"] == 2
    assert accounting.misses_last_minute(105 * MS) == 2
    assert accounting.misses_last_minute(105 * MS + 60_000 * MS) == 0


def test_a_token_without_values_is_never_in_time_and_has_no_age() -> None:
    accounting = Accounting(BIN, budget_ns=20 * MS)
    assert not accounting.published(passage(104), decoded(values=False, infer_ns=0))
    accounting.published(passage(104), decoded(newest_ns=NO_TIME))
    assert accounting.latency["age_ms"].histogram.get_total_count() == 0
    assert accounting.latency["edge_to_pub_decoded_ms"].histogram.get_total_count() == 1
