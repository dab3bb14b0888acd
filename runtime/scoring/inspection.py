"""The verdict on what `neds-rt check` heard: values in, GO or NO-GO with reasons and remedies out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.config import RigConfig
from runtime.core.health import LEAST_DEGRADED
from runtime.core.values import FAR_S
from runtime.core.words import listed, quoted
from runtime.scoring.stamps import Clocks, Stamps, astray, strange

ALLOWANCE_SHARE = 99.9  # percent of spikes that the recommended allowance lets in
MANY_UNSAID = 0.05  # share of bins that the clock may close in a stream with keep-alives
FEW = 20  # samples from which a range is judged
FAR_SD = 8.0  # a tenth of the samples further from the training mean than this is another unit


@dataclass(frozen=True, slots=True)
class Verdict:
    """One stream of the rig. reasons: why a run should not start; notes: what else to know."""

    name: str
    what: str  # what came, in words
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def go(self) -> bool:
        """Whether a run can start on this stream."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Spikes:
    """What came of the spike stream. counters: of the run's binner; fired (U,): spikes of each unit; foreign: unit
    numbers outside the map -> spikes; ids: the sorter's own numbers of the units; coarse: chunks with one stamp;
    unsaid: share of bins that no keep-alive closed, though the stream declares them; fault: why a run would have
    stopped decoding, '' = it would not; used (U,) bool: units that the decoder uses."""

    stream: str
    received: int
    lost: int
    counters: dict[str, int]
    stamps: Stamps
    fired: np.ndarray
    foreign: dict[int, int] = field(default_factory=dict)
    ids: tuple[int, ...] = ()
    coarse: bool = False
    unsaid: float = 0.0
    fault: str = ""
    used: np.ndarray | None = None  # None = all


@dataclass(frozen=True, slots=True)
class Markers:
    """What came of the marker stream. starts: segment_start; labels: output -> labels given at segment ends; astray:
    starts and ends that a run leaves out, because another clock stamped them."""

    stream: str
    received: int
    bad: int
    last_bad: str
    stamps: Stamps
    starts: int = 0
    labels: dict[str, set[str]] = field(default_factory=dict)
    astray: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What came of a behaviour stream, and the output's mean and sd in training, in its unit."""

    stream: str
    values: np.ndarray
    stamps: Stamps
    mean: float
    sd: float
    unit: str = ""
    regular: bool = False  # whether the stream declares a rate


def allowance(delays_ms: np.ndarray, config: RigConfig) -> dict[str, float] | None:
    """What to set in rig.toml, all of it accepted there; None where no allowance keeps these spikes."""
    if len(delays_ms) == 0:
        return None
    late = max(1.0, math.ceil(float(np.percentile(delays_ms, ALLOWANCE_SHARE))))
    budget, valid = config.output.budget_ms, config.output.valid_ms
    if late >= budget:
        budget = float(math.ceil(late + max(1.0, budget - config.bins.lateness_ms)))
        valid = max(valid, budget + 40.0)
    if budget > 1000.0 or late > config.bins.max_age_ms:
        return None
    return {"lateness_ms": late, "budget_ms": budget, "valid_ms": valid}


def spikes(heard: Spikes, config: RigConfig, clocks: Clocks) -> Verdict:
    """The verdict on the spike stream."""
    reasons, notes = [], []
    n = max(1, heard.counters["received"])
    share = {name: heard.counters[name] / n for name in ("late", "quarantined", "out_of_range")}
    what = (
        f"{heard.stream}: {heard.received} received, {heard.lost} lost upstream, {percent(share['late'])} late, "
        f"{percent(share['quarantined'])} quarantined, {percent(share['out_of_range'])} out of range"
    )
    if heard.received == 0:
        return Verdict("spikes", what, ("no spikes arrived: start the sender, or listen longer with --seconds",))
    if share["quarantined"] > config.health.quarantined_share:
        reasons.append(_restamp(heard.stamps, clocks))
    elif share["late"] > config.health.late_share:
        reasons.append(f"{percent(share['late'])} of the spikes are late; {_remedy(heard.stamps.delays_ms, config)}")
    elif share["late"] > 1.0 - ALLOWANCE_SHARE / 100.0:
        notes.append(f"to keep {ALLOWANCE_SHARE:g} %, {_remedy(heard.stamps.delays_ms, config)}")
    n_outside = heard.counters["out_of_range"]
    outside = n_outside >= LEAST_DEGRADED and share["out_of_range"] > config.health.out_of_range_share
    if heard.foreign:
        (reasons if outside else notes).append(_foreign(heard))
    if resent := heard.counters.get("resent", 0):
        notes.append(f"{resent} spikes were sent again and dropped; look at its sender")
    if not outside:
        silent, noted = _silent(heard)
        reasons += silent
        notes += noted
    if heard.fault and not reasons:
        reasons.append(heard.fault)
    if heard.lost:
        notes.append(f"{heard.lost} spikes were lost on the way; look at the load of both machines")
    if heard.coarse:
        notes.append("chunks carry one stamp for many spikes; push one stamp for each")
    if heard.unsaid > MANY_UNSAID:
        notes.append(
            f"{percent(heard.unsaid)} of the bins closed by the clock, {config.bins.lateness_ms:g} ms after their "
            "edge, because no keep-alive had come; send one with every chunk, and decoded values come sooner"
        )
    return Verdict("spikes", what, tuple(reasons), tuple(notes))


