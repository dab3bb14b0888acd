"""The published bundles that ship under `examples/`, converted to `Session`.

Each converter knows its source's faults (see the data's README) and leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from neds_core.data.session import BehaviourSpec, Session, UnitTable, bin_events
from neds_core.errors import DataError

BIN_NS = 20_000_000
TICKS = (100_000, 3)  # ns in a tick of 30 kHz, as a fraction
ZERO_PHASE = "zero-phase low-pass by the source: contains about 50 ms of the future"


def _segments(n_trials: int, n_bins: int) -> np.ndarray:
    edges = np.arange(n_trials + 1, dtype=np.int64) * n_bins
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _per_bin(labels: np.ndarray, n_bins: int) -> np.ndarray:
    return np.repeat(labels.astype(np.int64), n_bins)


def ibl_dy016(counts_npz: Path, labels_npz: Path) -> Session:
    """IBL DY_016, trials 0-299. Bins 0-1 and 49 are dropped: the source's loader misplaces their spikes."""
    raw, labels = np.load(counts_npz), np.load(labels_npz)
    keep = slice(2, 49)
    counts = raw["counts"][:, :, keep].transpose(0, 2, 1)
    n_trials, n_bins, n_units = counts.shape
    specs = (
        BehaviourSpec("wheel_speed", "continuous", "rad/s", "unsigned", ZERO_PHASE, 0.0),
        BehaviourSpec("whisker_motion_energy", "continuous", "a.u.", "unsigned", "none stated", 0.0),
        BehaviourSpec("pupil_diameter", "continuous", "px", "unsigned", "none stated", 0.0),
        BehaviourSpec("paw_speed", "continuous", "px/s", "unsigned", "none stated; unreliable by its authors", 0.0),
        BehaviourSpec(
            "choice",
            "class",
            labels="inferred",
            classes=("negative", "positive"),
            labels_note="labels were inferred from these very neurons, so no score of them is evidence",
        ),
    )
    values: dict[str, np.ndarray] = {
        s.name: raw[s.name][:, keep].reshape(-1).astype(np.float32) for s in specs if s.kind == "continuous"
    }
    values["choice"] = _per_bin(labels["choice"], n_bins)
    return Session(
        name="ibl-dy016",
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(n_units), raw["unit_region"], np.full(n_units, np.nan, np.float32)),
        counts=np.ascontiguousarray(counts.reshape(-1, n_units)),
        valid=np.ones(n_trials * n_bins, bool),
        specs=specs,
        values=values,
        segments=_segments(n_trials, n_bins),
        segment_ids=raw["trial_index"].astype(np.int64),
        licence="CC-BY-4.0",
        citation="International Brain Laboratory et al., A brain-wide map of neural activity during "
        "complex behaviour, bioRxiv 2023.07.04.547681",
    )


def _steinmetz(
    raw: Mapping[str, np.ndarray], name: str, specs: tuple[BehaviourSpec, ...], labels: dict[str, np.ndarray]
) -> Session:
    """0-0.4 s after stimulus, pairs of 10 ms bins summed; labels: class name -> one for each trial."""
    movement_ms = raw["reaction_time_ms"].astype(np.float64)
    counts = raw["counts"]
    n_trials, n_units, fine = counts.shape
    counts = counts.reshape(n_trials, n_units, fine // 2, 2).sum(-1, dtype=np.uint8).transpose(0, 2, 1)
    n_bins = counts.shape[1]
    return Session(
        name=name,
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(n_units), raw["brain_area"], np.full(n_units, np.nan, np.float32)),
        counts=np.ascontiguousarray(counts.reshape(-1, n_units)),
        valid=np.ones(n_trials * n_bins, bool),
        specs=specs,
        values={output: _per_bin(label, n_bins) for output, label in labels.items()},
        segments=_segments(n_trials, n_bins),
        segment_ids=np.arange(n_trials, dtype=np.int64),
        licence="CC-BY-4.0",
        citation="Steinmetz NA, Zatka-Haas P, Carandini M, Harris KD. Distributed coding of choice, action and "
        "engagement across the mouse brain. Nature 576, 266-273 (2019), doi:10.1038/s41586-019-1787-x",
        moments={"first_movement": np.where(np.isfinite(movement_ms), movement_ms, np.nan)},
    )


