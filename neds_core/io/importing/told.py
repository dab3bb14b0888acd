"""What a source holds, and what was taken of it, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neds_core.data.session import Session
from neds_core.io.importing import outputs
from neds_core.io.importing.found import Found, Trace, Trials
from neds_core.io.importing.grid import Made

MANY = 12  # columns or regions that are named


def of_found(found: Found) -> Iterator[str]:
    """Everything that was found, and what is proposed."""
    n, n_units = len(found.t_s), len(found.units)
    n_spikes = n if found.session is None else int(found.session.counts.sum())
    yield f"{found.name} ({found.format}): {n_units} units, {n_spikes} spikes"
    if n:
        begin, end = float(found.t_s[0]), float(found.t_s[-1])
        hz = np.bincount(found.unit, minlength=n_units) / max(end - begin, 1e-9)
        yield f"spikes    {begin:.3f} to {end:.3f} s ({_long(end - begin)})"
        yield (
            f"rates     median {np.median(hz):.2f} Hz, {hz.min():.3g} to {hz.max():.3g} Hz; "
            f"{int((hz < 0.05).sum())} units below 0.05 Hz"
        )
    regions, many = np.unique(found.units.region, return_counts=True)
    if regions.tolist() != ["?"]:
        yield f"regions   {_some(f'{name} ({k})' for name, k in zip(regions, many, strict=True))}"
    if found.quality:
        yield f"quality   {_some(f'{label} ({k})' for label, k in found.quality.items())}"
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
    length_s, bin_ms = session.n_bins * session.bin_ns * 1e-9, session.bin_ns * 1e-6
    yield (
        f"taken     {len(session.units)} units, {session.n_bins} bins of {bin_ms:g} ms ({_long(length_s)}), "
        f"{len(session.segments)} {'segment' if len(session.segments) == 1 else 'segments'}"
    )
    yield f"bin 0     starts at {made.start_s:.6f} s of the source's clock"
    yield from (_output(session, k) for k in range(len(session.specs)))
    if session.moments:
        yield f"moments   {_some(iter(session.moments))}: when in each segment"


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
    yield f"trials    {n}{span}; columns {_some(map(str, trials.columns)) or 'none'}"


def _output(session: Session, k: int) -> str:
    spec = session.specs[k]
    values = session.values[spec.name]
    if spec.kind == "class":
        labelled = values[session.segments[:, 1] - 1]
        each = (f"{name} ({int((labelled == c).sum())})" for c, name in enumerate(spec.classes))
        return f"output    {spec.name}: classes {_some(each)}, by trial"
    return (
        f"output    {spec.name}: {np.nanmin(values):.4g} to {np.nanmax(values):.4g} {spec.unit}".rstrip()
        + f", {np.isnan(values).mean():.1%} NaN"
    )


def _long(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _some(names: Iterator[str]) -> str:
    found = list(names)
    return ", ".join(found[:MANY]) + (f" and {len(found) - MANY} more" if len(found) > MANY else "")
