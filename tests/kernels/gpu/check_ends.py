"""Both ends of the fused step in Triton against their specification; run by `test_triton.py`, interpreted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kernels import reference
from kernels.gpu.ends import launch_read, token_call
from kernels.reference import ReadOut, TokenTables

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOSE = {"atol": 2e-5, "rtol": 2e-5}  # float32 sums of up to some hundred terms in another order, of values of about 1


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tables_of(n_units: int, width: int, n_classes: list[int], n_codes: int) -> TokenTables:
    """Random tables that keep tokens at about 1."""
    n_seen, rows = len(n_classes), [max(1, n) for n in n_classes]
    first = torch.tensor([0, *rows]).cumsum(0)[:-1]
    made = (
        drawn(1, n_units, width) * n_units**-0.5, drawn(2, 1 + n_seen, width), drawn(3, 1 + n_seen, width),
        drawn(4, sum(rows), width), first, torch.tensor(n_classes), drawn(5, n_codes, width),
    )  # fmt: skip
    return TokenTables(*(x.to(DEVICE) for x in made))


def launched(counts: Tensor, seen: Tensor, where: Tensor, tables: TokenTables, spikes: bool) -> tuple[Tensor, Tensor]:
    """The kernel's tokens and which are hidden, both full of something else before."""
    hidden = torch.zeros(len(seen) + 1, dtype=torch.bool, device=DEVICE)
    call, parts = token_call(counts, seen, where, tables, spikes=spikes, hidden=hidden)
    parts.fill_(torch.nan)
    call.launch()
    return parts.sum(0), hidden


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    n_units=st.sampled_from([1, 17, 70, 300]),
    width=st.sampled_from([8, 44, 64]),
    n_classes=st.lists(st.sampled_from([0, 0, 2, 5]), min_size=1, max_size=6),
    n_codes=st.sampled_from([1, 9]),
    clock_valid=st.tuples(st.integers(-1, 12), st.booleans()),
    spikes=st.booleans(),
)
def test_tokens(
    seed: int,
    n_units: int,
    width: int,
    n_classes: list[int],
    n_codes: int,
    clock_valid: tuple[int, bool],
    spikes: bool,
) -> None:
    """Any tables; behaviours of which half are hidden; both directions."""
    tables, generator = tables_of(n_units, width, n_classes, n_codes), torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (n_units,), generator=generator).float().to(DEVICE)
    values = [torch.randint(0, n, (1,), generator=generator).item() if n else drawn(seed, 1).item() for n in n_classes]
    unknown = torch.rand(len(values), generator=generator) < 0.5
    seen = torch.where(unknown, torch.nan, torch.tensor(values, dtype=torch.float32)).to(DEVICE)
    where = torch.tensor([10**7, *map(int, clock_valid)], device=DEVICE)

    got, hidden = launched(counts, seen, where, tables, spikes)

    theirs = torch.zeros_like(hidden)
    expected = reference.stream_tokens(counts, seen, where, tables, spikes=spikes, hidden=theirs)[0]
    torch.testing.assert_close(got, expected, **CLOSE)
    assert torch.equal(hidden, theirs)


@pytest.mark.parametrize("spikes", [True, False])
def test_poisoned_counts_poison_what_depends_on_them(spikes: bool) -> None:
    """The spike token, or every token where spikes are hidden."""
    tables, counts = tables_of(40, 16, [0, 2], 1), torch.full((40,), torch.nan, device=DEVICE)
    seen = torch.tensor([1.0, torch.nan], device=DEVICE)

    got, _ = launched(counts, seen, torch.tensor([0, 0, 1], device=DEVICE), tables, spikes)

    assert got.isnan().all(1).tolist() == [True, not spikes, not spikes]
    assert got.isfinite().all(1).tolist() == [False, spikes, spikes]


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([8, 44, 64]),
    n_tokens=st.integers(1, 7),
    n_parts=st.integers(1, 9),
    n_outputs=st.sampled_from([1, 3, 16, 37]),
    rates=st.booleans(),
)
def test_read_out(seed: int, width: int, n_tokens: int, n_parts: int, n_outputs: int, rates: bool) -> None:
    """Any outputs of any tokens, in groups and alone."""
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(0, n_tokens, (n_outputs,), generator=generator)
    group = torch.randint(-1, 3, (n_outputs,), generator=generator)
    made = (
        drawn(1, width),
        drawn(2, width),
        drawn(3, n_outputs, width) * width**-0.5,
        drawn(4, n_outputs),
        token,
        group,
    )
    head = ReadOut(*(x.to(DEVICE) for x in made))
    parts, out = drawn(seed, n_parts, n_tokens, width).to(DEVICE), torch.full((n_outputs,), torch.nan, device=DEVICE)

    launch_read(parts, head, rates=rates, out=out)

    expected = reference.stream_read(parts, head, rates=rates, out=torch.empty_like(out))
    torch.testing.assert_close(out, expected, **CLOSE)


def test_a_poisoned_token_poisons_its_outputs_alone() -> None:
    """Of three tokens the second one is NaN: so are the class that is read from it, and nothing else."""
    token, group = torch.tensor([0, 1, 1, 2], device=DEVICE), torch.tensor([-1, 0, 0, -1], device=DEVICE)
    head = ReadOut(*(drawn(i, *s).to(DEVICE) for i, s in enumerate([(8,), (8,), (4, 8), (4,)])), token, group)
    parts, out = drawn(9, 2, 3, 8).to(DEVICE), torch.zeros(4, device=DEVICE)
    parts[1, 1, 3] = torch.nan

    launch_read(parts, head, rates=False, out=out)

    assert out.isnan().tolist() == [False, True, True, False]
