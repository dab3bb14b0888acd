"""What an operator reads while a session is collected, and at its end."""

from __future__ import annotations

from msgspec.structs import replace

from calibration.collecting import words
from calibration.collecting.collect import Report
from calibration.collecting.progress import Goal, Progress
from neds_core.data.session import Session
from tests.calibration.rigs import collected, first


def progress_of(session: Session, goal: Goal, *, marked: bool = True) -> Progress:
    made = Progress(session.specs, ("wheel_speed", "pupil_diameter"), goal, marked=marked)
    made.begin()
    made.take(collected(first(session, 6), markers=marked))
    return made


def test_how_far_it_has_come(session: Session) -> None:
    progress = progress_of(session, Goal(trials=10))
    trials, minutes, left, choice, units, wheel, pupil = words.lines(progress)
    assert (trials, minutes, left) == ("trials 5 of 10", "minutes 0.1", "about 0.1 minutes to go")
    assert (choice, units) == ("choice: left 2, right 3", "12 of 12 units fire")
    assert wheel.startswith("wheel_speed -3.44 to ")
    assert wheel.endswith(" rad/s")
    assert pupil == "pupil_diameter: nothing yet"


def test_without_markers_there_are_no_trials(session: Session) -> None:
    progress = progress_of(session, Goal(minutes=0.2), marked=False)
    assert words.lines(progress)[:2] == ["minutes 0.1 of 0.2", "about 0.1 minutes to go"]


REPORT = Report(
    folder="day1", stopped_by="enough", trials=61, labelled=60, cut=1, minutes=4.25, runs=2,
    classes={"choice": {"left": 30, "right": 30}}, units=52, units_firing=46, ranges={"wheel_speed": (0.0, 3.1)},
    warnings=["one class"], notes=["a note"], session="day1/session.npz", nwb="day1/session.nwb",
    quantities={"wheel_speed": "rad/s"},
    stimulated=2, counters={"spikes_received": 1000, "spikes_late": 3, "spikes_lost_upstream": 2},
)  # fmt: skip


def test_what_came_of_it() -> None:
    assert words.summary(REPORT) == [
        "collected 61 trials (1 more not complete, 2 more stimulated), 60 of them labelled, 4.25 minutes in 2 runs; "
        "ended by enough",
        "choice: left 30, right 30",
        "46 of 52 units fire above 0.05 Hz",
        "wheel_speed 0 to 3.1 rad/s",
        "spikes: 1000 received, 3 late, 2 lost upstream",
        "one class",
        "a note",
        "written: day1/session.npz and day1/session.nwb",
    ]
    bare = replace(
        REPORT, trials=0, cut=0, stimulated=0, runs=1, classes={}, session="", warnings=[], notes=[],
        ranges={}, counters={},
    )  # fmt: skip
    assert words.summary(bare) == ["collected 4.25 minutes; ended by enough", "46 of 52 units fire above 0.05 Hz"]
