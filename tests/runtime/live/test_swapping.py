"""A swap on a made-up clock with real checkpoints: what takes over and when, exactly; and what is refused."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session, UnitTable
from neds_core.errors import NedsError
from neds_core.files import sha256
from runtime.config import ControlConfig, InputConfig, RigConfig
from runtime.core import exchange
from runtime.core.binning import Binner
from runtime.core.exchange import Recent, Successor
from runtime.core.handover import Handover, Probation
from runtime.core.health import Limits
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.timeline import timeline
from runtime.engines import create as engines
from runtime.engines.layout import layout
from runtime.io import chain
from runtime.io.chain import Chain
from runtime.io.control import Answer, Control, Freeze, Rollback, State, Swap, ask
from runtime.live import incoming, offline, swapping
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages
from runtime.live.swapping import Exchanges, Swapper
from runtime.scoring import summary
from runtime.scoring.score import all_decoders, exactness
from runtime.wire import Decode, Flag

BIN = 20_000_000
NULL = Flag.GAP | Flag.HOLD | Flag.IDLE | Flag.END


class Published:
    """A publisher that keeps every decode message and event."""

    def __init__(self) -> None:
        self.sent: list[Decode] = []
        self.events: list[str] = []

    def send(self, message: Decode) -> None:
        self.sent.append(message)

    def tell(self, kind: str, message: Any) -> None:
        if kind == "event" and message.name != "state":
            self.events.append(message.name)


@dataclass
class Done:
    """A run that is over."""

    log: RunLog
    sent: list[Decode]
    events: list[str]
    answers: list[Answer]
    pipeline: Pipeline

    @property
    def turns(self) -> list[tuple[int, str]]:
        return [(each.token, each.why) for each in self.log.outcome.exchanges]

    def by_token(self) -> dict[int, Decode]:
        return {m.token: m for m in self.sent if not m.flags & Flag.END}

    def assert_told_apart(self, first: Checkpoint) -> None:
        """Every message names the decoder of its bin, carries its values, and says once that another one speaks."""
        starts = [(0, first.sha), *((e.token, e.model_sha) for e in self.log.outcome.exchanges)]
        before = first.sha
        for message in self.sent:
            sha = next(sha for token, sha in reversed(starts) if message.token >= token or message.flags & Flag.END)
            assert message.model_sha == sha
            assert bool(message.flags & Flag.SWAP) is (sha != before)
            values = self.log.values[message.token] if message.token < self.log.n else None
            if not message.flags & NULL:
                assert values is not None
                assert message.outputs["wheel_speed"].value == values[0]
            before = sha
        counts = self.log.outcome.counters
        parts = ("published", "superseded", "invalid", "idle")
        assert counts["tokens_closed"] == sum(counts[f"tokens_{part}"] for part in parts)
        tokens = [m.token for m in self.sent]
        assert tokens[:-1] == sorted(set(tokens[:-1]))


Act = Callable[[Swapper], Answer]


@pytest.fixture
def swapped(session: Session, tiny_checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., Done]:
    """Runs six trials of the planted session with tiny, and at each of some bins does what is asked there."""
    six = replace(session, segments=session.segments[:6], segment_ids=session.segment_ids[:6])
    first = replace(tiny_checkpoint, sha="f" * 64)

    def go(
        acts: dict[int, Act], markers: bool = True, probation: Probation | None = None, each: object = None,
        control: ControlConfig | None = None, certificate: str = "",
    ) -> Done:  # fmt: skip
        """each: called once a pass with the pipeline."""
        config = RigConfig("rig", "tiny", InputConfig("s"), control=control or ControlConfig(), certificate=certificate)
        decoder = engines.decoder(first, "neds")
        plan, clock, published = timeline(six, 0), offline.SteppedClock(), Published()
        binner = Binner(12, BIN, max_age_ns=10**10, future_ns=2_000_000)
        pipeline = Pipeline(
            binner, decoder, Rules(markers=markers),
            limits=lambda of: Limits(used=of.used, silence_ns=0 if markers else of.silence_ns, profile_min=0.0),
        )  # fmt: skip
        pipeline.recent = None if markers else Recent(12, 200)
        handover = Handover(pipeline, probation or Probation(10_000, 5, 20_000_000))
        log = RunLog(describe(decoder, rig="r", source="synthetic", budget_ms=20.0), 10_000, 12, 3)
        source = offline.SessionSource(plan, BIN, clock)
        answers: list[Answer] = []
        waiting: list[threading.Thread] = []
        with Chain(tmp_path / "swaps.jsonl") as links:
            swapper = Swapper(config, first, decoder, handover, links)

            def do(act: Act) -> None:
                try:
                    answers.append(act(swapper))
                except NedsError as error:
                    answers.append(Answer(False, str(error)))

            def between() -> bool:
                for at in [k for k in acts if k <= binner.open_bin]:
                    act = acts.pop(at)
                    if markers:
                        do(act)
                    else:  # waits for the loop
                        waiting.append(threading.Thread(target=do, args=(act,)))
                        waiting[-1].start()
                if callable(each):
                    each(pipeline, swapper)
                if any(thread.is_alive() for thread in waiting):
                    time.sleep(0.004)  # bins close at a pace at which one can be primed
                return False

            sink = Messages(config, pipeline, source, published, "synthetic")
            run(source, pipeline, sink, clock, log, Plan(20_000_000, stop=between, handover=handover))
            for thread in waiting:
                thread.join()
            swapper.close()
        return Done(log, published.sent, published.events, answers, pipeline)

    return go


def asks(path: Path, at: str = "", force: bool = False) -> Act:
    """Of another checkpoint."""
    return lambda swapper: swapper.answer(Swap(str(path), sha256(path), at, force))  # pyright: ignore[reportArgumentType]


def back(swapper: Swapper) -> Answer:
    return swapper.answer(Rollback())


def exact(done: Done, k: int, path: Path) -> float:
    found = summary.exact_of_exchange(done.log, k, checkpoints.load(path))
    assert found is not None
    return found


def test_the_socket_is_served_while_a_run_goes_on(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """And Python threads change often enough meanwhile that the loop does not wait for this one."""
    config, decoder = RigConfig("rig", "tiny", InputConfig("s")), engines.decoder(tiny_checkpoint, "neds")
    pipeline = Pipeline(Binner(12, BIN, max_age_ns=1, future_ns=1), decoder, Rules())
    before = sys.getswitchinterval()
    with Chain(tmp_path / "swaps.jsonl") as links, Control(0) as control:
        exchanges = Exchanges(config, tiny_checkpoint, decoder, control, links)
        assert exchanges.of(pipeline).pipeline is pipeline
        assert pipeline.recent is not None
        with exchanges:
            assert sys.getswitchinterval() <= 1e-3
            found = ask(control.address, State()).running
    assert sys.getswitchinterval() == before
    assert found is not None
    assert (found.rig, found.model, found.since, found.waiting) == ("rig", "tiny", 0, None)


# --- between trials ---


def test_a_swap_that_is_asked_in_a_trial_takes_over_with_the_first_bin_of_the_next(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = gated(1)
    done = swapped({10: asks(path)})
    start = int(np.flatnonzero(done.log.clock[: done.log.n] == 0)[1])
    assert done.turns == [(start, "swap")]
    done.assert_told_apart(replace(tiny_checkpoint, sha="f" * 64))
    assert exact(done, 0, path) <= 1e-5
    ours = summary.scored(done.log, tiny_checkpoint)
    assert ours["streamed_vs_offline_max_abs"] <= 1e-5
    messages = done.by_token()
    assert all(bool(m.flags & Flag.UNGATED) is (token < start) for token, m in messages.items())
    assert messages[start].flags == Flag.SWAP
    assert (done.answers[0].ok, "as soon as the next segment starts" in done.answers[0].said) == (True, True)
    running = done.answers[0].running
    assert running is not None
    assert running.waiting is not None
    assert running.waiting.model_sha == sha256(path)
    links = chain.read(tmp_path / "swaps.jsonl")
    assert [(e.outcome, e.token, e.forced) for e in links] == [("accepted", -1, False), ("taken", start, False)]
    assert (links[1].from_sha, links[1].to_sha, links[1].parents) == ("f" * 64, sha256(path), ("9a9e",))
    assert (links[1].gate, links[1].session) == ({"wheel_speed": "PASS", "choice": "PASS"}, "today")
    assert done.events == ["swap"]


@pytest.mark.parametrize(("asked", "at"), [(30, "now"), (30, "iti"), (10, "now")])
def test_now_is_the_next_bin_outside_a_trial_and_never_one_inside(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint, asked: int, at: str
) -> None:
    done = swapped({asked: asks(gated(1), at)})
    idle, clock = done.log.idle[: done.log.n], done.log.clock[: done.log.n]
    ok = (clock == 0) | (idle if at == "now" else False)
    assert done.turns == [(int(np.flatnonzero(ok & (np.arange(done.log.n) >= asked))[0]), "swap")]
    done.assert_told_apart(replace(tiny_checkpoint, sha="f" * 64))
    assert exact(done, 0, gated(1)) <= 1e-5


def test_it_is_rolled_back_once_and_what_waits_is_dropped(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = gated(1)
    done = swapped({10: asks(path), 12: back, 14: back, 16: asks(path), 80: back, 140: back})
    assert [why for _, why in done.turns] == ["swap", "rollback"]
    done.assert_told_apart(replace(tiny_checkpoint, sha="f" * 64))
    said = [(a.ok, a.said) for a in done.answers]
    assert [ok for ok, _ in said] == [True, True, False, True, True, False]
    assert "no longer waits to take over" in said[1][1]
    assert said[2][1] == said[5][1]
    assert "only a swap can be rolled back, and once" in said[5][1]
    assert exact(done, 0, path) <= 1e-5
    assert summary.scored(done.log, tiny_checkpoint)["streamed_vs_offline_max_abs"] <= 1e-5
    outcomes = [(link.why, link.outcome) for link in chain.read(tmp_path / "swaps.jsonl")]
    assert outcomes == [
        ("swap", "accepted"), ("swap", "dropped"), ("swap", "accepted"), ("swap", "taken"), ("rollback", "accepted"),
        ("rollback", "taken"),
    ]  # fmt: skip


def spoil(pipeline: Pipeline, swapper: Swapper) -> None:
    """What was swapped in gives values that are not finite from the 20th bin on."""
    turns = pipeline.exchanges
    engine = pipeline.decoder.engine
    if len(turns) == 1 and pipeline.binner.open_bin >= turns[0].token + 20 and "step" not in vars(engine):
        engine.step = lambda token: np.full(3, np.nan, np.float32)  # type: ignore[method-assign]


@pytest.mark.parametrize("markers", [True, False], ids=["trials", "continuous"])
def test_values_that_are_not_finite_bring_the_previous_decoder_back(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint, tmp_path: Path, markers: bool
) -> None:
    """Withheld until it decodes again: at the next trial, or primed within moments; flagged from then on."""

    def each(pipeline: Pipeline, swapper: Swapper) -> None:
        spoil(pipeline, swapper)
        if swapper.handover.wanted and not any(t.name == "looks" for t in threading.enumerate()):
            threading.Thread(target=swapper.look, name="looks").start()
        if swapper.handover.wanted:
            time.sleep(0.004)

    done = swapped({10: asks(gated(1))}, markers=markers, each=each)
    (swap, _), (fell, why) = done.turns
    assert why == "fallback"
    assert done.events == ["swap", "unfit", "fallback"]
    done.assert_told_apart(replace(tiny_checkpoint, sha="f" * 64))
    messages = done.by_token()
    assert all(m.flags & NULL for token, m in messages.items() if swap + 21 <= token < fell)
    assert {m.state for token, m in messages.items() if swap + 21 <= token < fell} <= {"FAULT", "IDLE"}
    assert all(bool(m.flags & Flag.FALLBACK) is (token >= fell) for token, m in messages.items())
    assert any(not m.flags & NULL for token, m in messages.items() if token >= fell)
    if markers:
        assert done.log.idle[fell] or done.log.clock[fell] == 0
    else:
        assert fell - swap < 60
        assert done.log.outcome.exchanges[1].primed >= 0
    assert summary.scored(done.log, tiny_checkpoint)["streamed_vs_offline_max_abs"] <= 1e-5
    last = chain.read(tmp_path / "swaps.jsonl")[-1]
    assert (last.why, last.outcome, last.token, "not finite" in last.said) == ("fallback", "taken", fell, True)


def test_a_probation_that_is_over_is_in_the_chain(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path
) -> None:
    done = swapped({10: asks(gated(1))}, probation=Probation(30, 5, 20_000_000))
    assert done.events == ["swap", "probation_over"]
    links = chain.read(tmp_path / "swaps.jsonl")
    assert [link.outcome for link in links] == ["accepted", "taken", "kept"]
    assert links[2].from_sha == "f" * 64


# --- without a break ---


def test_without_segments_it_is_primed_and_says_at_once_what_it_would_have_said(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint
) -> None:
    """Exact from its first bin on, also to a decoder that had run all along; and so is the way back."""
    path = gated(1)
    done = swapped({60: asks(path, "iti"), 150: back}, markers=False)
    assert [why for _, why in done.turns] == ["swap", "rollback"]
    assert "this run has no segments, so iti is now" in done.answers[0].said
    done.assert_told_apart(replace(tiny_checkpoint, sha="f" * 64))
    log, made = done.log, checkpoints.load(path)
    swap, rollback = log.outcome.exchanges
    assert 0 <= swap.primed < swap.token
    assert not log.reset[swap.token]
    assert exact(done, 0, path) <= 1e-5
    assert summary.scored(log, tiny_checkpoint)["streamed_vs_offline_max_abs"] <= 1e-5
    rows = np.arange(log.n)
    log.outcome = msgspec.structs.replace(log.outcome, exchanges=())
    always = all_decoders(made, log, rows)["neds"]
    own = (rows >= swap.token) & (rows < rollback.token) & log.valid[: log.n]
    assert exactness(layout(made), log.values[rows], always, own) <= 1e-5


# --- what is refused ---


def test_refusals_are_one_sentence_and_change_nothing(
    swapped: Callable[..., Done], gated: Callable[..., Path], tiny_checkpoint: Checkpoint, session: Session,
    tmp_path: Path, make_checkpoint: Callable[..., Checkpoint],
) -> None:  # fmt: skip
    def saved(name: str, made: Checkpoint) -> Path:
        checkpoints.save(made, tmp_path / name)
        return tmp_path / name

    def of_header(name: str, **changes: object) -> Path:
        gate = checkpoints.load(gated(1)).header.gate
        return saved(name, replace(make_checkpoint(seed=2), header=replace_header(gate=gate, **changes)))

    def replace_header(**changes: object) -> checkpoints.Header:
        return msgspec.structs.replace(make_checkpoint(seed=2).header, **changes)

    one = make_checkpoint(seed=2)
    table = UnitTable(session.units.ids + 1, session.units.region, session.units.depth_um)
    torn, pipe = tmp_path / "torn.safetensors", tmp_path / "pipe"
    torn.write_bytes(gated(1).read_bytes()[:-10])
    os.mkfifo(pipe)
    own = "0" * 64
    spec = msgspec.structs.replace(one.header.specs[0], unit="cm/s")
    ahead = msgspec.structs.replace(one.header.specs[0], lead_ms=40.0)
    others = {
        "is a relative path": lambda s: s.answer(Swap("tiny.safetensors", own)),
        "cannot be read (No such file": lambda s: s.answer(Swap(str(tmp_path / "gone"), own)),
        "cannot be read (Is a directory": lambda s: s.answer(Swap(str(tmp_path), own)),
        "no regular file; give": lambda s: s.answer(Swap(str(pipe), own)),
        "decodes, not 000000000000, which the swap expects; nothing is swapped": lambda s: s.answer(
            Swap(str(gated(1)), sha256(gated(1)), "now", expect=own)
        ),
        "has SHA-256": lambda s: s.answer(Swap(str(gated(1)), own)),
        "is cut short": asks(torn),
        "other units than this stream sends (12 and 12 units, 0 of them the same)": asks(
            saved("units", replace(one, units=table, header=replace_header(unit_map_sha=table.sha256)))
        ),
        "has bins of 10 ms and this run of 20 ms": asks(of_header("bins", bin_ns=10_000_000)),
        "or in another order, unit": asks(of_header("outputs", specs=(spec, one.header.specs[1]))),
        "unit, sign, lead or class; train": asks(of_header("lead", specs=(ahead, one.header.specs[1]))),
        "not swapped in: no gate has judged it": asks(gated(1, None)),
        "its gate says NEED of wheel_speed: as a test has it": asks(gated(1, "NEED")),
        "its gate offers ridge of wheel_speed, and this rig would publish neds": asks(gated(1, "RIDGE", "ridge")),
    }
    done = swapped(dict(enumerate(others.values(), start=5)))
    assert done.turns == []
    for says, answer in zip(others, done.answers, strict=True):
        assert not answer.ok
        assert says in answer.said
        assert "\n" not in answer.said
        assert answer.by_gate is ("gate" in says)
    assert {m.model_sha for m in done.sent} == {"f" * 64}
    assert chain.read(tmp_path / "swaps.jsonl") == []


def test_a_run_that_demanded_a_certificate_takes_nothing_by_force(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path
) -> None:
    """Not even what its gate has passed; without force that decodes."""
    passed = gated(1)
    acts = {10: asks(gated(2, "REFUSE"), force=True), 20: asks(passed, force=True), 30: asks(passed)}
    done = swapped(acts, certificate="rig.certificate.json")
    for answer in done.answers[:2]:
        assert not answer.ok
        assert "force is set, and this run demanded the certificate rig.certificate.json" in answer.said
        assert "\n" not in answer.said
    assert done.answers[2].ok
    (exchange,) = done.log.outcome.exchanges
    assert not exchange.forced


def test_what_no_gate_has_passed_is_forced_and_that_is_recorded(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path
) -> None:
    done = swapped({10: asks(gated(1, "REFUSE"), force=True)})
    (exchange,) = done.log.outcome.exchanges
    assert exchange.forced
    assert all(m.flags & Flag.UNGATED for m in done.sent)
    assert [link.forced for link in chain.read(tmp_path / "swaps.jsonl")] == [True, True]
    detail = next(event.detail for event in done.log.events if event.name == "swap")
    assert "forced: its gate says REFUSE of wheel_speed" in detail


def test_one_exchange_at_a_time(swapped: Callable[..., Done], gated: Callable[..., Path]) -> None:
    """Not while another waits, nor from one on probation, nor to what decodes already."""
    done = swapped({
        10: asks(gated(1)), 12: asks(gated(2)), 80: asks(gated(2)), 82: lambda s: s.answer(State()),
    })  # fmt: skip
    assert [a.ok for a in done.answers] == [True, False, False, True]
    assert "waits to take over; wait until it has, or roll it back" in done.answers[1].said
    assert "is on probation for another 19" in done.answers[2].said
    running = done.answers[3].running
    assert running is not None
    assert (running.model_sha, running.since) == (sha256(gated(1)), done.turns[0][0])
    assert (running.previous, running.why, running.exchanges, running.gated) == ("f" * 64, "swap", 1, True)
    done = swapped({10: asks(gated(1)), 80: asks(gated(1))}, probation=Probation(0, 5, 1))
    assert "decodes already" in done.answers[1].said


@pytest.mark.parametrize("markers", [True, False])
def test_what_decodes_is_compared_again_when_it_takes_over(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    markers: bool,
) -> None:  # fmt: skip
    """As if the loop had been about to take another one over, unseen, when the swap was accepted."""
    made, accepted, taken = checkpoints.load(gated(2)), threading.Event(), threading.Event()
    other = engines.decoder(made, "neds")

    def late(*given: Any) -> tuple[int, int]:
        accepted.set()
        assert taken.wait(10)
        return exchange.prime(*given)

    def meanwhile(pipeline: Pipeline, swapper: Swapper) -> None:
        if not taken.is_set() and (pipeline.successors or accepted.is_set()):
            swapper._known[id(other)] = incoming.known(other, made, str(gated(2)))
            pipeline.take_over(Successor(other), pipeline.binner.open_bin)
            taken.set()

    monkeypatch.setattr(swapping, "prime", late)
    done = swapped({10: asks(gated(1))}, markers=markers, each=meanwhile)

    assert [e.model_sha for e in done.log.outcome.exchanges] == [made.sha]
    assert done.events == ["swap", "swap_dropped"]
    said = (
        f"tiny-1 ({sha256(gated(1))[:12]}) is not swapped in: tiny-2 ({made.sha[:12]}) decodes by now, not "
        "ffffffffffff, which the swap expects; look at what decodes, and ask again"
    )
    links = chain.read(tmp_path / "swaps.jsonl")
    assert [(e.outcome, e.to_sha) for e in links if e.to_sha != made.sha] == [
        ("accepted", sha256(gated(1))), ("dropped", sha256(gated(1))),
    ]  # fmt: skip
    assert links[-1].said == said
    (answer,) = done.answers
    assert (answer.ok, answer.said == said) == ((True, False) if markers else (False, True))


def test_a_frozen_run_takes_no_swap_until_it_is_allowed_again_but_goes_back(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path
) -> None:
    def freeze(on: bool) -> Act:
        return lambda swapper: swapper.answer(Freeze(on))

    done = swapped({
        10: asks(gated(1)), 12: freeze(True), 80: freeze(True), 82: freeze(True), 84: asks(gated(2)), 86: back,
        140: freeze(False), 142: asks(gated(2)),
    })  # fmt: skip
    assert [why for _, why in done.turns] == ["swap", "rollback", "swap"]
    assert [a.ok for a in done.answers] == [True, False, True, True, False, True, True, True]
    assert "waits to take over; wait until it has" in done.answers[1].said
    assert "the run is frozen: no swap is taken; `neds-rt freeze RIG.toml --off`" in done.answers[4].said
    frozen = [a.running.frozen for a in done.answers if a.running is not None]
    assert frozen == [False, True, True, True, False, False]
    assert done.answers[2].running is not None
    assert done.answers[2].running.path == str(gated(1))
    links = chain.read(tmp_path / "swaps.jsonl")
    assert [link.why for link in links if link.why not in ("swap", "rollback")] == ["freeze", "thaw"]


def test_a_loop_that_stands_takes_nothing_over_later(
    tiny_checkpoint: Checkpoint, gated: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was primed for a bin of then would be wrong; and nothing follows one that is unfit but the one before it."""
    monkeypatch.setattr(swapping, "TAKEN_S", 0.05)
    config, decoder = RigConfig("rig", "tiny", InputConfig("s")), engines.decoder(tiny_checkpoint, "neds")
    pipeline = Pipeline(Binner(12, BIN, max_age_ns=1, future_ns=1), decoder, Rules())
    pipeline.recent = Recent(12, 50)
    with Chain(tmp_path / "swaps.jsonl") as links:
        handover = Handover(pipeline, Probation(1, 1, 1))
        swapper = Swapper(config, tiny_checkpoint, decoder, handover, links)
        with pytest.raises(NedsError, match="or the loop stands; ask again"):
            asks(gated(1))(swapper)
        assert not pipeline.successors
        pipeline.unfit = "tiny is unfit; going back to another"
        with pytest.raises(NedsError, match="going back to another; wait until it has"):
            asks(gated(1))(swapper)
    assert [link.outcome for link in chain.read(tmp_path / "swaps.jsonl")] == ["accepted", "dropped"]


def test_what_still_waits_at_the_end_was_dropped(
    swapped: Callable[..., Done], gated: Callable[..., Path], tmp_path: Path
) -> None:
    done = swapped({280: asks(gated(1), "iti")})
    assert done.turns == []
    assert [link.outcome for link in chain.read(tmp_path / "swaps.jsonl")] == ["accepted", "dropped"]
