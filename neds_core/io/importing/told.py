"""What a source holds, and what was taken of it, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neds_core.data.summary import duration, moments, rates, regions, some
from neds_core.io.importing import outputs
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.grid import Made


def of_found(found: Found) -> Iterator[str]:
    """Everything that was found, and what is proposed."""
    n, n_units = len(found.t_s), len(found.units)
    n_spikes = n if found.session is None else int(found.session.counts.sum())
    yield f"{found.name} ({found.format}): {n_units} units, {n_spikes} spikes"
    if n:
        begin, end = float(found.t_s[0]), float(found.t_s[-1])
        hz = np.bincount(found.unit, minlength=n_units) / max(end - begin, 1e-9)
        yield f"spikes    {begin:.3f} to {end:.3f} s ({duration(end - begin)})"
        yield f"rates     {rates(hz)}"
    if where := regions(found.units.region):
        yield f"regions   {where}"
    if found.quality:
        yield f"quality   {some(f'{label} ({k})' for label, k in found.quality.items())}"
    if found.clock:
        yield f"clock     {found.clock}"
    yield from map(_trace, found.traces)
    if found.trials is not None:
        yield from _trials(found.trials)
    yield from (f"note      {note}" for note in found.notes)
    if found.session is not None:
        return
    proposed = [str(each) for each in outputs.proposed(found)]
    yield f"proposed  {' '.join(f'--outputs {each}' for each in proposed) or '--outputs none: no behaviour was found'}"


def of_made(made: Made, found: Found) -> Iterator[str]:
    """What became of it: notes of the grid alone, and the session."""
    yield from (f"note      {note}" for note in made.notes[len(found.notes) :])
    session = made.session
    yield f"taken     {session.size()}"
    yield f"bin 0     starts at {made.start_s:.6f} s of the source's clock"
    yield from (f"output    {session.told(spec)}" for spec in session.specs)
    if happened := moments(session.moments):
        yield f"moments   {happened}"


def _trace(trace: Trace) -> str:
    values = trace.values[np.isfinite(trace.values)]
    if not len(trace.t_s):
        return f"trace     {trace.name}: no samples"
    apart = np.diff(trace.t_s)
    rate = f"{1 / np.median(apart):.4g} Hz" if len(apart) and np.median(apart) > 0 else f"{len(trace.t_s)} samples"
    span = f"{values.min():.4g} to {values.max():.4g}" if len(values) else "no values"
    return (
        f"trace     {trace.name}: {rate}, {trace.t_s[0]:.3f} to {trace.t_s[-1]:.3f} s, "
        f"unit {trace.unit or 'not said'}, {span}, {1 - len(values) / len(trace.values):.1%} NaN"
    )


def _trials(trials: Trials) -> Iterator[str]:
    n = len(trials.start_s)
    span = f", {np.nanmin(trials.start_s):.3f} to {np.nanmax(trials.stop_s):.3f} s" if n else ""
    yield f"trials    {n}{span}; columns {some(map(str, trials.columns)) or 'none'}"
