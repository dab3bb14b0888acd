"""Intent relabelling in the manner of ReFIT (Gilja et al. 2012, Nature Neuroscience 15, 1752-1757).

The animal is assumed to want to go straight to the target at every moment: the speed of the decoded velocity is kept
and its direction replaced, and on the target the wanted velocity is zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.simulating.task import Effector
from neds_core.data.session import Session


def relabelled(velocity: np.ndarray, to_target: np.ndarray, window: float) -> np.ndarray:
    """Intended velocity (T, D) from the cursor's own velocity (T, D) and the way to the target (T, D).

    Same speed, towards the target; zero within `window` of it. NaN stays NaN.
    """
    far = np.linalg.norm(to_target, axis=1, keepdims=True)
    speed = np.linalg.norm(velocity, axis=1, keepdims=True)
    towards = np.divide(to_target, far, out=np.zeros_like(to_target), where=far > 0)
    known = np.isfinite(velocity + to_target).all(axis=1, keepdims=True)
    return np.where(known, np.where(far > window, speed * towards, 0.0), np.nan)


def relabel(session: Session, effector: Effector) -> Session:
    """A session of a closed-loop block, its velocities exchanged for the intended ones."""
    names = effector.names("velocity")
    velocity, cursor, target = (
        np.stack([session.values[n] for n in effector.names(what)], axis=1)
        for what in ("velocity", "cursor", "target")
    )  # fmt: skip
    wanted = relabelled(velocity, target - cursor, effector.window).astype(np.float32)
    return replace(session, values=session.values | {name: wanted[:, d] for d, name in enumerate(names)})