def _remedy(delays_ms: np.ndarray, config: RigConfig) -> str:
    """What to set so that spikes are no longer late."""
    found = allowance(delays_ms, config)
    if found is None:
        return "no allowance of rig.toml keeps them; let the sender send sooner"
    if found["budget_ms"] == config.output.budget_ms:
        return f"set bins.lateness_ms = {found['lateness_ms']:g}"
    return (
        f"set bins.lateness_ms = {found['lateness_ms']:g}, output.budget_ms = {found['budget_ms']:g} and "
        f"output.valid_ms = {found['valid_ms']:g}"
    )


def _restamp(stamps: Stamps, clocks: Clocks) -> str:
    return f"stamps are not of the LSL clock: {astray(stamps, clocks)}; stamp with local_clock()"


def _silent(heard: Spikes) -> tuple[list[str], list[str]]:
    """Reasons and notes on units that never fired: those that the decoder uses count, the others are only told."""
    n_units = len(heard.fired)
    used = np.ones(n_units, bool) if heard.used is None else heard.used
    n_used = int(used.sum())
    silent, reasons, notes = np.flatnonzero(used & (heard.fired == 0)).tolist(), [], []
    if silent:
        which = "units" if n_used == n_units else "units that the decoder uses"
        notes.append(f"{len(silent)} of {n_used} {which} never fired: {_few(silent)}")
    if n_used < n_units:
        notes.append(f"{n_units - n_used} of {n_units} units are left out by the checkpoint's filter")
    if len(silent) == n_used:
        which = "that the decoder uses" if heard.fired.any() else "of the map"
        reasons.append(f"no unit {which} fired; send the row of the unit table, counted from 0")
    return reasons, notes


def _foreign(heard: Spikes) -> str:
    """Unit numbers outside the map, and what they may be instead."""
    numbers, units = sorted(heard.foreign), len(heard.fired)
    share = percent(sum(heard.foreign.values()) / max(1, heard.received))
    word, verb = ("unit", "is") if len(numbers) == 1 else ("units", "are")
    said = f"{word} {_few(numbers)} {verb} outside the map (0 to {units - 1}), {share} of the spikes"
    if numbers == [units] and heard.fired[0] == 0:
        said += ", and unit 0 never fired: numbered from 1?"
    elif numbers[0] >= 0 and set(np.flatnonzero(heard.fired).tolist()) | set(numbers) <= set(heard.ids):
        said += ": the sorter's own numbers?"
    elif numbers[-1] < 0:
        said += ": noise? Leave it out. Keep-alives? Each has to be -1 - (spikes sent)"
    return f"{said}; send the row of the unit table, counted from 0"


def markers(heard: Markers, classes: Mapping[str, Sequence[str]], clocks: Clocks) -> Verdict:
    """The verdict on the marker stream. classes: of each class output, by name."""
    reasons, notes = [], []
    what = f"{heard.stream}: {heard.received} received, {heard.bad} cannot be read, {heard.starts} segment_start"
    if strange(heard.stamps) and (heard.astray or not heard.starts):  # else the ends are sent with the starts
        reasons.append(_restamp(heard.stamps, clocks))
    elif heard.bad:
        (reasons if heard.bad >= heard.received else notes).append(
            f"{heard.bad} of {heard.received} markers cannot be read, such as {quoted(heard.last_bad)}; send JSON like "
            '{"event": "segment_start", "segment": 17}'
        )
    if heard.astray and not reasons:
        notes.append(f"{heard.astray} starts or ends were stamped more than {FAR_S:g} s from their arrival: left out")
    for name, given in heard.labels.items():
        wrong = sorted(given - set(classes.get(name, given)))
        if wrong:
            reasons.append(
                f"label {name} = {listed(wrong)} is no class of the checkpoint; send {listed([*classes[name]])}"
            )
    if heard.received == 0:
        notes.append("none arrived: a run decodes from the first segment_start on")
    elif not heard.starts and not reasons:
        notes.append("no segment_start among them: a run decodes from the first one on")
    return Verdict("markers", what, tuple(reasons), tuple(notes))


def trace(name: str, heard: Trace, clocks: Clocks) -> Verdict:
    """The verdict on a behaviour stream."""
    reasons, notes = [], []
    values = heard.values[np.isfinite(heard.values)]
    what = f"{heard.stream}: {len(heard.values)} received"
    if len(values):
        what += f", {values.min():.4g} to {values.max():.4g}{f' {heard.unit}' if heard.unit else ''}"
    if strange(heard.stamps):
        reasons.append(_restamp(heard.stamps, clocks))
    elif len(heard.values) == 0:
        (reasons if heard.regular else notes).append("none arrived: start its sender")
    elif len(values) < len(heard.values) / 2:
        reasons.append(f"{len(heard.values) - len(values)} of {len(heard.values)} values are NaN; look at its sender")
    if len(values) >= FEW and float(np.percentile(np.abs(values - heard.mean), 90)) > FAR_SD * heard.sd:
        reasons.append(
            f"values of {values.min():.4g} to {values.max():.4g} do not fit the training data (mean {heard.mean:.4g}, "
            f"sd {heard.sd:.4g}); send them in {heard.unit or 'the unit of the training data'}"
        )
    return Verdict(name, what, tuple(reasons), tuple(notes))


def no_output(name: str, stream: str, outputs: list[str]) -> Verdict:
    """The verdict on a behaviour that the checkpoint does not decode."""
    remedy = f"name one of {listed(outputs)} under input.behaviours" if outputs else "leave it out of input.behaviours"
    return Verdict(name, stream, (f"is no trace that this checkpoint decodes; {remedy}",))


def percent(share: float) -> str:
    """A share in words; what is above 0 never reads 0."""
    return f"{max(100 * share, 0.01) if share else 0:.2f} %"


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
