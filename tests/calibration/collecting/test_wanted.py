"""What is collected is what the base was trained on, or what the streams say that they send."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from calibration.collecting import wanted
from neds_core.data.session import BehaviourSpec
from neds_core.errors import ConfigError, DataError, NedsError, StreamError
from runtime.config import BinConfig, InputConfig, RigConfig
from runtime.io.lsl_description import Declared

WHEEL = BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned", "boxcar 60 ms", 30.0, future_ms=30.0)
CHOICE = BehaviourSpec("choice", "class", classes=("left", "right"))
FULL = Declared("rad/s", "unsigned", "boxcar 60 ms", 30.0, 30.0)
STREAMS = {"wheel_speed": "encoder"}


def rig(markers: str = "m", use_markers: bool = True, **behaviours: str) -> RigConfig:
    streams = InputConfig("s", markers=markers, behaviours=behaviours)
    return RigConfig("r", "", streams, BinConfig(use_markers=use_markers))


@pytest.mark.parametrize(
    ("config", "base", "why"),
    [
        (rig(""), (), "input.behaviours: no stream is named, and input.markers neither"),
        (rig(pupil_diameter="p"), (WHEEL,), "the base decodes wheel_speed, and no stream is named for it"),
        (rig("", wheel_speed="w"), (WHEEL, CHOICE), "input.markers: the base decodes choice, whose labels come with"),
        (rig(use_markers=False, wheel_speed="w"), (CHOICE,), "leave bins.use_markers on"),
        (rig(wheel="w"), (), "does not name a quantity; say wheel_speed"),
        (rig(**{"a/b": "w"}), (), "has a dot or slash"),
        (rig(wheel_speed="w", choice="c"), (CHOICE,), "choice is a class of the base"),
    ],
)
def test_a_rig_that_cannot_give_it_is_refused(
    config: RigConfig, base: tuple[BehaviourSpec, ...], why: str
) -> None:  # fmt: skip
    with pytest.raises(NedsError, match=why) as refused:
        wanted.refuse(config, base)
    assert refused.type in (ConfigError, DataError)


def test_a_rig_that_can_is_taken() -> None:
    wanted.refuse(rig(), ())
    wanted.refuse(rig("", wheel_speed="w"), (WHEEL,))
    wanted.refuse(rig(wheel_speed="w", pupil_diameter="p"), (WHEEL, CHOICE))


def test_the_base_says_what_its_outputs_are() -> None:
    """What else is measured is kept as its stream declares it."""
    said = {"wheel_speed": FULL, "pupil_diameter": Declared("px")}
    specs, notes = wanted.specs((WHEEL, CHOICE), said, {**STREAMS, "pupil_diameter": "eye"})
    assert specs == (WHEEL, CHOICE, BehaviourSpec("pupil_diameter", "continuous", "px"))
    assert notes == []


def test_a_lead_of_the_base_is_not_the_recordings() -> None:
    """What an output says is of a later bin; what is measured is of its own."""
    specs, _ = wanted.specs((replace(WHEEL, lead_ms=40.0),), {"wheel_speed": FULL}, STREAMS)
    assert specs == (WHEEL,)


def test_without_a_base_the_streams_do() -> None:
    assert wanted.specs((), {"wheel_speed": FULL}, STREAMS) == ((WHEEL,), [])
    specs, notes = wanted.specs((), {"wheel_speed": Declared()}, STREAMS)
    assert specs == (BehaviourSpec("wheel_speed", "continuous"),)
    assert notes == ["wheel_speed: stream 'encoder' declares no unit; the session has none"]


@pytest.mark.parametrize(
    "other", [{"unit": "deg/s"}, {"sign": "signed"}, {"filter": "none"}, {"filter_delay_ms": 0.0}, {"future_ms": 0.0}]
)  # fmt: skip
def test_a_stream_that_sends_another_quantity_is_refused(other: dict[str, str | float]) -> None:
    (key,) = other
    with pytest.raises(StreamError, match=f"stream 'encoder' declares {key} .* for wheel_speed, and the base was"):
        wanted.specs((WHEEL,), {"wheel_speed": FULL._replace(**other)}, STREAMS)


def test_what_a_stream_leaves_open_is_said() -> None:
    specs, notes = wanted.specs((WHEEL,), {"wheel_speed": Declared("rad/s")}, STREAMS)
    assert specs == (WHEEL,)
    (note,) = notes
    assert note.endswith("does not declare sign, filter, filter_delay_ms, future_ms; taken to be as in the base")