def steinmetz2019(npz: Path) -> Session:
    """One Steinmetz et al. 2019 session, named by mouse and date, with report and stimulus as three two-way classes.

    wheel_direction is undefined (-1) where the mouse did not go, stimulus_side where both contrasts are equal.
    """
    with npz.open("rb") as file, np.load(file, allow_pickle=False) as bundle:
        raw = dict(bundle)
    response, left, right = raw["response_type"], raw["contrast_left"], raw["contrast_right"]
    sides = ("left", "right")
    specs = (
        BehaviourSpec("wheel_direction", "class", sign="the mouse's report, not the stimulus", classes=sides),
        BehaviourSpec("go", "class", sign="the mouse's report, not the stimulus", classes=("go", "no_go")),
        BehaviourSpec("stimulus_side", "class", sign="side of the higher contrast", classes=sides),
    )
    labels = {
        "wheel_direction": np.select([response == 1, response == -1], [0, 1], -1),
        "go": (response == 0).astype(np.int64),
        "stimulus_side": np.select([left > right, right > left], [0, 1], -1),
    }
    return _steinmetz(raw, f"steinmetz2019-{raw['mouse']}-{raw['date']}", specs, labels)


def _tracked(position: np.ndarray) -> np.ndarray:
    """(T,) bool: from the first change on; until then the tracker holds a place the rat never visits."""
    return np.arange(len(position)) >= int((position != position[0]).any(1).argmax())


