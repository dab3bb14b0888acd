"""What the engines are told when they are verified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.session import Session
from runtime import verifying


def test_behaviour_is_the_recordings_bin_by_bin(tiny_checkpoint: Checkpoint, session: Session) -> None:
    """In the outputs' order, NaN where nothing is known, and all NaN of one that was not recorded."""
    lacks = replace(
        session, specs=session.specs[:1], values={"wheel_speed": session.values["wheel_speed"]},
        segments=session.segments[4:7], segment_ids=session.segment_ids[4:7],
    )  # fmt: skip
    few = replace(session, segments=lacks.segments, segment_ids=lacks.segment_ids)

    whole, blind = verifying.told(tiny_checkpoint, few), verifying.told(tiny_checkpoint, lacks)

    np.testing.assert_array_equal(whole.bins, np.arange(100, 175))
    np.testing.assert_array_equal(whole.behaviour[:, 0], session.values["wheel_speed"])
    known = session.values["choice"] >= 0
    np.testing.assert_array_equal(whole.behaviour[known, 1], session.values["choice"][known])
    assert np.isnan(whole.behaviour[~known, 1]).all()
    assert np.isnan(blind.behaviour[:, 1]).all()
    assert [t.reset for t in whole.tokens(None)] == [t % 25 == 0 for t in range(75)]
