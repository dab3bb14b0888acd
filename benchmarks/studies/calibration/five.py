"""The five arms, from the recordings in `examples/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.accuracy.mice import steinmetz, trunks
from benchmarks.recordings import EXAMPLES
from benchmarks.studies.calibration.arms import ALL, CONDITIONS, ROWS_KEPT, Arm, Day, fourths, gap_of, length
from calibration.fitting.config import CalibrateConfig, LimitsConfig
from calibration.rehearsal.halves import BEFORE, half
from neds_core.config import FitConfig, MaskConfig, ModelConfig, PretrainConfig
from neds_core.data import session as sessions, session_file
from neds_core.data.session import Session

MASKS = MaskConfig(decoding=3.0)
WHEEL, PLACE = ("wheel_speed", "whisker_motion_energy"), ("position_x", "position_y")
HEADING, REPORT = ("target_direction_x", "target_direction_y"), ("wheel_direction", "go")
DIRECTIONS = {"plus_x": (1.0, 0.0), "minus_x": (-1.0, 0.0), "plus_y": (0.0, 1.0), "minus_y": (0.0, -1.0)}
# A mouse that does not go reports no direction: up to half of the trials have no label of it.
UNLABELLED = CalibrateConfig(outputs=REPORT, limits=LimitsConfig(unknown_share=0.9))
MICE = PretrainConfig(
    ("mice",), REPORT, min_rate_hz=trunks.MIN_RATE_HZ, model=trunks.MODEL, masks=trunks.MASKS["multi"],
    fit=msgspec.structs.replace(trunks.FIT, steps=300),
)  # fmt: skip
TESTED = 0.4  # the last share of a mouse's session, in four parts


def new_animal() -> Arm:
    """1: each mouse left out of pre-training; its first and last session calibrated on their own first trials."""
    bundles = steinmetz.read_folder(steinmetz.FOLDER)
    mice = {mouse: [one for one in bundles if one.mouse == mouse] for mouse in sorted({b.mouse for b in bundles})}
    bases = {mouse: tuple(one.session for one in bundles if one.mouse != mouse) for mouse in mice}
    days = tuple(_mouse_day(own[k], mouse) for k in (0, -1) for mouse, own in mice.items())
    return Arm(
        1,
        "new animal",
        REPORT,
        (50, ALL, 25, 100, 10),
        (50, ALL),
        (50,),
        50,
        days,
        bases,
        MICE,
        UNLABELLED,
        base_seeds=1,
    )


def new_day(mouse: str = "Lederberg") -> Arm:
    """2: a base of the earlier half of a mouse's days, calibrated on the later ones."""
    bundles = [one for one in steinmetz.read_folder(steinmetz.FOLDER) if one.mouse == mouse]
    n = len(bundles) // 2
    days = tuple(_mouse_day(one, "earlier days") for one in bundles[n:])
    bases = {"earlier days": tuple(one.session for one in bundles[:n])}
    return Arm(
        2, "new day", REPORT, (50, ALL, 25, 100, 10), (50, ALL), (50,), 50, days, bases, MICE, UNLABELLED, base_seeds=1
    )


def _mouse_day(one: steinmetz.Bundle, base: str) -> Day:
    n = len(one.session.segments)
    return Day(one.session, one.mouse, base, 0, fourths(round((1.0 - TESTED) * n), n))


def new_units() -> Arm:
    """3: half of the units of `ibl-dy016` in the base, the other half calibrated, from trial 120 on."""
    whole = session_file.load(EXAMPLES / "ibl-dy016" / "session.npz")
    seen = sessions.select(replace(half(whole, 0), name="ibl-dy016 half A"), slice(0, BEFORE))
    day = Day(replace(half(whole, 1), name="ibl-dy016 half B"), "dy016", "half A", BEFORE, fourths(240, 300))
    fit = FitConfig(steps=260, batch=24, learning_rate=2e-3, ema_decay=0.98, threads=1)
    recipe = PretrainConfig(("half A",), WHEEL, min_rate_hz=0.5, masks=MASKS, fit=fit)
    config = CalibrateConfig(outputs=WHEEL)
    return Arm(
        3, "new units", WHEEL, (50, ALL, 10, 25, 100), (50, ALL, 10), (50, ALL), 50, (day,), {"half A": (seen,)},
        recipe, config,
    )  # fmt: skip


