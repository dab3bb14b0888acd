"""What a session may not be, each in one sentence, before anything is fitted: nothing to learn, or out of step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.fitting.config import LimitsConfig
from neds_core.data import scalers
from neds_core.data.checks.session import varies
from neds_core.data.parts import LEAST, Parts
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.linear import baseline, linear
from neds_core.linear.linear import Bank
from neds_core.scores.bootstrap import RULES

STUCK = 0.01  # of the fitting part's standard deviation: a trace that varies less stands still
SURE = 0.05  # R2 by which another lag must be better before it counts
BANK, PENALTIES, FOLDS = Bank(taus_ms=(60.0,), root=True), (100.0, 1e3, 1e4, 1e5), 4
LONGEST_MS, STEP_MS = 2000.0, 40.0
LEAST_ORDER = 20  # labelled trials from which on their order can be told
SHIFTS = 60  # fits by chance that are measured
ALIKE, UNLIKE = 0.8, 0.2  # correlation of two trial averages that fit when shifted, and by how much better


@dataclass(frozen=True, slots=True)
class Lag:
    """R2 (K,) of a trace that is moved by lag_ms (K,) against the spikes: positive = read later than it was stamped."""

    lag_ms: np.ndarray
    r2: np.ndarray

    @property
    def best_ms(self) -> float:
        """Where R2 is largest, if that is surely better than in step and than at both ends of the curve; else 0.

        A slow trace has a flat curve, and one that goes on growing has its peak elsewhere: neither tells.
        """
        k, zero = int(self.r2.argmax()), int(np.abs(self.lag_ms).argmin())
        others = max(0.0, *(float(self.r2[at]) for at in (zero, 0, -1)))
        return float(self.lag_ms[k]) if self.r2[k] > others + SURE else 0.0


def check(parts: Parts, specs: tuple[BehaviourSpec, ...], limits: LimitsConfig) -> None:
    """Refuse outputs of which one part has too few values, one class, or a trace that stands still. `DataError`."""
    named = {"fitting": parts.fit, "selecting": parts.select, "judging": parts.judge}
    for spec in specs:
        for name, part in named.items():
            unknown = 1.0 - _known(part, spec)
            if unknown > limits.unknown_share:
                raise DataError(
                    f"{spec.name} has no value in {unknown:.0%} of the {name} part, above limits.unknown_share = "
                    f"{limits.unknown_share:g}; look at its sensor or labels, or leave it out of outputs"
                )
            if spec.kind == "class":
                _check_classes(part, spec, name)
            else:
                _check_moves(parts, part, spec, name)


def _known(part: Session, spec: BehaviourSpec) -> float:
    """Share of valid bins (of a class: of trials' last bins) in which an output is known."""
    rows = scalers.inside(part)
    values = part.values[spec.name]
    if spec.kind == "class":
        return float((values[part.segments[:, 1] - 1] >= 0).mean())
    return float(np.isfinite(values[rows]).mean()) if rows.any() else 0.0


def _check_classes(part: Session, spec: BehaviourSpec, name: str) -> None:
    label = part.values[spec.name][part.segments[:, 1] - 1]
    found = np.unique(label[label >= 0])
    if len(found) < 2:
        raise DataError(
            f"{spec.name} is {spec.classes[found[0]]!r} in each of the {int((label >= 0).sum())} labelled trials of "
            f"the {name} part; collect more trials, of both classes, or leave it out of outputs"
        )


def _check_moves(parts: Parts, part: Session, spec: BehaviourSpec, name: str) -> None:
    """The trace varies, and not by a hundredth of what it does elsewhere in the session."""
    sd = []
    for each in (part, parts.fit, parts.select, parts.judge):
        values = each.values[spec.name][scalers.inside(each)]
        values = values[np.isfinite(values)]
        sd.append(float(values.std()) if varies(values) else 0.0)
    if not sd[0] > STUCK * max(sd):
        raise DataError(
            f"{spec.name} stands still in the {name} part (standard deviation {sd[0]:.3g} {spec.unit}, up to "
            f"{max(sd):.3g} in the session); look at its sensor, and collect again"
        )


def check_leads(parts: Parts, specs: tuple[BehaviourSpec, ...]) -> None:
    """Refuse a lead that leaves too few segments (or blocks) a target. parts: looked ahead in. `DataError`."""
    for spec in (s for s in specs if s.lead_ms):
        for name, part in {"fitting": parts.fit, "selecting": parts.select, "judging": parts.judge}.items():
            bins = part.bins()
            known = part.valid[bins] & np.isfinite(part.values[spec.name][bins])
            n = len(np.unique(RULES.groups(part.segment_of(bins), part.bin_ns)[known]))
            if n < LEAST:
                raise DataError(
                    f"{spec.name} looks {spec.lead_ms:g} ms ahead, which leaves {n} segments of the {name} part long "
                    f"enough, fewer than {LEAST}; collect longer segments, or shorten the lead (it is the base's where "
                    "there is one)"
                )


def lag(train: Session, name: str, kept: np.ndarray) -> Lag:
    """Cross-validated R2 of a ridge on spikes filtered with 60 ms, for a trace moved within its segments.

    Every lag is held to the same bins, those that have a partner at all of them: up to 2 s, and a third of the usual
    segment.
    """
    bin_ms, length = train.bin_ns * 1e-6, np.diff(train.segments)[:, 0]
    most, step = int(min(LONGEST_MS / bin_ms, np.median(length) // 3)), max(1, round(STEP_MS / bin_ms))
    lags = np.arange(-(most // step), most // step + 1) * step
    x, bins = baseline.design(train, BANK, kept)
    segment = train.segment_of(bins)
    at = bins[:, None] + lags
    inside = (at >= train.segments[segment, 0][:, None]) & (at < train.segments[segment, 1][:, None])
    y = np.where(inside, train.values[name][np.clip(at, 0, train.n_bins - 1)], np.nan).astype(np.float64)
    rows = np.isfinite(y).all(1) & train.valid[bins]
    spread = y[rows].std(0) > 0 if rows.sum() > FOLDS else np.zeros(len(lags), bool)
    r2 = np.full(len(lags), -np.inf)
    if spread.any():
        folds = [f[rows] for f in linear.folds(segment, FOLDS)]
        r2[spread] = linear.ridge_search(x[rows], y[rows][:, spread], folds, PENALTIES).max(0)
    return Lag(lags * bin_ms, r2)


def check_steps(parts: Parts, specs: tuple[BehaviourSpec, ...], scale: Scalers, limits: LimitsConfig) -> dict[str, Lag]:
    """Lag curves of the traces, on the fitting part. Raises `DataError` where one is better predicted out of step."""
    found = {}
    for spec in specs:
        if spec.kind == "class":
            _check_label_order(parts.fit, spec, scale.kept)
            continue
        found[spec.name] = lag(parts.fit, spec.name, scale.kept)
        best_ms = found[spec.name].best_ms
        if abs(best_ms) > limits.lag_ms:
            side = "late" if best_ms > 0 else "early"
            raise DataError(
                f"{spec.name} comes {abs(best_ms):.0f} ms {side} against the spikes "
                f"(R2 {found[spec.name].r2.max():.2f} there), more than limits.lag_ms = {limits.lag_ms:g}; correct its "
                "clock or its markers"
            )
    return found


def _check_label_order(train: Session, spec: BehaviourSpec, kept: np.ndarray) -> None:
    """Labels of a class fit the trials they stand at better than the ones before and after.

    What a fit is worth that is one by chance is measured: with the same labels moved by 3 trials and more.
    """
    label = train.values[spec.name][train.segments[:, 1] - 1]
    counts = np.stack([train.counts[a:b].sum(0, dtype=np.float32) for a, b in train.segments])[:, kept]
    each = np.stack([label[:-2], label[1:-1], label[2:]], 1)
    rows = (each >= 0).all(1)
    n = int(rows.sum())
    if n < LEAST_ORDER:
        return
    y = (each[rows] == np.bincount(label[label >= 0]).argmax()).astype(np.float64)
    if not (y.std(0) > 0).all():
        return
    moved = np.unique(np.linspace(3, n - 3, min(n - 5, SHIFTS)).astype(int))
    y = np.column_stack([y, *(np.roll(y[:, 1], by) for by in moved)])
    r2 = linear.ridge_search(np.sqrt(counts[1:-1])[rows], y, linear.folds(np.arange(n), FOLDS), PENALTIES).max(0)
    (before, own, after), chance = r2[:3], r2[3:]
    if max(before, after) > max(0.0, own, chance.max()) + 2 * SURE:
        which = "before" if before > after else "after"
        raise DataError(
            f"the labels of {spec.name} fit the spikes of their neighbours better than their own (R2 "
            f"{max(before, after):.2f} with the label of the trial {which}, {own:.2f} with its own): they are a trial "
            f"{'early' if before > after else 'late'}; correct the markers"
        )


def check_markers(scale: Scalers, known: dict[str, np.ndarray], limits: LimitsConfig, bin_ms: float) -> None:
    """Refuse trial averages that fit those of the base when they are moved: markers are early or late. `DataError`.

    known: trial averages of the base. Nothing can be told of an output without one, or of a base without trials.
    """
    for name, theirs in known.items():
        ours = scale.trial_mean.get(name, np.zeros(0))
        n = min(len(ours), len(theirs))
        most = n // 3
        if most * bin_ms <= limits.lag_ms or not (varies(ours[:n]) and varies(theirs[:n])):
            continue
        each = {d: _alike(ours[:n], theirs[:n], d) for d in range(-most, most + 1)}
        best = max(each, key=lambda d: each[d])
        if abs(best) * bin_ms > limits.lag_ms and each[best] > max(ALIKE, each[0] + UNLIKE):
            raise DataError(
                f"the trial average of {name} fits that of the base when it is moved by {best * bin_ms:.0f} ms "
                f"(correlation {each[best]:.2f}, {each[0]:.2f} in step): the markers are "
                f"{'late' if best > 0 else 'early'}; correct them"
            )


def _alike(ours: np.ndarray, theirs: np.ndarray, shift: int) -> float:
    """Correlation of our average at bin t with theirs at bin t + shift; -1 where one does not vary."""
    n = len(ours) - abs(shift)
    a, b = ours[max(0, -shift) :][:n], theirs[max(0, shift) :][:n]
    return float(np.corrcoef(a, b)[0, 1]) if varies(a) and varies(b) else -1.0
