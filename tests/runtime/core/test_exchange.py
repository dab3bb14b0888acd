"""What another decoder is primed with, and what it is worth: the state of one that had been running all along."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from runtime.core.binning import Binner
from runtime.core.engine import Decoder
from runtime.core.exchange import MOST_BEHIND, SPARE, Recent, Successor, prime
from runtime.core.handover import Handover, Probation
from runtime.core.misses import Passage
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.state import State
from runtime.core.values import Decoded, Layout, Token

BIN = 20_000_000
BUDGET = 20_000_000


class Remembers:
    """Values: the sum of the last `field` counts of bins with live data since the cold start."""

    name = "remembers"
    layout = Layout((), {}, np.ones(1, np.float32), np.zeros(1, np.float32))
    window_bins = 0

    def __init__(self, field: int = 7) -> None:
        self.field = field
        self.seen: list[int] = []
        self.values = np.zeros(1, np.float32)

    def reset(self, position: int = 0) -> None:
        self.seen = []

    def step(self, token: Token) -> np.ndarray:
        self.seen = [*self.seen, int(token.counts.sum()) if token.valid else 0][-self.field :]
        self.values[0] = sum(self.seen)
        return self.values

    def skip(self, n_bins: int) -> None:
        self.seen = [*self.seen, *[0] * n_bins][-self.field :]

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def of(engine: Remembers, sha: str = "sha") -> Decoder:
    return Decoder(engine, "neds", f"model {sha}", sha, "", "units", 2, BIN)


def a_bin(k: int, rng: np.random.Generator) -> Token:
    return Token(k, (k + 1) * BIN, rng.integers(0, 9, 2).astype(np.uint16), valid=bool(rng.random() < 0.8))


@given(
    n_bins=st.integers(1, 300), kept=st.integers(8, 40), cold=st.sets(st.integers(0, 300), max_size=4),
    seed=st.integers(0, 9), field=st.integers(1, 8),
)  # fmt: skip
def test_a_primed_engine_is_where_one_is_that_ran_all_along(
    n_bins: int, kept: int, cold: set[int], seed: int, field: int
) -> None:
    """Whatever was skipped, wherever decoding started anew, however often the buffer went round."""
    rng, recent = np.random.default_rng(seed), Recent(2, kept)
    always, later = Remembers(field), Remembers(field)
    for k in range(n_bins):
        token, anew = a_bin(k, rng), k == 0 or k in cold
        recent.take(token, cold=anew)
        if anew:
            always.reset()
        always.step(token)
    primed, upto = prime(later, recent, field)
    assert later.seen == always.seen[-len(later.seen) :]
    assert sum(later.seen) == sum(always.seen)
    assert (upto, primed <= n_bins) == (n_bins, True)
    assert primed >= max((k for k in cold | {0} if k < n_bins), default=0) or n_bins - primed >= field


def test_a_copy_holds_no_bin_that_was_written_over() -> None:
    """The oldest that is still there comes first, and each row is of its bin."""
    recent = Recent(1, 10)
    for k in range(500):
        recent.take(Token(k, 0, np.array([k], np.uint16), valid=True), cold=False)
        bins = recent.copy(k - 30)
        assert bins.first == max(0, k + 1 - 10)
        assert bins.counts[:, 0].tolist() == list(range(bins.first, k + 1))
    assert len(recent._valid) == 10 + SPARE


class Loop:
    """A pipeline without segments, and the loop's side of an exchange."""

    def __init__(self, misses: int = 2, bins: int = 50, markers: bool = False) -> None:
        binner = Binner(2, BIN, max_age_ns=10**10, future_ns=0)
        self.first = of(Remembers(), "first")
        self.pipeline = Pipeline(binner, self.first, Rules(markers=markers))
        self.pipeline.recent = None if markers else Recent(2, 100)
        self.handover = Handover(self.pipeline, Probation(bins, misses, BUDGET))
        self.said: list[str] = []
        binner.start(0)

    def bins(self, n: int, late_ns: int = 0, engine_ns: int = 0, cpu_ns: int | None = None) -> list[Decoded]:
        """So many bins close, one a pass, each published so much after its edge."""
        found = []
        for _ in range(n):
            edge = self.pipeline.binner.edge_ns
            self.pipeline.alive(edge, edge)
            closed = self.pipeline.advance(edge)
            found += [Decoded(d.token, None if d.values is None else d.values.copy(), d.flags, engine_ns, d.state)
                      for d in closed]  # fmt: skip
            passage = Passage(
                edge_ns=edge, due_ns=edge, woke_ns=edge, before_ns=edge, sent_ns=edge + late_ns,
                cpu_ns=engine_ns if cpu_ns is None else cpu_ns,
            )  # fmt: skip
            self.said += [name for name, _ in self.handover.after(found[-1:], passage)]
        return found

    def give(self, decoder: Decoder, primed: int = -1, upto: int = -1, why: str = "swap") -> None:
        self.pipeline.successors.append(Successor(decoder, why, primed=primed, upto=upto))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("behind", range(MOST_BEHIND + 2))