def true_minutes() -> Arm:
    """4: run 1 of `rat-w-maze` in the base, run 2 calibrated."""
    whole = session_file.load(EXAMPLES / "rat-w-maze" / "session.npz")
    first, second = (sessions.select(whole, np.array([run])) for run in (0, 1))
    used = round(600e9 / whole.bin_ns)
    tests = fourths(used + gap_of(second), length(second))
    model = ModelConfig(filter_taus_ms=(200, 600, 2000), dropout=0.2, unit_dropout=0.2)
    fit = FitConfig(steps=200, batch=16, threads=1)
    recipe = PretrainConfig(("run 1",), PLACE, min_rate_hz=0.05, model=model, masks=MASKS, fit=fit)
    day = Day(second, "rat", "run 1", 0, tests)
    return Arm(
        4, "continuous, true minutes", PLACE, (5, ALL, 2, 1, 3), (5, ALL), (5,), 5, (day,), {"run 1": (first,)}, recipe,
        CalibrateConfig(outputs=PLACE), base_seeds=1, conditions=(*CONDITIONS, ROWS_KEPT), minutes=True,
    )  # fmt: skip


def calibration_day() -> Arm:
    """5: calibration trials of `bci-monkey-20160325`, tested on the baseline after; a base of another monkey's day."""
    today = session_file.load(EXAMPLES / "bci-monkey-20160325" / "session.npz")
    specs = tuple(today.spec(name) for name in HEADING)
    other = EXAMPLES / "bci-monkey-20131218"
    blocks = tuple(_heading(session_file.load(other / name), specs) for name in ("session.npz", "session-block2.npz"))
    phase = today.values["phase"][today.segments[:, 0]]
    n, middle, end = int((phase == 0).sum()), int((phase < 2).sum()), len(phase)
    halves = fourths(n + gap_of(today), middle), fourths(middle, end)
    tests = tuple((two[a][0], two[a + 1][1]) for two in halves for a in (0, 2))
    day = Day(today, "monkey", "another monkey", 0, tests)
    model = ModelConfig(width=32, band=40, filter_taus_ms=(200, 600), unit_dropout=0.5)
    fit = FitConfig(steps=300, window_bins=40, learning_rate=4e-3, threads=1)
    recipe = PretrainConfig(("blocks",), HEADING, min_rate_hz=0.5, model=model, masks=MASKS, fit=fit)
    return Arm(
        5, "a real calibration day", HEADING, (40, ALL, 20, 80, 10), (40, ALL, 20, 80, 10), (40,), 40, (day,),
        {"another monkey": blocks}, recipe, CalibrateConfig(outputs=HEADING),
    )  # fmt: skip


def _heading(session: Session, specs: tuple[sessions.BehaviourSpec, ...]) -> Session:
    """Directions from the class of the target: that of the place where a trial starts, the same in all its bins."""
    of_class = np.array([DIRECTIONS[name] for name in session.spec("target").classes], np.float32)
    target = session.values["target"]
    both = np.where(target[:, None] >= 0, of_class[target], np.nan).astype(np.float32)
    values = {spec.name: both[:, k].copy() for k, spec in enumerate(specs)}
    return replace(session, specs=(*session.specs, *specs), values=session.values | values)


ARMS: dict[int, Callable[[], Arm]] = {
    1: new_animal, 2: new_day, 3: new_units, 4: true_minutes, 5: calibration_day,
}  # fmt: skip
