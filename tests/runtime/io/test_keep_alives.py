"""The sender's count: what was lost is counted, and a negative unit is not taken for a keep-alive."""

from __future__ import annotations

from hypothesis import given, strategies as st

from runtime.io.keep_alives import MOST_OPEN, REMEMBERED, SentCount
from runtime.io.unit_stream import KEEP_ALIVE_MODULUS

PERIOD_NS = 20_000_000
TICK_NS = 1_000_000


class Link:
    """A sender with keep-alives, and what our side makes of its samples."""

    def __init__(self, sent: int) -> None:
        self.count, self.sent, self.received, self.out_of_range, self.alive = SentCount(), sent, 0, 0, 0
        self.same = 0
        self.t_ns = 10**12

    def spikes(self, arriving: int, lost: int) -> None:
        """A period's spikes, some of which never come."""
        self.received += arriving
        self.sent += arriving + lost

    def again(self, n: int, counted: bool) -> None:
        """Spikes that have come before."""
        self.received += n
        self.same += n
        self.sent += n * counted

    def negative(self, value: int) -> None:
        """A sample below 0."""
        kept, refuted = self.count.take(self.t_ns, value, self.received, self.same)
        self.received += len(refuted)
        self.out_of_range += len(refuted)
        self.alive += kept

    def period(self, noise: list[int], counted: bool) -> None:
        """Noise, each 1 ms after the other, then the keep-alive."""
        for value in noise:
            self.t_ns += TICK_NS
            self.sent += counted
            self.negative(value)
        self.t_ns += PERIOD_NS - len(noise) * TICK_NS
        self.negative(-1 - self.sent % KEEP_ALIVE_MODULUS)


@given(
    begun=st.sampled_from([0, 5, 10**6, KEEP_ALIVE_MODULUS - 50]),
    periods=st.lists(st.tuples(st.integers(0, 40), st.lists(st.sampled_from([-1, -2, -7, -(2**31)]), max_size=4))),
    counted=st.booleans(),
)
def test_noise_is_out_of_range_and_nothing_is_lost(
    begun: int, periods: list[tuple[int, list[int]]], counted: bool
) -> None:
    """Whether the sender counts its spikes of no unit or not."""
    link = Link(begun)
    for _ in range(4):  # the count is known before the first noise
        link.spikes(100, 0)
        link.period([], counted)
    for arriving, noise in periods:
        link.spikes(arriving, 0)
        link.period(noise, counted)
    wrong = sum(len(noise) for _, noise in periods)
    assert link.count.lost == 0
    # a value that happens to be the true count is a keep-alive like any other
    assert link.out_of_range == wrong or begun in (0, 5, KEEP_ALIVE_MODULUS - 50)
    assert link.out_of_range <= wrong


@given(
    begun=st.integers(0, KEEP_ALIVE_MODULUS - 1),
    gaps=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30)), min_size=1, max_size=20),
)
def test_what_is_lost_is_counted(begun: int, gaps: list[tuple[int, int]]) -> None:
    """sent = received + lost once the loss is over for two keep-alives, wherever the count wraps."""
    link = Link(begun)
    for _ in range(3):
        link.period([], counted=False)
    for arriving, lost in gaps:
        link.spikes(arriving, lost)
        link.period([], counted=False)
    for _ in range(3):
        link.period([], counted=False)
    assert link.count.lost == sum(lost for _, lost in gaps)
    assert link.received == sum(arriving for arriving, _ in gaps)
    assert link.out_of_range == 0


def test_a_sender_that_counts_from_0_again_has_lost_nothing() -> None:
    link = Link(0)
    for _ in range(5):
        link.spikes(20, 0)
        link.period([], counted=False)
    link.sent = 0
    for _ in range(5):
        link.spikes(3, 0)
        link.period([], counted=False)
    assert (link.count.lost, link.out_of_range, link.received) == (0, 0, 115)


@given(
    periods=st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(0, 40), st.booleans(), st.booleans(),
        ), min_size=1, max_size=30,
    ),
    known=st.booleans(),
)  # fmt: skip
def test_what_comes_again_does_not_disturb_the_count(periods: list[tuple[int, int, bool, bool]], known: bool) -> None:
    """Spikes, keep-alives or both, whether the sender counts them again or not, also from the first moment on."""
    link = Link(17)
    for _ in range(4 * known):
        link.spikes(10, 0)
        link.period([], counted=False)
    for arriving, repeated, counted, with_keep_alive in periods:
        link.spikes(arriving, 0)
        link.period([], counted=False)
        value = -1 - link.sent
        link.again(repeated, counted)
        if with_keep_alive and not counted:
            link.negative(value)
    for _ in range(4):
        link.spikes(10, 0)
        link.period([], counted=False)
    assert (link.out_of_range, link.count.lost) == (0, 0)
    assert link.alive >= 3


@given(st.integers(1, 40), st.integers(1, 300), st.booleans())
def test_a_loss_between_repeats_is_counted(repeated: int, lost: int, counted: bool) -> None:
    """Once nothing has come again for two keep-alives."""
    link = Link(17)
    for period in range(12):
        link.spikes(10, lost * (period == 6))
        link.period([], counted=False)
        if period in (2, 3, 9):
            link.again(repeated, counted)
    assert (link.out_of_range, link.count.lost) == (0, lost)


def test_keep_alives_that_count_nothing_cost_little_memory() -> None:
    """Always -1: none is one while spikes come, and few are looked at again."""
    link = Link(0)
    for _ in range(500):
        link.spikes(2, 0)
        link.t_ns += 2_000_000
        link.negative(-1)
        assert len(link.count._open) <= MOST_OPEN == 64
    assert (link.alive, link.out_of_range, link.count.lost) == (0, 500 - MOST_OPEN, 0)


@given(st.integers(0, 3), st.integers(100_000, 400_000))
def test_keep_alives_however_close_are_confirmed(spikes: int, apart_ns: int) -> None:
    """More of them than are kept come within the time that confirms the first."""
    link = Link(0)
    for _ in range(300):
        link.spikes(spikes, 0)
        link.t_ns += apart_ns
        link.negative(-1 - link.sent)
    assert link.alive > 0
    assert (link.out_of_range, link.count.lost) == (0, 0)


def test_keep_alives_that_are_remembered_are_bounded() -> None:
    link = Link(0)
    for _ in range(2 * REMEMBERED):
        link.spikes(1, 0)
        link.period([], counted=False)
    assert len(link.count._known) == REMEMBERED
