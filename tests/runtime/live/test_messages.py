"""What is published says how old it is, what it is worth, and what it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core.checkpoint import Checkpoint
from runtime.client import unpack
from runtime.config import InputConfig, OutputConfig, RigConfig
from runtime.core.accounting import Accounting
from runtime.core.binning import Binner
from runtime.core.misses import Passage
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.state import State
from runtime.core.values import NO_TIME, SPIKES, Decoded, Token
from runtime.engines import create as engines
from runtime.live.messages import Messages
from runtime.wire import Decode, Flag, Status

MS = 1_000_000
BIN = 20 * MS


class Source:
    """As much of a source as a message needs: a live spike stream, no markers, one behaviour."""

    alive_ns, last_marker, clock_jumps = NO_TIME, "", 1

    def measured(self, now_ns: int) -> dict[str, float | None]:
        return {"wheel_speed": 1.5}

    def counters(self) -> dict[str, int]:
        return {"spikes_lost_upstream": 3, "clock_jumps": 1, "bad_markers": 0}


class Kept:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.said: list[str] = []

    def send(self, message: Decode) -> None:
        self.sent.append(message)

    def tell(self, kind: str, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
def messages(tiny_checkpoint: Checkpoint) -> Messages:
    config = RigConfig("rig", "unused", InputConfig("s"), output=OutputConfig(budget_ms=20.0, valid_ms=60.0))
    decoder = engines.decoder(tiny_checkpoint, "neds")
    pipeline = Pipeline(Binner(12, BIN, max_age_ns=10**10, future_ns=2 * MS), decoder, Rules())
    pipeline.binner.start(0)
    kept = Kept()
    return Messages(config, pipeline, Source(), kept, "live", kept.said.append)  # pyright: ignore[reportArgumentType]


def estimate(values: np.ndarray | None, flags: int = 0, newest_ns: int = 95 * MS) -> Decoded:
    token = Token(4, 100 * MS, np.zeros(12, np.uint16), valid=True, segment=7, newest_ns=newest_ns)
    return Decoded(token, values, flags, 2 * MS, State.RUNNING)


def test_an_estimate_carries_its_age_and_its_validity(messages: Messages) -> None:
    message = messages.decode(estimate(np.array([2.5, 0.25, 0.75], np.float32)), 104 * MS, 0)
    assert message.outputs["wheel_speed"].value == 2.5
    assert message.outputs["choice"].probs == [0.25, 0.75]
    assert (message.age_ms, message.infer_ms, message.edge_to_pub_ms) == (9.0, 2.0, 4.0)
    assert (message.valid_until_ns, message.valid_for_ms) == (160 * MS, 56.0)
    assert message.flags == Flag.UNGATED
    assert (message.source, message.engine) == ("live", messages.pipeline.decoder.engine.name)


def test_an_estimate_carries_its_sd_where_it_is_known(messages: Messages) -> None:
    """Of traces alone."""
    decoded = replace(estimate(np.array([2.5, 0.25, 0.75], np.float32)), sd=np.array([0.5, np.nan, np.nan], np.float32))
    outputs = messages.decode(decoded, 104 * MS, 0).outputs
    assert msgspec.to_builtins(outputs) == {"wheel_speed": {"value": 2.5, "sd": 0.5}, "choice": {"probs": [0.25, 0.75]}}


def test_an_estimate_after_its_budget_is_stale_and_one_after_its_validity_is_worth_nothing(messages: Messages) -> None:
    values = np.zeros(3, np.float32)
    assert not messages.decode(estimate(values), 120 * MS, 0).flags & Flag.STALE
    assert messages.decode(estimate(values), 120 * MS + 1, 0).flags & Flag.STALE
    assert messages.decode(estimate(values), 200 * MS, 0).valid_for_ms == 0.0


def test_what_is_withheld_is_null_by_name(messages: Messages) -> None:
    message = messages.decode(estimate(None, Flag.GAP, NO_TIME), 104 * MS, Flag.END)
    assert msgspec.to_builtins(message.outputs) == {"wheel_speed": {}, "choice": {}}
    assert message.flags == Flag.GAP | Flag.END | Flag.UNGATED
    assert message.age_ms is None


def test_messages_are_numbered_without_gaps(messages: Messages) -> None:
    assert [messages.decode(estimate(None), 104 * MS, 0).seq for _ in range(3)] == [1, 2, 3]


def test_every_message_carries_a_state_of_the_table(messages: Messages) -> None:
    for state in State:
        decoded = replace(estimate(None), state=state)
        assert State(messages.decode(decoded, 104 * MS, 0).state) is state
        assert State(messages.status_message(104 * MS, state, Accounting(BIN, 20 * MS)).state) is state


def test_another_decoder_is_named_from_its_first_message_on(messages: Messages) -> None:
    before = messages.decode(estimate(None), 104 * MS, 0)
    messages.pipeline.exchange(replace(messages.pipeline.decoder, name="blend", model_sha="another"))
    after = messages.decode(estimate(None), 124 * MS, 0)
    assert (before.decoder, after.decoder, after.model_sha) == ("neds", "blend", "another")
    assert messages.status_message(124 * MS, State.RUNNING, Accounting(BIN, 20 * MS)).model_sha == "another"


def test_people_are_told_what_is_wrong_once_a_minute(messages: Messages) -> None:
    """Every event goes out on the wire; changes of state between trials are not worth a line."""
    second = 1000 * MS
    for now in (0, 59 * second, 60 * second):
        messages.event(now, "markers_lost", f"no markers {now // second}")
        messages.event(now, "state", "RUNNING to IDLE")
        messages.event(now, "state", f"RUNNING to FAULT: no spikes {now // second}")
    kept = messages.publisher
    assert isinstance(kept, Kept)
    assert kept.said == [
        "no markers 0", "RUNNING to FAULT: no spikes 0", "no markers 60", "RUNNING to FAULT: no spikes 60",
    ]  # fmt: skip
    assert len(kept.sent) == 9


def test_a_status_counts_everything_and_explains_its_words(messages: Messages) -> None:
    spikes = np.array([(k * BIN + 5, k % 3) for k in range(50)], SPIKES)
    for k in range(50):
        messages.pipeline.feed(spikes[k : k + 1], (k + 1) * BIN)
        messages.pipeline.alive((k + 1) * BIN, (k + 1) * BIN)
        for decoded in messages.pipeline.advance((k + 1) * BIN):
            messages.note(decoded)
    accounting = Accounting(BIN, 20 * MS)
    now = 50 * BIN
    late = Passage(edge_ns=now - 44 * MS, due_ns=now, woke_ns=now - MS, before_ns=now, sent_ns=now, closed=3)
    accounting.published(late, estimate(None))

    status = messages.status_message(now, State.RUNNING, accounting)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(status), type=Status) == status
    assert (status.counters["spikes_binned"], status.counters["tokens_published"]) == (50, 50)
    assert (status.counters["spikes_lost_upstream"], status.counters["deadline_misses"]) == (3, 3)
    assert (status.units_seen, status.units_expected) == (3, 12)
    assert status.population_rate_hz == pytest.approx(50.0)
    assert status.misses_last_minute == 3
    assert status.flag_names == {flag.name: int(flag) for flag in Flag}
    assert [o.name for o in status.outputs] == ["wheel_speed", "choice"]
    assert (status.measured, status.segment, status.last_marker) == ({"wheel_speed": 1.5}, None, "")
    assert status.edge_to_pub_ms["max"] == 84.0


def test_a_status_says_since_when_its_state_holds_and_why(messages: Messages) -> None:
    """STALLED and LOST are one silence: since the newest stamp of the stream, which is named."""

    def told(state: State, now: int, since: int | None = None) -> tuple[str, int]:
        if since is not None:
            messages.note(replace(estimate(None), state=state, token=replace(estimate(None).token, t_end_ns=since)))
        status = messages.status_message(now, state, Accounting(BIN, 20 * MS))
        return status.reason, status.state_since_ns

    messages.pipeline.withheld = ""
    assert told(State.READY, 5 * MS) == ("", 5 * MS)
    assert told(State.RUNNING, 900 * MS, since=20 * MS) == ("", 20 * MS)
    assert told(State.RUNNING, 1900 * MS, since=1900 * MS) == ("", 20 * MS)
    silence = "stream 's' sent nothing that can be used; values are withheld"
    assert told(State.STALLED, 2000 * MS, since=2000 * MS) == (silence, 2000 * MS)
    messages.pipeline.alive(1930 * MS, 1930 * MS)
    assert told(State.STALLED, 3000 * MS, since=3000 * MS) == (silence, 1930 * MS)
    assert told(State.LOST, 18_000 * MS, since=18_000 * MS) == (silence, 1930 * MS)
    assert told(State.RUNNING, 19_000 * MS, since=19_000 * MS) == ("", 19_000 * MS)
    messages.pipeline.withheld = "stream 's' was silent; checking that its units are the same"
    assert told(State.STALLED, 20_000 * MS, since=20_000 * MS)[0] == messages.pipeline.withheld


def test_what_is_wrong_is_told_at_once(messages: Messages) -> None:
    """Not only with the next status; but not with each bin where the state changes with each."""
    kept = messages.publisher
    assert isinstance(kept, Kept)
    messages.status(0, State.READY, Accounting(BIN, 20 * MS))
    for now in range(1, 31):  # 600 ms
        state = State.STALLED if now % 2 else State.RUNNING
        messages.note(replace(estimate(None), state=state))
        messages.event(now * BIN, "state", f"to {state}")
    messages.event(700 * MS, "clock_jump", "the sender's clock stepped")

    told = [(message.t_pub_ns, message.state) for message in kept.sent if isinstance(message, Status)]
    assert told == [(0, "READY"), (20 * MS, "STALLED"), (220 * MS, "STALLED"), (420 * MS, "STALLED")]


def test_a_reader_of_older_messages_needs_no_new_field(messages: Messages) -> None:
    """And an older reader does not mind one."""
    status = messages.status_message(0, State.RUNNING, Accounting(BIN, 20 * MS))
    old = msgspec.to_builtins(status)
    del old["reason"], old["state_since_ns"]
    assert msgspec.convert(old, Status).state_since_ns == 0
    assert unpack(msgspec.msgpack.encode(msgspec.to_builtins(status) | {"newer": 1}), Status) == status


def test_a_lead_stands_by_its_output(messages: Messages, ahead_checkpoint: Checkpoint) -> None:
    """In each message, also one without values, and in the status; what has none carries no such field."""
    messages.pipeline.decoder = engines.decoder(ahead_checkpoint, "neds")
    for values in (np.zeros(3, np.float32), None):
        outputs = msgspec.to_builtins(messages.outputs(values))
        assert outputs["wheel_speed"]["lead_ms"] == 60.0
        assert "lead_ms" not in outputs["choice"]
    wheel, choice = messages.status_message(0, State.RUNNING, Accounting(BIN, 20 * MS)).outputs
    assert (wheel.lead_ms, wheel.future_ms, choice.lead_ms) == (60.0, 50.0, 0.0)
