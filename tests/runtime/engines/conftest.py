"""What the engines' tests share: small checkpoints of random weights, and any run of behaviour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st

from neds_core.checkpoint import Checkpoint

BAND, CLOCK_BINS = 5, 4


@pytest.fixture(scope="module")
def tiny_ones(make_checkpoint: Callable[..., Checkpoint]) -> dict[str, Checkpoint]:
    """Random weights, outputs of about 1 in z-scores: phase-free, clocked, of one layer, and of filtered tokens."""
    return {
        "phase-free": make_checkpoint(band=BAND),
        "clocked": make_checkpoint(band=BAND, clock_bins=CLOCK_BINS),
        "one layer": make_checkpoint(band=BAND, layers=1),
        "filtered": make_checkpoint(band=BAND, clock_bins=CLOCK_BINS, filter_taus_ms=(30.0, 600.0)),
    }


@dataclass(frozen=True)
class Run:
    """Up to nine bands of bins: the shares of behaviour observed, bins dropped and cold starts, and a position."""

    n: int
    seed: int
    share: float
    dropped: float
    cold: float
    start: int


@pytest.fixture(scope="session")
def draw_run() -> Callable[[st.DataObject], Run]:
    """Any run, far beyond where the ring wraps."""
    runs = st.builds(
        Run,
        n=st.integers(1, 9 * BAND),
        seed=st.integers(0, 2**31),
        share=st.sampled_from([0.2, 0.8, 1.0]),
        dropped=st.sampled_from([0.0, 0.3]),
        cold=st.sampled_from([0.0, 0.1]),
        start=st.sampled_from([0, BAND - 1, 10**7]),
    )
    return lambda data: data.draw(runs)
