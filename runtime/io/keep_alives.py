"""Which negative samples of a spike stream are keep-alives, and what they say was lost on the way."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

from runtime.io.unit_stream import KEEP_ALIVE_MODULUS

CONFIRMED_NS = 25_000_000  # longer than a keep-alive's period: a true count would have come in between
NEAR = 100  # spikes lost within the claims that are open: fewer than noise is off by, as a rule
MOST_LOST = 2_000  # spikes lost between two keep-alives that confirm each other
MOST_OPEN = 64  # each costs time
REMEMBERED = 8192  # keep-alives: 16 s of them, 2 ms apart


class Claim(NamedTuple):
    """A negative sample: its stamp and value, the spikes sent that it would mean, and the spikes received before it.

    same: of those received, spikes with unit and stamp of one before. The sender may have counted them or not. n: how
    many samples it stands for, later ones of which continue its count.
    """

    t_ns: int
    value: int
    sent: int
    received: int
    same: int
    n: int = 1


def _each(claims: Iterable[Claim]) -> list[Claim]:
    """A claim for each sample."""
    return [claim for claim in claims for _ in range(claim.n)]


def _ahead(later: int, earlier: int) -> int:
    """later - earlier of two counts that wrap; negative where `later` is behind."""
    gap = (later - earlier) % KEEP_ALIVE_MODULUS
    return gap - KEEP_ALIVE_MODULUS if gap > KEEP_ALIVE_MODULUS // 2 else gap


def _over(earlier: Claim, later: Claim) -> int:
    """Spikes that the sender would have sent between two claims, and that did not come; at least."""
    over = _ahead(later.sent, earlier.sent) - (later.received - earlier.received)
    return over if over >= 0 else min(0, over + later.same - earlier.same)


class SentCount:
    """A sender's count of its spikes: -1 - (sent mod 2**31 - 1) in each keep-alive.

    A value that continues the count is a keep-alive at once. Another one (the first, after a loss, after a restart)
    has to be confirmed by those that follow; what they refute is a spike of a unit that does not exist.
    From the first keep-alive on: sent = received + lost, where no spike came again that the sender did not count.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._trusted: Claim | None = None
        self._open: list[Claim] = []
        self._known: dict[tuple[int, int], None] = {}  # stamps and values of the newest keep-alives

    def take(self, t_ns: int, value: int, received: int, same: int) -> tuple[bool, list[Claim]]:
        """Whether a negative value is a keep-alive, and those before it that turn out to be none.

        t_ns: by the sender's clock. received: spikes so far, with what earlier calls turned out. same: see `Claim`.
        """
        if (t_ns, value) in self._known:  # it comes again, and says nothing new
            return True, []
        claim = Claim(t_ns, value, -1 - value, received, same)
        last = self._trusted
        if last is not None and self._continues(last, claim):
            return True, self._settle(claim, _each(self._open))
        first = self._first(claim)
        if first is None:
            return False, self._wait(claim)
        most = _over(first, claim) + claim.same - first.same
        begun = self._open.index(first)
        refuted = _each(c for k, c in enumerate(self._open) if k < begun or not 0 <= _over(c, claim) <= most)
        anchor = last if last is not None else first  # what was sent before the first keep-alive is not known
        if _over(anchor, first) < 0:  # the sender counts from 0 again
            anchor = first
        self.lost += max(0, _over(anchor, claim) - len(refuted))
        return True, self._settle(claim, refuted)

    def _wait(self, claim: Claim) -> list[Claim]:
        """Keep a claim until another confirms or refutes it; returns those for which there is no room."""
        for k, earlier in enumerate(self._open):
            if _over(earlier, claim) == 0:  # both say the same, so the earlier stands for both
                self._open[k] = earlier._replace(n=earlier.n + 1)
                return []
        self._open.append(claim)
        return _each([self._open.pop(0)]) if len(self._open) > MOST_OPEN else []

    def _continues(self, last: Claim, claim: Claim) -> bool:
        """Whether nothing was lost since the last keep-alive: a sender may count the spikes of no unit, or not."""
        over = _over(last, claim)
        if not 0 < over <= sum(c.n for c in self._open):
            return over == 0
        return over <= sum(c.n for c in self._open if not 0 <= _over(c, claim) <= NEAR)

    def _first(self, claim: Claim) -> Claim | None:
        """The open claim that this one confirms best."""
        old = takewhile(lambda c: claim.t_ns - c.t_ns >= CONFIRMED_NS, self._open)
        return min((c for c in old if 0 <= _over(c, claim) <= MOST_LOST), key=lambda c: _over(c, claim), default=None)

    def _settle(self, claim: Claim, refuted: list[Claim]) -> list[Claim]:
        """A claim is a keep-alive. Returns the refuted ones, which the next call counts as received."""
        for known in (*(c for c in self._open if c not in refuted), claim):
            self._known[known.t_ns, known.value] = None
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._trusted, self._open = claim._replace(received=claim.received + len(refuted)), []
        return refuted