def _in_order(t_ns: np.ndarray, unit: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes t_ns (n,) and unit (n,) in time order, those outside the n_bins bins left out."""
    order = np.argsort(t_ns, kind="stable")
    t_ns, unit = t_ns[order], unit[order]
    inside = (t_ns >= 0) & (t_ns < n_bins * BIN_NS)
    return t_ns[inside], unit[inside]


def rat_spikes(raw: Mapping[str, np.ndarray], ids: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of the source's units `ids` (U,): t_ns (n,) int64 from the first position sample on, and unit (n,) int32.

    In time order; those outside the n_bins bins are left out.
    """
    index: list[int] = raw["spike_times_index"].tolist()
    origin = int(raw["pos_clock_30khz"][0])
    rows = [np.arange(index[u], index[u + 1]) for u in ids]
    t_ns = np.rint((raw["spike_times_s"][np.concatenate(rows)] - origin / 30000.0) * 1e9).astype(np.int64)
    unit = np.repeat(np.arange(len(ids), dtype=np.int32), [len(each) for each in rows])
    return _in_order(t_ns, unit, n_bins)


def rat_linear_track(npz: Path, seconds: float = 960.0) -> Session:
    """The 16 minutes on the linear track: spike times, and position at each bin's right edge."""
    raw = np.load(npz)
    clock = raw["pos_clock_30khz"].astype(np.int64)
    n_units = len(raw["spike_times_index"]) - 1
    n_bins = int(seconds * 1e9) // BIN_NS
    events = rat_spikes(raw, np.arange(n_units), n_bins)
    edges = np.arange(1, n_bins + 1, dtype=np.int64) * BIN_NS
    last = np.searchsorted((clock - clock[0]) * TICKS[0] // TICKS[1], edges, side="right") - 1
    tracked = _tracked(np.stack([raw["pos_x_px"], raw["pos_y_px"]], 1)[last])
    specs = tuple(
        BehaviourSpec(f"position_{axis}", "continuous", "px", "camera axis", "none", 0.0, group="position")
        for axis in "xy"
    )
    return Session(
        name="rat-linear-track",
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(n_units), np.full(n_units, "ca1"), np.full(n_units, np.nan, np.float32)),
        counts=bin_events(*events, BIN_NS, n_bins, n_units),
        valid=np.ones(n_bins, bool),
        specs=specs,
        values={f"position_{a}": np.where(tracked, raw[f"pos_{a}_px"][last], np.nan).astype(np.float32) for a in "xy"},
        segments=np.array([[0, n_bins]], np.int64),
        segment_ids=np.zeros(1, np.int64),
        events=events,
        licence="MIT",
        citation="github.com/nelpy/example-data, linear-track (commit 099548c)",
    )


def mouse_head_direction(npz: Path) -> Session:
    """The 529 s awake with the head tracked: spike times; cosine and sine of its direction at each bin's right edge."""
    with np.load(npz) as bundle:
        raw = dict(bundle)
    tracked_ns = np.rint(raw["pos_time_s"] * 1e9).astype(np.int64)
    tracked_ns -= tracked_ns[0]
    n_bins = int(tracked_ns[-1]) // BIN_NS
    index = np.r_[0, raw["spike_times_index"]]
    n_units = len(index) - 1
    t_ns = np.rint((raw["spike_times_s"] - raw["pos_time_s"][0]) * 1e9).astype(np.int64)
    events = _in_order(t_ns, np.repeat(np.arange(n_units, dtype=np.int32), np.diff(index)), n_bins)
    edges = np.arange(1, n_bins + 1, dtype=np.int64) * BIN_NS
    radians = raw["head_direction_rad"][np.searchsorted(tracked_ns, edges, side="right") - 1].astype(np.float64)
    sides: tuple[Literal["cos", "sin"], ...] = ("cos", "sin")
    specs = tuple(
        BehaviourSpec(
            f"head_direction_{side}", "continuous", "", "angle of the source's tracker; its 0 and sense are not stated",
            "none stated", 0.0, group="head_direction", angle=side,
        )
        for side in sides
    )  # fmt: skip
    return Session(
        name="mouse-head-direction",
        bin_ns=BIN_NS,
        units=UnitTable(np.arange(n_units), raw["unit_location"], np.full(n_units, np.nan, np.float32)),
        counts=bin_events(*events, BIN_NS, n_bins, n_units),
        valid=np.ones(n_bins, bool),
        specs=specs,
        values={s.name: getattr(np, s.angle)(radians).astype(np.float32) for s in specs},
        segments=np.array([[0, n_bins]], np.int64),
        segment_ids=np.zeros(1, np.int64),
        events=events,
        licence="MIT",
        citation="Viejo G et al. Pynapple, a toolbox for data analysis in neuroscience. eLife 12, RP85786 (2023); "
        "Peyrache A, Lacroix MM, Petersen PC, Buzsaki G. Internally organized mechanisms of the head direction sense. "
        "Nature Neuroscience 18, 569-575 (2015)",
    )


MONKEY_TARGETS = {0: "plus_x", 90: "minus_y", 180: "minus_x", 270: "plus_y"}  # in degrees, clockwise


def bci_monkey(npz: Path, block: int) -> Session:
    """One block of the closed-loop session 20131218, in the source's 45 ms steps: spikes and the target's identity.

    Velocities, latents and decoders of the source are made of these same spikes, so they are left out. A trial begins
    where the freeze period does; steps before the first one belong to no trial.
    """
    if block not in (1, 2):
        raise DataError(f"{npz} has blocks 1 (intuitive decoder) and 2 (perturbed), not {block}; choose one of them")
    raw = np.load(npz)
    counts, frozen, angle = (raw[f"block{block}_{key}"] for key in ("spikes", "isFreezePeriod", "thetas"))
    n_bins, n_units = counts.shape
    starts = np.flatnonzero(np.diff(frozen.astype(np.int8), prepend=0) == 1)
    segments = np.stack([starts, np.r_[starts[1:], n_bins]], axis=1)
    codes = list(MONKEY_TARGETS)
    at_start = np.rint(angle[starts]).astype(np.int64) % 360
    if not len(starts) or not np.isin(at_start, codes).all():
        raise DataError(
            f"{npz}: block {block} has no trial, or one that starts at another angle than {codes}; "
            "give the original file"
        )
    target = np.full(n_bins, -1, np.int64)
    target[starts[0] :] = np.repeat(np.searchsorted(codes, at_start), np.diff(segments)[:, 0])
    spec = BehaviourSpec(
        "target",
        "class",
        sign="where the target lies from where the cursor is held, in the axes of the source's cursor velocity",
        classes=tuple(MONKEY_TARGETS.values()),
    )
    return Session(
        name=f"bci-monkey-20131218-block{block}",
        bin_ns=45_000_000,
        units=UnitTable(np.arange(n_units), np.full(n_units, "motor"), np.full(n_units, np.nan, np.float32)),
        counts=counts,
        valid=np.ones(n_bins, bool),
        specs=(spec,),
        values={"target": target},
        segments=segments.astype(np.int64),
        segment_ids=np.arange(len(starts), dtype=np.int64),
        licence="MIT",
        citation="Hennig JA, Golub MD, Lund PJ, Sadtler PT, Oby ER, Quick KM, Ryu SI, Tyler-Kabara EC, Batista AP, "
        "Yu BM, Chase SM. Constraints on neural redundancy. eLife (2018)",
    )


CURSOR = ("cursor_vel_x", "cursor_vel_y")
CURSOR_SIGN = "of the next step, in the axes of the source's cursor; the source states no unit"


def bci_monkey_online(npz: Path, block: int) -> Session:
    """The same block with the velocities that its online decoder gave: one segment for each unbroken run of steps.

    The source leaves steps out, also within trials. So a segment begins where a step does not go on from the velocity
    of the one before, and `starts` holds the velocity that it goes on from. A bin's value is the next step's velocity.
    """
    whole, raw = bci_monkey(npz, block), np.load(npz)
    now, after, frozen = (raw[f"block{block}_{key}"] for key in ("vel", "velNext", "isFreezePeriod"))
    first = np.flatnonzero(np.r_[True, (after[:-1] != now[1:]).any(1)])
    segments = np.stack([first, np.r_[first[1:], len(now)]], axis=1).astype(np.int64)
    held = np.array([int(frozen[start:stop].sum()) for start, stop in segments])  # at its start, if at all
    return replace(
        whole,
        name=f"{whole.name}-online",
        specs=tuple(BehaviourSpec(name, "continuous", sign=CURSOR_SIGN) for name in CURSOR),
        values={name: after[:, k].astype(np.float32) for k, name in enumerate(CURSOR)},
        segments=segments,
        segment_ids=np.arange(len(segments), dtype=np.int64),
        moments={"cursor_freed": np.where(held > 0, held * whole.bin_ns * 1e-6, np.nan)},
        starts={name: now[first, k] for k, name in enumerate(CURSOR)},
    )


def bci_monkey_decoder(npz: Path, block: int) -> dict[str, np.ndarray]:
    """The online decoder of a block on spike counts, as the arrays that `neds_core.io.state_space.read` takes."""
    whole, raw = bci_monkey(npz, block), np.load(npz)
    a, b, offset = (raw[f"block{block}_nDecoder_{key}"] for key in ("M1", "M2", "M0"))
    after = raw[f"block{block}_velNext"]
    return {
        "A": a, "B": b, "b": np.ravel(offset), "unit_ids": whole.units.ids, "unit_region": whole.units.region,
        "bin_ms": np.array(45.0), "outputs": np.array(CURSOR), "output_unit": np.array(["", ""]),
        "output_sign": np.array([CURSOR_SIGN] * 2), "output_mean": after.mean(0), "output_sd": after.std(0),
        "name": np.array(f"online-decoder-block{block}"), "licence": np.array(whole.licence),
        "citation": np.array(whole.citation),
    }  # fmt: skip