def test_the_loop_takes_over_what_lacks_a_handful_of_bins_and_hands_back_the_rest(behind: int) -> None:
    loop, new = Loop(), Remembers()
    loop.bins(20)
    assert loop.pipeline.recent is not None
    primed, upto = prime(new, loop.pipeline.recent, 7)
    if behind:
        loop.bins(behind - 1)
        loop.give(of(new, "new"), primed, upto)
    else:
        loop.give(of(new, "new"), primed, upto + 1)  # nothing is lacking once the next has closed
        new.step(Token(20, 0, np.zeros(2, np.uint16), valid=True))
    loop.bins(1)
    taken = behind <= MOST_BEHIND
    assert (len(loop.pipeline.exchanges), loop.handover.behind) == (int(taken), int(not taken))
    assert loop.pipeline.decoder.model_sha == ("new" if taken else "first")
    assert loop.said == ["swap"] * taken
    assert not loop.pipeline.successors


def test_a_primed_decoder_goes_on_without_a_cold_start() -> None:
    loop, new = Loop(), Remembers()
    loop.bins(20)
    assert loop.pipeline.recent is not None
    loop.give(of(new, "new"), *prime(new, loop.pipeline.recent, 7))
    after = loop.bins(3)
    assert [decoded.token.reset for decoded in after] == [False] * 3
    assert loop.pipeline.exchanges[0].token == after[1].token.index
    assert loop.pipeline.exchanges[0].successor.primed == 13


def test_a_probation_that_ends_well_is_said() -> None:
    loop = Loop(bins=5)
    loop.give(of(Remembers(), "new"))
    loop.bins(10)
    assert loop.said == ["swap", "probation_over"]
    assert (loop.handover.left, loop.handover.kept) == (0, 1)
    assert loop.handover.previous is loop.first


@pytest.mark.parametrize(
    ("late_ms", "engine_ms", "cpu_ms", "unfit"),
    [(21, 15, 15, True), (19, 15, 15, False), (21, 9, 15, False), (21, 15, 1, False)],
    ids=["its steps", "in time", "something else", "not on the core"],
)
def test_only_misses_of_its_engine_end_a_probation(late_ms: int, engine_ms: int, cpu_ms: int, unfit: bool) -> None:
    loop = Loop(misses=2)
    loop.give(of(Remembers(), "new"))
    loop.bins(1)
    ns = [ms * 1_000_000 for ms in (late_ms, engine_ms, cpu_ms)]
    loop.bins(2, *ns)
    assert loop.said == ["swap"]
    loop.bins(1, *ns)
    assert loop.said == ["swap"] + ["unfit"] * unfit
    assert bool(loop.handover.wanted) is unfit
    after = loop.bins(1)[0]
    assert (after.values is None) is unfit
    assert after.state is (State.FAULT if unfit else State.STALLED if not after.token.valid else State.RUNNING)


def test_one_value_that_is_not_finite_ends_a_probation() -> None:
    """And none is published before the previous decoder has taken over; that one is not watched."""
    loop, bad = Loop(), Remembers()
    loop.give(of(bad, "bad"))
    loop.bins(3)
    bad.step = lambda token: np.array([np.nan], np.float32)  # type: ignore[method-assign]
    loop.bins(1)
    del bad.step
    assert [decoded.values for decoded in loop.bins(3)] == [None] * 3
    assert loop.said == ["swap", "unfit"]
    assert "bad" in loop.handover.wanted
    previous = loop.handover.previous
    assert previous is loop.first
    loop.give(previous, why="fallback")
    loop.bins(1)
    assert loop.bins(2)[1].values is not None
    assert loop.said[-1] == "fallback"
    assert (loop.handover.left, loop.handover.wanted, loop.handover.previous) == (0, "", None)


def test_a_rolled_back_decoder_is_not_watched_and_there_is_nothing_behind_it() -> None:
    loop = Loop()
    loop.give(of(Remembers(), "new"))
    loop.bins(2)
    loop.give(loop.first, why="rollback")
    loop.bins(2)
    assert (loop.handover.left, loop.handover.previous) == (0, None)
