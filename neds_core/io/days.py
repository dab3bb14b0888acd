"""The published recordings of two parts in time: a monkey's calibration day, and two runs of a rat.

As in `bundles`, a converter knows its source's faults (see the data's README) and leaves them out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neds_core.data.session import BehaviourSpec, Session, UnitTable, bin_events
from neds_core.errors import DataError
from neds_core.io.bundles import BIN_NS, TICKS, rat_spikes

CALIBRATION, BASELINE = "gradualTrain", "baselineEvaluation"
PHASES = ("calibration", "baseline_before", "baseline_after")
RUNS_S = ((93, 1181), (2209, 3416))  # the rat is in the maze: 92.7 to 1181.5 s and 2208.8 to 3416.9 s
MULTI_UNIT = 19  # 106 Hz over the whole recording


def _directions(counts: np.ndarray, cursor: np.ndarray, target: np.ndarray, n_bins: np.ndarray) -> np.ndarray:
    """(T, 2) float32: unit vectors from the cursor at each bin's start to the trial's target, NaN where not known.

    counts (T, U), cursor (T + S, 2) with one row more a trial than bins, target (S, 2), n_bins (S,).
    """
    stops = np.cumsum(n_bins)
    last = stops + np.arange(len(n_bins))  # row of each trial's end, which is no bin's start
    if (len(counts), len(cursor)) != (stops[-1], stops[-1] + len(n_bins)):
        raise DataError(
            f"{len(counts)} bins and {len(cursor)} positions of the cursor do not fit trials of {stops[-1]} bins; "
            "give the original file"
        )
    away = np.repeat(target, n_bins, axis=0).astype(np.float64) - np.delete(cursor, last, axis=0)
    length = np.linalg.norm(away, axis=1, keepdims=True)
    return np.where(length > 0, away / np.where(length > 0, length, 1.0), np.nan).astype(np.float32)


def _phase(names: np.ndarray) -> np.ndarray:
    """(S,) int64 in PHASES, -1 = another phase of the source."""
    base = np.flatnonzero(names == BASELINE)
    gaps = np.flatnonzero(np.diff(base) > 1)
    if not (names == CALIBRATION).any() or len(gaps) != 1:
        raise DataError(f"no {CALIBRATION} and two stretches of {BASELINE} among the phases; give the original file")
    found = np.where(names == CALIBRATION, 0, -1)
    found[base[: gaps[0] + 1]], found[base[gaps[0] + 1 :]] = 1, 2
    return found


def bci_monkey_20160325(npz: Path) -> Session:
    """Calibration and undisturbed evaluation of the closed-loop session 20160325: threshold crossings of 96 electrodes.

    The phases with an imposed instability are left out: there the cursor goes astray, and so does the direction.
    Velocities of the source are made of these same spikes, so they are left out too.
    """
    with np.load(npz) as bundle:
        raw = dict(bundle)
    phase, n_bins = _phase(raw["phase"]), raw["trial_bins"].astype(np.int64)
    kept = phase >= 0
    rows, n_kept, per_bin = np.repeat(kept, n_bins), n_bins[kept], np.repeat(phase, n_bins)
    direction = _directions(raw["counts"], raw["cursor_pos"], raw["target_pos"], n_bins)[rows]
    angle = np.rint(np.degrees(np.arctan2(*raw["target_pos"].T[::-1])) / 45).astype(np.int64) % 8
    counts, stops = raw["counts"][rows], np.cumsum(n_kept)
    return Session(
        name="bci-monkey-20160325",
        bin_ns=45_000_000,
        units=UnitTable(
            np.arange(1, counts.shape[1] + 1),
            np.full(counts.shape[1], "motor"),
            np.full(counts.shape[1], np.nan, np.float32),
        ),
        counts=counts,
        valid=np.ones(len(counts), bool),
        specs=(
            *(
                BehaviourSpec(
                    f"target_direction_{axis}", "continuous", filter="none", group="target_direction",
                    sign="unit vector from the cursor at the bin's start to the target, in the source's axes",
                )
                for axis in "xy"
            ),
            BehaviourSpec(
                "target", "class", sign="angle of the target from the centre in the axes of the source's cursor",
                classes=tuple(f"deg_{45 * k}" for k in range(8)),
            ),
            BehaviourSpec("phase", "class", sign="part of the day, known beforehand: no output", classes=PHASES),
        ),
        values={
            **{f"target_direction_{axis}": direction[:, k] for k, axis in enumerate("xy")},
            "target": np.repeat(angle, n_bins)[rows],
            "phase": per_bin[rows],
        },
        segments=np.stack([stops - n_kept, stops], axis=1),
        segment_ids=raw["trial_id"][kept].astype(np.int64),
        licence="MIT",
        citation="Degenhart AD, Bishop WE, Oby ER, Tyler-Kabara EC, Chase SM, Batista AP, Yu BM. Stabilization of a "
        "brain-computer interface via the alignment of low-dimensional spaces of neural activity. Nat Biomed Eng 4, "
        "672-685 (2020), doi:10.1038/s41551-020-0542-9",
        moments={"cursor_freed": (raw["move_bin"][kept] - 1) * 45.0},
    )  # fmt: skip


def rat_w_maze(npz: Path) -> Session:
    """Both runs in the W-maze as two segments of one time; the rest between them lies outside. No multi-unit.

    Position is undefined outside the runs, where the rat is in its box or carried.
    """
    with np.load(npz) as bundle:
        raw = dict(bundle)
    n_bins = RUNS_S[-1][1] * 1_000_000_000 // BIN_NS
    ids = np.delete(np.arange(len(raw["spike_times_index"]) - 1), MULTI_UNIT)
    events = rat_spikes(raw, ids, n_bins)
    segments = np.array(RUNS_S, np.int64) * 1_000_000_000 // BIN_NS
    clock = raw["pos_clock_30khz"].astype(np.int64)
    edges = np.arange(1, n_bins + 1, dtype=np.int64) * BIN_NS
    last = np.searchsorted((clock - clock[0]) * TICKS[0] // TICKS[1], edges, side="right") - 1
    inside = np.zeros(n_bins, bool)
    for start, stop in segments:
        inside[start:stop] = True
    return Session(
        name="rat-w-maze",
        bin_ns=BIN_NS,
        units=UnitTable(ids, np.full(len(ids), "hippocampus"), np.full(len(ids), np.nan, np.float32)),
        counts=bin_events(*events, BIN_NS, n_bins, len(ids)),
        valid=np.ones(n_bins, bool),
        specs=tuple(
            BehaviourSpec(f"position_{axis}", "continuous", "px", "camera axis", "none", 0.0, group="position")
            for axis in "xy"
        ),
        values={f"position_{a}": np.where(inside, raw[f"pos_{a}_px"][last], np.nan).astype(np.float32) for a in "xy"},
        segments=segments,
        segment_ids=np.arange(len(segments), dtype=np.int64),
        events=events,
        licence="MIT",
        citation="github.com/nelpy/example-data, w-maze (commit 099548c)",
    )
