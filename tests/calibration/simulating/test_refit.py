"""Intent relabelling: same speed, towards the target, zero on it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from calibration.simulating.refit import relabelled

WINDOW = 2.0


def vectors(axes: int) -> st.SearchStrategy[np.ndarray]:
    """(T, axes) of moderate size."""
    return arrays(np.float64, st.tuples(st.just(5), st.just(axes)), elements=st.floats(-50, 50, width=32))


@given(data=st.data(), axes=st.integers(1, 3))
def test_speed_is_kept_and_points_to_the_target(data: st.DataObject, axes: int) -> None:
    velocity, to_target = data.draw(vectors(axes)), data.draw(vectors(axes))
    wanted = relabelled(velocity, to_target, WINDOW)
    far = np.linalg.norm(to_target, axis=1)
    speed = np.where(far > WINDOW, np.linalg.norm(velocity, axis=1), 0.0)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), speed, atol=1e-9)
    # along the target: the scalar product is that of two parallel vectors
    np.testing.assert_allclose((wanted * to_target).sum(1), speed * far, atol=1e-6)


def test_on_the_target_nothing_is_wanted() -> None:
    wanted = relabelled(np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([[1.9, 0.0], [2.1, 0.0]]), WINDOW)
    np.testing.assert_array_equal(wanted, [[0.0, 0.0], [5.0, 0.0]])


def test_what_was_not_measured_stays_unknown() -> None:
    wanted = relabelled(np.array([[np.nan, 1.0], [1.0, 0.0]]), np.array([[5.0, 0.0], [0.0, np.nan]]), WINDOW)
    assert np.isnan(wanted).all()
