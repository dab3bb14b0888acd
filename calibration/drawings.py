"""The figures of a calibration's report, as PNG: each says the part of the session that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration import report as reports
from calibration.insight import Contribution, Learning
from calibration.judge import Reliability
from calibration.report import LagCurve, Report, Trace
from neds_core.checkpoint.judged import Score

# Okabe & Ito 2008: told apart also by the colour-blind.
COLOURS = {"constant": "0.5", "ridge": "#0072B2", "neds": "#D55E00", "blend": "#009E73"}
WIDTH, DPI = 8.0, 100


def draw(found: Report) -> Iterator[tuple[str, str, bytes]]:
    """Name, caption and PNG of each figure that there is something to draw for."""
    many = f"{found.parts['judge'].segments} segments"
    kinds: tuple[tuple[str, str, float, dict[str, Callable[[Axes], None]]], ...] = (
        ("traces", f"Judging part ({many}, first {reports.SHOWN} bins): measured and what is offered. Nothing was "
         "fitted or chosen on it. Trials stand side by side; shaded: 95 % by the errors on the selecting part.", 2.2,
         {k: _with(_trace, k, v) for k, v in found.traces.items()}),
        ("learning", "Selecting part: the linear decoder of the first trials of the fitting part, and all decoders of "
         "the whole of it. Bars: 95 % over trials. NEDS and the blend were chosen here, which flatters them.", 2.6,
         {k: _with(_learning, k, v) for k, v in found.learning.items()}),
        ("units", f"Selecting part: what is lost when a unit is silent, the {reports.TOP} largest of "
         "those tested. *: above noise (95 %, each unit for itself).", 3.2,
         {k: _with(_units, k, v) for k, v in found.contributions.items()}),
        ("reliability", "Judging part: how often a guess of some probability is right, with the temperatures of the "
         "selecting part and without. Numbers: trials.", 3.6,
         {k: _with(_reliability, k, v) for k, v in found.reliability.items()}),
        ("lags", "Fitting part: R2 of a ridge on spikes when the trace is moved.", 2.2,
         {k: _with(_lags, k, v) for k, v in found.lags.items() if any(r is not None for r in v.r2)}),
    )  # fmt: skip
    for name, caption, height, panels in kinds:
        if panels:
            yield name, caption, _png(height, list(panels.values()), caption.partition(":")[0])


def _with(what: Callable[..., None], name: str, value: object) -> Callable[[Axes], None]:
    return lambda axes: what(axes, name, value)


def _png(height: float, panels: list[Callable[[Axes], None]], title: str) -> bytes:
    figure = Figure(figsize=(WIDTH, height * len(panels)), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(len(panels), 1)), panels, strict=True):
        panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values])


def _trace(axes: Axes, name: str, of: Trace) -> None:
    t_s = np.arange(len(of.value)) * of.bin_ms * 1e-3
    value = np.array(of.value)
    axes.plot(t_s, _numbers(of.measured), color="0.6", lw=1.2, label="measured")
    axes.plot(t_s, value, color=COLOURS[of.decoder], lw=1.2, label=of.decoder)
    if of.half is not None:
        axes.fill_between(t_s, value - of.half, value + of.half, color=COLOURS[of.decoder], alpha=0.15, lw=0)
    for k in np.flatnonzero(np.diff(of.segment)):
        axes.axvline(t_s[k + 1], color="0.88", lw=0.7, zorder=0)
    axes.set_xlabel("s, trials joined")
    axes.set_ylabel(f"{name}\n{of.unit}".rstrip())
    axes.legend(frameon=False, loc="upper right", ncols=2, fontsize="small")


def _bar(axes: Axes, x: float, score: Score, colour: str, label: str) -> None:
    low, high = (score.value if v is None else v for v in (score.low, score.high))
    error = [[score.value - low], [high - score.value]]
    axes.errorbar([x], [score.value], error, fmt="o", ms=4, color=colour, capsize=2, label=label)


def _learning(axes: Axes, name: str, of: Learning) -> None:
    known = [(n, score) for n, score in zip(of.trials, of.linear, strict=True) if score is not None]
    axes.plot([n for n, _ in known], [s.value for _, s in known], color=COLOURS["ridge"], lw=1)
    for k, (n, score) in enumerate(known):
        _bar(axes, n, score, COLOURS["ridge"], "" if k else "ridge")
    most = of.trials[-1]
    for k, decoder in enumerate(("neds", "blend")):
        if decoder in of.all:
            _bar(axes, most * (1.03 + 0.03 * k), of.all[decoder], COLOURS[decoder], decoder)
    axes.set_xlim(0, most * 1.12)
    ends = f"{of.minutes[0]:.1f} to {of.minutes[-1]:.1f} min inside them"
    axes.set_xlabel(f"trials of the fitting part ({ends})")
    axes.set_ylabel(f"{name}\n{of.measure}")
    axes.legend(frameon=False, loc="lower right", fontsize="small")


def _units(axes: Axes, name: str, of: Contribution) -> None:
    rows, sure = reports.top(of), set(reports.sure(of))
    place = np.arange(len(rows))
    axes.bar(
        place - 0.2,
        [of.linear[k] for k in rows],
        0.4,
        color=COLOURS["ridge"],
        label=f"ridge{' (offered)' * (of.decoder == 'ridge')}",
    )
    if of.decoder != "ridge" and any(of.offered[k] is not None for k in rows):
        drops = [of.offered[k] or 0.0 for k in rows]
        axes.bar(place + 0.2, drops, 0.4, color=COLOURS[of.decoder], label=f"{of.decoder} (offered)")
    axes.set_xticks(place, [f"{of.ids[k]}{'*' * (k in sure)}\n{of.region[k]}" for k in rows], fontsize="x-small")
    axes.axhline(0, color="0.7", lw=0.7)
    axes.set_xlabel("unit, region")
    axes.set_ylabel(f"{name}\nloss of {of.measure}")
    axes.legend(frameon=False, loc="upper right", fontsize="small")


def _reliability(axes: Axes, name: str, of: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color="0.8", lw=0.8)
    for diagram, error, colour, label in (
        (of.before, of.error_before, "#E69F00", "without temperatures"),
        (of.after, of.error, "#0072B2", "as offered"),
    ):
        sure, right = _numbers(diagram.confidence), _numbers(diagram.accuracy)
        known = np.isfinite(sure)
        axes.plot(sure[known], right[known], "o-", ms=4, lw=1, color=colour, label=f"{label}: error {error:.3f}")
        for x, y, n in zip(sure[known], right[known], np.array(diagram.n)[known], strict=True):
            axes.annotate(str(n), (x, y), (3, 3), textcoords="offset points", fontsize="xx-small", color=colour)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.05)
    axes.set_aspect("equal")
    axes.set_xlabel(f"probability of the guess, {of.n} trials")
    axes.set_ylabel(f"{name}\nshare that is right")
    axes.legend(frameon=False, loc="lower right", fontsize="small")


def _lags(axes: Axes, name: str, of: LagCurve) -> None:
    axes.plot(of.lag_ms, _numbers(of.r2), color="#0072B2", lw=1.2)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set_xlabel("trace moved by, ms")
    axes.set_ylabel(f"{name}\nR2")
