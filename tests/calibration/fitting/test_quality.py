"""A session that cannot be calibrated on is refused before anything is fitted, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibration.fitting import fit as fits, quality
from calibration.fitting.config import LimitsConfig
from calibration.fitting.fit import Task
from neds_core.data import parts as cutting, scalers, session as sessions
from neds_core.data.parts import Parts
from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import ConfigError, DataError

Edit = Callable[[np.ndarray, Parts], np.ndarray]


def refused(session: Session, make_task: Callable[..., Task], name: str, edit: Edit) -> str:
    """The sentence by which a session with other values of one behaviour is refused."""
    values = edit(session.values[name].copy(), cutting.cut(session))
    other = replace(session, values=session.values | {name: values})
    with pytest.raises((DataError, ConfigError)) as error:
        fits.fit(make_task(cutting.cut(other)))
    assert "\n" not in str(error.value)
    return str(error.value)


def one_class(label: np.ndarray, parts: Parts) -> np.ndarray:
    """Every labelled trial of the selecting part is of one class."""
    bins = parts.select.bins()
    label[bins] = np.where(label[bins] >= 0, 1, -1)
    return label


def stuck(wheel: np.ndarray, parts: Parts) -> np.ndarray:
    """The wheel stands still, but for the noise of its sensor, from the middle on."""
    half = len(wheel) // 2
    wheel[half:] = 2.0 + 1e-3 * np.random.default_rng(0).normal(size=len(wheel) - half)
    return wheel


def unlabelled(wheel: np.ndarray, parts: Parts) -> np.ndarray:
    """Every second bin has no value."""
    wheel[::2] = np.nan
    return wheel


def a_trial_late(label: np.ndarray, parts: Parts) -> np.ndarray:
    """Each trial has the label of the one before."""
    return np.roll(label, 25)


@pytest.mark.parametrize(
    ("name", "edit", "why"),
    [
        ("choice", one_class, "choice is 'right' in each of the .* labelled trials of the selecting part; collect"),
        ("wheel_speed", stuck, "wheel_speed stands still in the .* part .*look at its sensor"),
        ("wheel_speed", unlabelled, "wheel_speed has no value in 5.% of the fitting part, above limits.unknown_share"),
        ("choice", a_trial_late, "labels of choice fit the spikes of their neighbours .* a trial late; correct"),
    ],
)
def test_bad_labels_are_refused(
    session: Session, make_task: Callable[..., Task], name: str, edit: Edit, why: str
) -> None:
    found = refused(session, make_task, name, edit)

    assert re.search(why, found), found


def test_a_short_session_is_refused(session: Session) -> None:
    with pytest.raises(DataError, match="collect 9 more segments"):
        cutting.cut(sessions.select(session, slice(0, 20)))


def moving(shift: int = 0, turn: int = 0) -> Session:
    """40 trials of 160 bins, 10 units that follow a trace that peaks once a trial; the trace comes `shift` bins late,
    and the markers `turn` bins."""
    rng, n = np.random.default_rng(1), 40 * 220
    at = np.arange(40) * 220 + 110 + rng.integers(-10, 10, 40)
    trace = 3.0 * np.exp(-0.5 * ((np.arange(n)[:, None] - at) / 6.0) ** 2).sum(1) + 0.05 * rng.normal(size=n)
    counts = rng.poisson(0.3 + 0.6 * trace.clip(0)[:, None] * rng.random(10)).astype(np.uint8)
    start = np.arange(40) * 220 + 30 + turn
    return Session(
        "moving",
        20_000_000,
        UnitTable(np.arange(10), np.full(10, "vis"), np.full(10, np.nan, np.float32)),
        counts,
        np.ones(n, bool),
        (BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned"),),
        {"wheel_speed": np.roll(trace, shift).astype(np.float32)},
        np.stack([start, start + 160], 1),
        np.arange(40),
    )


@pytest.mark.parametrize(("shift", "said"), [(0, ""), (28, "late"), (-28, "early")])
def test_a_trace_out_of_step_is_refused(shift: int, said: str) -> None:
    """560 ms, in either direction."""
    parts = cutting.cut(moving(shift))
    specs = parts.fit.specs
    scale = scalers.fit(parts.fit, specs, 0.05)
    if not said:
        assert quality.check_steps(parts, specs, scale, LimitsConfig())["wheel_speed"].r2.max() > 0.5
        return
    with pytest.raises(DataError, match=f"wheel_speed comes [56]..? ms {said} against the spikes"):
        quality.check_steps(parts, specs, scale, LimitsConfig())


def test_a_slow_trace_tells_nothing() -> None:
    """Its curve has no peak: a trace that drifts is not refused."""
    found = quality.Lag(np.array([-400.0, -200.0, 0.0, 200.0, 400.0]), np.array([0.3, 0.32, 0.34, 0.4, 0.5]))

    assert found.best_ms == 0.0


@pytest.mark.parametrize(("turn", "said"), [(0, ""), (24, "late"), (-24, "early")])
def test_markers_out_of_step_are_refused(turn: int, said: str) -> None:
    """480 ms: the trial average is that of the base, moved."""
    theirs, ours = (scalers.fit(cutting.cut(moving(turn=t)).fit, moving().specs, 0.05) for t in (0, turn))
    if not said:
        quality.check_markers(ours, theirs.trial_mean, LimitsConfig(), 20.0)
        return
    with pytest.raises(DataError, match=f"the markers are {said}; correct them"):
        quality.check_markers(ours, theirs.trial_mean, LimitsConfig(), 20.0)


def test_a_good_session_is_not_refused(session: Session, make_task: Callable[..., Task], cut: Parts) -> None:
    measured = session.specs
    scale = scalers.fit(cut.fit, measured, 0.05)

    quality.check(cut, measured, LimitsConfig())
    quality.check_steps(cut, measured, scale, LimitsConfig())
    quality.check_markers(scale, scale.trial_mean, LimitsConfig(), 20.0)
