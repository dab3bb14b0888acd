"""How far a collection has come, and what came of it, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calibration.collecting.collect import Report
from calibration.collecting.progress import FIRES_HZ, SPIKES, Progress
from calibration.collecting.trials import STIMULATED


def lines(progress: Progress) -> list[str]:
    """How far it has come, in words."""
    goal, out = progress.goal, []
    if progress.marked:
        of = f" of {goal.trials}" if goal.trials is not None else ""
        left = {"not complete": progress.cut, STIMULATED: progress.stimulated}
        out.append(f"trials {progress.labelled}{of}{_aside(left)}")
    of = f" of {goal.minutes:g}" if goal.minutes is not None else ""
    out.append(f"minutes {progress.minutes:.1f}{of}")
    left = progress.left_min()
    if left is not None:
        out.append(f"about {left:.1f} minutes to go")
    out += _classes(progress.classes())
    firing, units = progress.units()
    out.append(f"{firing} of {units} units fire")
    units_of = {spec.name: spec.unit for spec in progress.specs}
    for name, trace in progress.traces.items():
        out.append(_range(name, (trace.low, trace.high) if trace.low <= trace.high else None, units_of.get(name, "")))
    return out


def _aside(left: Mapping[str, int]) -> str:
    """Trials that do not count, by why."""
    said = ", ".join(f"{n} {why}" for why, n in left.items() if n)
    return f" ({said})" if said else ""


def _classes(found: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    return (f"{name}: {', '.join(f'{label} {n}' for label, n in each.items())}" for name, each in found.items())


def _spikes(counters: Mapping[str, int]) -> Iterable[str]:
    """Of the last run: how many came, and what of them is not in the session."""
    if not counters:
        return ()
    lost = [f"{n} {name.replace('_', ' ')}" for name in SPIKES if (n := counters.get(f"spikes_{name}", 0))]
    received = f"{counters.get('spikes_received', 0)} received"
    return (f"spikes: {', '.join([received, *lost])}",)


def _range(name: str, limits: tuple[float, float] | None, unit: str = "") -> str:
    return f"{name} {limits[0]:.3g} to {limits[1]:.3g} {unit}".rstrip() if limits else f"{name}: nothing yet"


def summary(found: Report) -> list[str]:
    """What came of it, in words."""
    left = _aside({"more not complete": found.cut, f"more {STIMULATED}": found.stimulated})
    trials = f"{found.trials} trials{left}, {found.labelled} of them labelled, " if found.trials or left else ""
    runs = f" in {found.runs} runs" if found.runs > 1 else ""
    out = [
        f"collected {trials}{found.minutes:.2f} minutes{runs}; ended by {found.stopped_by}",
        *_classes(found.classes),
        f"{found.units_firing} of {found.units} units fire above {FIRES_HZ:g} Hz",
        *(_range(name, limits, found.quantities.get(name, "")) for name, limits in found.ranges.items()),
        *_spikes(found.counters),
        *found.warnings,
        *found.notes,
    ]
    return [*out, f"written: {found.session} and {found.nwb}"] if found.session else out
