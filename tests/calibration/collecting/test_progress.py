"""How far a collection has come is counted from what is on the disk; what looks wrong is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibration.collecting.progress import Goal, Progress
from neds_core.data.session import BehaviourSpec, Session
from runtime.core.log_blocks import BlockLog
from runtime.core.run_log import RunLog
from runtime.core.values import Mark
from tests.calibration.rigs import collected, first, header_of

BIN = 20_000_000
WHEEL = BehaviourSpec("wheel_speed", "continuous")
CHOICE = BehaviourSpec("choice", "class", classes=("left", "right"))


def told(
    session: Session, goal: Goal, *, marked: bool = True, specs: tuple[BehaviourSpec, ...] | None = None
) -> tuple[Progress, list[tuple[int, float, bool]]]:
    """A run in blocks, and after each: trials that count, minutes, whether it is enough."""
    progress, seen = Progress(specs or session.specs, ("wheel_speed",), goal, marked=marked), []

    def take(block: RunLog) -> None:
        progress.take(block)
        seen.append((progress.labelled, progress.minutes, progress.enough))

    progress.begin()
    log = BlockLog(header_of(session), 40, len(session.units), 0, take)
    collected(session, log=log, markers=marked)
    log.hand_over()
    return progress, seen


def test_trials_count_once_they_are_complete_and_labelled(session: Session) -> None:
    """The fifth of these has no label."""
    progress, seen = told(first(session, 6), Goal(trials=5))
    assert [labelled for labelled, _, _ in seen] == sorted(labelled for labelled, _, _ in seen)
    assert (progress.labelled, len(progress.trials), progress.cut) == (5, 6, 0)
    assert [enough for labelled, _, enough in seen] == [labelled >= 5 for labelled, _, _ in seen]
    assert {name: dict(n) for name, n in progress.classes().items()} == {"choice": _counted(session)}


def _counted(session: Session) -> dict[str, int]:
    label = session.values["choice"][session.segments[:6, 0]]
    return {name: int((label == k).sum()) for k, name in enumerate(("left", "right"))}


def test_trials_with_stimulation_do_not_count_in_this_run_nor_in_those_before(session: Session) -> None:
    log = collected(first(session, 6))
    log.marks = [replace(m, labels=m.labels | {"stimulated": m.segment % 2 == 0}) for m in log.marks]
    progress, n = Progress(session.specs, ("wheel_speed",), Goal(trials=9), marked=True), 0
    for runs in (1, 2):
        progress.begin()
        progress.take(log)
        n += int((session.segment_ids[:6] % 2 == 0).sum())
        assert (progress.stimulated, len(progress.trials)) == (n, 6 * runs - n)


def test_where_no_trial_has_a_label_all_count(session: Session) -> None:
    unlabelled = replace(session, values={**session.values, "choice": np.full(session.n_bins, -1)})
    assert told(first(unlabelled, 3), Goal(trials=3), specs=(WHEEL,))[0].labelled == 3
    assert told(first(unlabelled, 3), Goal(trials=3), specs=(WHEEL, CHOICE))[0].labelled == 0


@pytest.mark.parametrize(("marked", "bins"), [(True, 75), (False, 150)])
def test_minutes_are_of_valid_bins_inside_trials(session: Session, marked: bool, bins: int) -> None:
    """And of all of them where there are no markers."""
    progress, seen = told(first(session, 3), Goal(minutes=bins / 3000), marked=marked)
    assert progress.minutes == pytest.approx(bins / 3000)
    assert [enough for _, _, enough in seen] == [minutes >= bins / 3000 for _, minutes, _ in seen]


def test_what_the_folder_holds_counts_too(session: Session) -> None:
    """Numbers of trials may come again in the next run."""
    log = collected(first(session, 3))
    progress = Progress(session.specs, (), Goal(trials=6), marked=True)
    for k in (1, 2):
        progress.begin()
        progress.take(log)
        assert (len(progress.trials), progress.minutes) == (3 * k, pytest.approx(75 * k / 3000))
    assert progress.enough
    assert progress.left_min() == 0.0


def test_the_pace_says_how_long_it_takes(session: Session) -> None:
    progress, _ = told(first(session, 3), Goal(trials=9))
    assert progress.left_min() == pytest.approx(2 * 150 / 3000, rel=0.02)  # three took 150 bins
    assert told(first(session, 1), Goal())[0].left_min() is None


def test_units_and_ranges(session: Session) -> None:
    progress, _ = told(first(session, 3), Goal())
    wheel = session.values["wheel_speed"][:75]
    trace = progress.traces["wheel_speed"]
    assert (trace.low, trace.high) == (np.nanmin(wheel), np.nanmax(wheel))
    assert progress.units() == (int((session.counts[:75].sum(0) > 0.05 * 3.0).sum()), 12)


# --- what looks wrong ---


def test_a_sound_run_is_not_warned_of(session: Session) -> None:
    assert told(first(session, 12), Goal())[0].warnings() == []
    assert told(first(session, 12), Goal(), marked=False)[0].warnings() == []


def still(log: RunLog) -> None:
    trace = log.behaviours["wheel_speed"]
    trace.t_ns.extend(range(0, int(log.t_end_ns[-1]), BIN))
    trace.values.extend([2.5] * (len(trace.t_ns) - len(trace.values)))


def one_class(log: RunLog) -> None:
    for mark in log.marks:
        mark.labels.update({"choice": "left"} if mark.event == "segment_end" else {})


def nothing_comes(log: RunLog) -> None:
    log.counts[:] = 0


def no_markers(log: RunLog) -> None:
    log.marks = []


def no_behaviour(log: RunLog) -> None:
    log.behaviours["wheel_speed"].t_ns[:] = log.behaviours["wheel_speed"].t_ns[:0]
    log.behaviours["wheel_speed"].values[:] = log.behaviours["wheel_speed"].values[:0]


def gaps(log: RunLog) -> None:
    log.idle[300:400] = log.valid[300:400] = False


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (still, r"wheel_speed has stood still at 2.5 for \d\d s"),
        (one_class, r"choice was 'left' in each of 25 trials"),
        (nothing_comes, r"no spike has come in \d\d s"),
        (no_markers, r"no marker has come in \d\d s"),
        (no_behaviour, r"wheel_speed: no sample has come"),
        (gaps, r"\d+% of the bins had no live spikes"),
    ],
)
def test_what_looks_wrong_is_said(session: Session, damage: Callable[[RunLog], None], said: str) -> None:
    log = collected(first(session, 25))
    damage(log)
    progress = Progress(session.specs, ("wheel_speed",), Goal(), marked=True)
    progress.begin()
    progress.take(log)
    (warning,) = progress.warnings()
    assert re.match(said, warning), warning


@pytest.mark.parametrize("name", ["quarantined", "late", "out_of_range", "resent", "lost_upstream"])
def test_spikes_that_are_missing_are_said(session: Session, name: str) -> None:
    progress, _ = told(first(session, 12), Goal())
    progress.counters = {"spikes_received": 1000, f"spikes_{name}": 30}
    assert progress.warnings() == [f"30 of 1000 spikes were {name.replace('_', ' ')}; see docs/rig.md"]


def test_an_end_that_comes_with_a_later_block_completes_its_trial(session: Session) -> None:
    log = collected(first(session, 2))
    marks, log.marks = sorted(log.marks), []
    progress = Progress(session.specs, (), Goal(trials=2), marked=True)
    progress.begin()
    progress.take(log)
    assert not progress.trials
    empty = RunLog(log.header, 0, len(session.units), 0)
    empty.marks = [*marks, Mark(10**15, "segment_start", 7)]
    progress.take(empty)
    assert (progress.labelled, progress.cut, progress.enough) == (2, 1, True)
