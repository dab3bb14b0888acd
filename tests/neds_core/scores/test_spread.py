"""The sd that is fitted to errors, and what its intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core.scores import spread

N = 20_000


def planted(floor: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N,) of that sd, and the networks' s (N,)."""
    rng = np.random.default_rng(0)
    s = rng.gamma(2.0, 1.0, N)
    return rng.normal(size=N) * np.sqrt(floor**2 + (slope * s) ** 2), s


@pytest.mark.parametrize(("floor", "slope"), [(2.0, 0.0), (0.0, 1.5), (1.0, 1.0), (0.2, 3.0)])
def test_what_was_planted_is_found(floor: float, slope: float) -> None:
    """Within a tenth of the larger part; intervals cover what they say, those of one width only where s is noise."""
    error, s = planted(floor, slope)

    found = spread.fit(error, s)

    assert found == pytest.approx((floor, slope), abs=0.1 * max(floor, slope))
    sd = np.sqrt(found[0] ** 2 + (found[1] * s) ** 2)
    assert list(spread.coverage(error, sd).values()) == pytest.approx([0.5, 0.8, 0.95], abs=0.01)
    flat = spread.coverage(error, float(np.sqrt((error**2).mean())))
    assert (abs(flat["50"] - 0.5) < 0.01) == (slope == 0.0)


def test_one_network_has_a_floor_alone() -> None:
    """The root mean square of the errors: s is 0 everywhere."""
    error, _ = planted(2.0, 0.0)

    assert spread.fit(error, np.zeros(N)) == (pytest.approx(np.sqrt((error**2).mean())), 0.0)


def test_bins_where_all_networks_agree_are_not_all() -> None:
    """An error where s is 0 leaves a floor, however well s explains the rest."""
    error, s = planted(0.0, 1.0)
    error[:10], s[:10] = 0.5, 0.0

    floor, slope = spread.fit(error, s)

    assert floor > 0.0
    assert slope > 0.5


@given(floor=st.floats(0.01, 10.0), slope=st.floats(0.0, 10.0), scale=st.floats(1e-3, 1e3))
def test_units_do_not_matter(floor: float, slope: float, scale: float) -> None:
    """Errors and s in other units: the floor is in those, the slope is the same; neither is below 0."""
    error, s = (each[:200] for each in planted(floor, slope))

    here, there = spread.fit(error, s), spread.fit(scale * error, scale * s)

    assert min(here) >= 0.0
    assert there == (pytest.approx(scale * here[0], abs=1e-9 * scale), pytest.approx(here[1], abs=1e-9))


def test_coverage_is_counted() -> None:
    """By the normal distribution's quantiles."""
    error = np.array([0.6, -0.7, 1.2, -1.3, 1.9, -2.0])

    assert spread.coverage(error, 1.0) == {"50": 1 / 6, "80": 3 / 6, "95": 5 / 6}
    assert spread.coverage(error, np.full(6, 10.0))["50"] == 1.0
