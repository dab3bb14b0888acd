"""Filters of counts are those of the linear decoder, wherever a recording is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from neds_core.data import filters, session as sessions
from neds_core.data.filters import EVERY, States
from neds_core.data.session import Session
from neds_core.linear.linear import Bank, BankState

TAUS_MS = (40.0, 600.0)


def by_the_linear_decoder(counts: np.ndarray, bin_ns: int) -> np.ndarray:
    """(T, K, U): the states of `BankState` after each bin, from a cold start."""
    bank = BankState(Bank(taus_ms=TAUS_MS, root=True), counts.shape[1], bin_ns)
    found = []
    for one in counts:
        bank.step(one, -1)
        found.append(bank.state.copy())
    return np.array(found)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 60), max_size=5), bin_ms=st.sampled_from([5, 20]))
def test_however_the_stream_is_cut_the_states_are_those_of_the_linear_decoder(
    seed: int, cuts: list[int], bin_ms: int
) -> None:
    """To the bit, two recordings beside each other."""
    counts = np.random.default_rng(seed).poisson(0.4, (2, 60, 3)).astype(np.uint16)
    keep, state, found = torch.from_numpy(filters.shares(TAUS_MS, bin_ms * 10**6)), None, []
    for piece in np.split(counts, sorted(cuts), axis=1):
        states = filters.run(torch.from_numpy(piece.astype(np.float32)), keep, state)
        found.append(states)
        state = states[:, -1] if piece.shape[1] else state

    for one, got in zip(counts, torch.cat(found, 1).numpy(), strict=True):
        np.testing.assert_array_equal(got, by_the_linear_decoder(one, bin_ms * 10**6))


def test_the_state_before_any_bin_is_that_of_its_segment_so_far(unbroken: Session) -> None:
    """Cold at each start, and a bin that is not valid enters as an empty one; segments longer than what is kept."""
    valid = np.random.default_rng(0).random(unbroken.n_bins) < 0.8
    ends = [(0, 5), (5, 5 + EVERY), (50, 51), (60, 60 + 4 * EVERY), (300, 400)]
    cut = replace(unbroken, valid=valid, segments=np.array(ends), segment_ids=np.arange(len(ends)))
    states = States(cut, filters.shares(TAUS_MS, cut.bin_ns))

    for start, stop in ends:
        alone = by_the_linear_decoder(cut.counts[start:stop] * valid[start:stop, None], cut.bin_ns)
        assert not states.before(start).any()
        for t in range(start + 1, stop):
            np.testing.assert_array_equal(states.before(t).numpy(), alone[t - start - 1])


def test_mean_and_gain_are_those_of_valid_training_bins(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, from the definitions; a unit that is left out has gain 0."""
    monkeypatch.setattr(filters, "AT_ONCE", 10)  # trials of 25 bins are joined from pieces
    train, kept = sessions.split(session).train, np.arange(12) != 4
    each = []
    for start, stop in train.segments:
        live = train.valid[start:stop]
        each.append(by_the_linear_decoder(train.counts[start:stop] * live[:, None], train.bin_ns)[live])
    root = np.sqrt(np.concatenate(each).astype(np.float64))

    found = filters.fit(train, kept, TAUS_MS)

    np.testing.assert_allclose(found.keep, np.exp(-20.0 / np.array(TAUS_MS)), rtol=1e-6)
    np.testing.assert_allclose(found.mean, root.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.gain[:, kept], 1 / root.std(0)[:, kept], rtol=1e-5)
    assert (found.gain[:, 4] == 0).all()
