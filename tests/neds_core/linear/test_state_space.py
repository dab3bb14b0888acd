"""The recursion of a decoder that was brought: what it begins with, what it forgets, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.linear.state_space import StateSpace

PLAIN = StateSpace(np.array([[0.5, 0.1], [0.0, 0.25]]), np.ones((2, 3)), np.array([1.0, -1.0]), np.array([3.0, 4.0]))


def test_a_segment_begins_where_its_marker_says_and_where_it_says_nothing_with_the_files_start() -> None:
    """By hand: y = A y + B c + b, for one spike in the first bin and none in the second."""
    counts = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], np.uint16)
    stands = np.array([[np.nan, 8.0], [7.0, 7.0], [np.nan, np.nan], [9.0, 9.0]])  # the second and last are not read

    found = PLAIN.decode(counts, np.ones(4, bool), np.array([True, False, True, False]), stands)

    first = np.array([0.5 * 3 + 0.1 * 8 + 1 + 1, 0.25 * 8 + 1 - 1])
    second = np.array([0.5 * first[0] + 0.1 * first[1] + 1, 0.25 * first[1] - 1])
    third = np.array([0.5 * 3 + 0.1 * 4 + 1, 0.25 * 4 - 1])
    fourth = np.array([0.5 * third[0] + 0.1 * third[1] + 1, 0.25 * third[1] - 1])
    np.testing.assert_allclose(found, [first, second, third, fourth], rtol=1e-12)


def test_a_bin_without_live_data_leaves_the_outputs() -> None:
    counts, valid = np.full((3, 3), 5, np.uint16), np.array([True, False, True])
    found = PLAIN.decode(counts, valid, np.array([True, False, False]), np.full((3, 2), np.nan))
    np.testing.assert_array_equal(found[1], found[0])
    assert (found[2] != found[1]).any()


@given(seed=st.integers(0, 2**32 - 1))
def test_how_it_began_is_forgotten_by_its_radius(seed: int) -> None:
    """Two beginnings are apart by A^n (difference), whatever the spikes."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(2, 2))
    a = (a + a.T) * 0.9 / np.abs(np.linalg.eigvalsh(a + a.T)).max()
    made = StateSpace(a, rng.normal(size=(2, 3)), rng.normal(size=2), np.zeros(2))
    counts, valid, reset = rng.poisson(1.0, (20, 3)), np.ones(20, bool), np.arange(20) == 0
    apart = rng.normal(size=2)

    one, other = (made.decode(counts, valid, reset, np.tile(at, (20, 1))) for at in (np.zeros(2), apart))

    assert made.radius == pytest.approx(0.9)
    bound = np.linalg.norm(apart) * 0.9 ** np.arange(1, 21)
    assert (np.linalg.norm(one - other, axis=1) <= bound * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": np.eye(2)}, "eigenvalue of size 1, so the decoder never forgets"),
        ({"a": np.array([[0.0, 1.2], [-1.2, 0.0]])}, "eigenvalue of size 1.2"),
        ({"a": np.zeros((2, 3))}, r"A is \(2, 3\), not \(2, 2\), of 2 outputs and 3 units"),
        ({"b": np.ones((3, 2))}, r"B is \(3, 2\), not \(2, 3\)"),
        ({"b": np.zeros((2, 3))}, "B is all zeros"),
        ({"offset": np.array([np.nan, 0.0])}, "b holds a number that is not finite"),
        ({"start": np.zeros(1)}, r"start is \(1,\), not \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PLAIN, **change).refuse_unfit(2, 3)


@pytest.mark.parametrize(
    ("a", "bins"),
    [
        ([[0.5, 0.0], [0.0, 0.25]], 25),  # 17 / ln 2 = 24.5
        ([[0.0, 1.0], [0.0, 0.0]], 2),
        ([[0.0, 0.0], [0.0, 0.0]], 1),
        ([[0.9, 1000.0], [0.0, 0.9]], 282),  # n 1000 0.9^(n - 1): 120 bins more than the radius says
    ],
)
def test_a_state_is_forgotten_when_its_power_is_small(a: list[list[float]], bins: int) -> None:
    made, share = replace(PLAIN, a=np.array(a)), np.exp(-17.0)
    assert made.left_bins(share) == bins
    sizes = [np.abs(np.linalg.matrix_power(made.a, n)).sum(1).max() for n in (bins - 1, bins)]
    assert sizes[1] <= share < sizes[0]


def test_a_state_that_outgrows_all_numbers_is_refused() -> None:
    """Its eigenvalues are 0, and a state is 0 after 32 bins, but 1e592 before."""
    made = StateSpace(np.diag(np.full(31, 1e37), 1), np.ones((32, 1)), np.zeros(32), np.zeros(32))
    with pytest.raises(ValueError, match="A grows a state beyond all numbers before it forgets it"):
        made.refuse_unfit(32, 1)
