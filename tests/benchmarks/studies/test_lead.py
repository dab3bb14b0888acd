"""All leads are held to the same target bins, and what is held is what was there a lead before them."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from benchmarks.studies import lead as study
from neds_core.config import TrainConfig
from neds_core.data import session as sessions
from neds_core.data.session import Session
from neds_core.scores import r2

LEADS = (0.0, 20.0, 60.0)


def test_every_contender_speaks_a_lead_before_the_same_targets(session: Session) -> None:
    """In the same segment; the last bins of a segment are targets too, its first are not."""
    parts, rng = sessions.split(session), np.random.default_rng(0)
    bins = parts.test.bins()
    y = session.values["wheel_speed"][bins].astype(float)
    names = [study.copy_of("wheel_speed", ms) for ms in LEADS]
    neds = [{name: rng.normal(size=len(bins)) for name in names} for _ in range(2)]
    said = study.Said(neds, {name: rng.normal(size=len(bins)) for name in names}, parts.test.segment_of(bins), [])

    rows = study.score(parts, said, ["wheel_speed"], LEADS)["wheel_speed"]

    clock = np.arange(len(bins)) % 25
    for row, n in zip(rows, (0, 1, 3), strict=True):
        name = study.copy_of("wheel_speed", row["lead_ms"])
        at = np.flatnonzero((clock >= 3) & session.valid[bins] & np.isfinite(y))
        at = at[np.isfinite(y[at - n])]
        assert row["n"] == len(at)
        for key, value in (("ridge", said.ridge[name]), ("held_measured", y)):
            assert row[key] == pytest.approx(r2.r2(y[at], value[at - n]))
        for key, which in (("neds", name), ("held_decoded", names[0])):
            assert row[key] == pytest.approx([r2.r2(y[at], each[which][at - n]) for each in neds])
        gain = row["neds_minus_ridge"]
        assert gain["value"] == pytest.approx(np.mean(row["neds"]) - row["ridge"])
        assert gain["low"] < gain["value"] < gain["high"]
    assert len(study.table({"wheel_speed": rows})) == 2 + len(LEADS)


def test_one_training_carries_a_trace_at_all_leads(session: Session, tiny: TrainConfig) -> None:
    """Under other names, classes left out, and no copy is shown beside another."""
    config = study.shorter(structs.replace(tiny, select=("wheel_speed",)), 2, 4)

    (found,) = study.run(session, config, [5], LEADS)

    _, wide = study.copied(session, config, LEADS)
    assert wide.outputs == ("wheel_speed_0ms", "wheel_speed_20ms", "wheel_speed_60ms")
    assert wide.lead_ms == {"wheel_speed_20ms": 20.0, "wheel_speed_60ms": 60.0}
    assert (wide.masks.within_behaviour, wide.masks.cross_modal) == (0.0, 0.0)
    assert (found["seeds"], found["fit"]) == ([5], {"steps": 2, "batch": 4, "refit": False})
    assert [row["lead_ms"] for row in found["traces"]["wheel_speed"]] == list(LEADS)
    assert found["traces"]["wheel_speed"][0]["ridge"] > 0.5
