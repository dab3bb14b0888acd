"""Streaming attention over a ring is the offline banded attention, one bin at a time."""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st

from kernels import ring
from kernels.ring import Ring
from neds_core.model.attention import attention, rotary, rotate

HEADS, K, N_SINKS, PER_BIN = 2, 4, 2, 3  # one key token a bin, and two that only ask


@given(
    seed=st.integers(0, 2**31),
    band=st.integers(1, 6),
    live=st.lists(st.booleans(), min_size=1, max_size=20),
    start=st.integers(0, 10**7),
)
def test_ring_is_the_offline_band(seed: int, band: int, live: list[bool], start: int) -> None:
    """Over any band, start and dropouts, beyond the point where the ring wraps."""
    n_bins = len(live)
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 1, HEADS, N_SINKS + n_bins * PER_BIN, K, generator=rng)
    bins = start + torch.arange(n_bins)
    position = torch.cat([torch.zeros(N_SINKS, dtype=torch.int64), bins.repeat_interleave(PER_BIN)])
    hidden = torch.ones(n_bins, PER_BIN, dtype=torch.bool)
    hidden[:, 0] = ~torch.tensor(live)
    hidden = torch.cat([torch.zeros(N_SINKS, dtype=torch.bool), hidden.flatten()])[None]
    expected = attention(q, k, v, position=position, hidden=hidden, band=band, n_sinks=N_SINKS)[0, :, N_SINKS:]

    cache = Ring(HEADS, band, K)
    got = []
    for t in range(n_bins):
        own = slice(N_SINKS + t * PER_BIN, N_SINKS + (t + 1) * PER_BIN)
        table = rotary(bins[t : t + 1], K)
        if live[t]:
            cache.write(int(bins[t]) % band, rotate(k[0, :, own.start], table), v[0, :, own.start])
        else:
            cache.hide(int(bins[t]) % band)
        mine = q[0, :, own]
        got.append(ring.attend(mine, rotate(mine, table), cache, k[0, :, :N_SINKS], v[0, :, :N_SINKS]))

    # 1e-5: the same few float32 terms, summed in another order
    torch.testing.assert_close(torch.cat(got, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_a_cleared_ring_remembers_nothing() -> None:
    """After `clear` only the sinks answer, whatever was written before."""
    q, k, v, sink_k, sink_v = torch.randn(5, HEADS, 1, K, generator=torch.Generator().manual_seed(0))
    used, fresh = Ring(HEADS, 4, K), Ring(HEADS, 4, K)
    for slot in range(4):
        used.write(slot, k[:, 0], v[:, 0])
    assert not torch.equal(ring.attend(q, q, used, sink_k, sink_v), ring.attend(q, q, fresh, sink_k, sink_v))

    used.clear()

    assert torch.equal(ring.attend(q, q, used, sink_k, sink_v), ring.attend(q, q, fresh, sink_k, sink_v))
