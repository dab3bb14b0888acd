"""Every engine of a machine over a recording, against the offline twin of what it was told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from kernels.cpu.pack import Precision
from neds_core.checkpoint import Checkpoint
from neds_core.data import lead, session as sessions
from neds_core.data.session import Session
from neds_core.model import directions
from neds_core.scores import r2 as scores, tasks as evaluation
from runtime.core.engine import BROUGHT, RECOMMENDED, Engine
from runtime.core.run_log import RunLog
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.layout import layout
from runtime.engines.rates import RateEngine
from runtime.engines.state_space import StateSpaceEngine
from runtime.engines.stream import StreamEngine
from runtime.engines.torch_stream import TorchStreamEngine
from runtime.live import offline
from runtime.scoring import score as scoring, truth

Row = dict[str, Any]  # one JSON object

# z-scores, probabilities and log-rates. float32: sums in another order. Compact weights: their own rounding.
BOUNDS: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 0.03, "int8": 0.1}
R2_BOUND = 0.002  # what compact weights may change of the R2 of the held-out part
SHARE_OBSERVED = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """What the engines are told: the log of a replay, its decoded rows, and the recording's bin of each row.

    behaviour (T, M) float32: all that the recording knows of the checkpoint's outputs, each its lead later, NaN =
    nothing.
    """

    session: Session
    log: RunLog
    rows: np.ndarray
    bins: np.ndarray
    behaviour: np.ndarray

    def tokens(self, observed: np.ndarray | None) -> Iterator[Token]:
        """Its bins; observed (n, M) or None."""
        for i, row in enumerate(self.rows):
            yield Token(
                i, 0, self.log.counts[row], bool(self.log.valid[row]), int(self.log.clock[row]),
                reset=bool(self.log.reset[row]), observed=None if observed is None else observed[i],
                stands=self.log.stands[row],
            )  # fmt: skip


def told(checkpoint: Checkpoint, session: Session) -> Told:
    """A replay of the recording, behaviours that it lacks filled in as unknown."""
    values: dict[str, np.ndarray] = {}
    for spec in checkpoint.specs:
        unknown = np.full(session.n_bins, np.nan, np.float32) if spec.kind == "continuous" else np.int64(-1)
        values[spec.name] = np.broadcast_to(session.values.get(spec.name, unknown), session.n_bins)
    whole = lead.ahead(replace(session, values={**session.values, **values}), lead.of(checkpoint.specs))
    each = [whole.values[name] for name in values]
    columns = [np.where(v < 0, np.nan, v) if v.dtype.kind == "i" else v for v in each]  # no label is -1
    behaviour = np.stack(columns, axis=1).astype(np.float32)
    quickest = BROUGHT if checkpoint.state_space else "ridge" if checkpoint.linear else "neds"
    log = offline.stream(checkpoint, session, quickest)  # what counts is what the engines are told
    rows = log.decoded_rows()
    return Told(whole, log, rows, truth.bins(session, log, rows), behaviour)


def verify(checkpoint: Checkpoint, session: Session) -> tuple[dict[str, Row], list[str]]:
    """A row for each engine and case, by its name; and the names that miss a bound."""
    log, found = told(checkpoint, session), {}
    if checkpoint.state_space is not None:
        engine = engines.create(checkpoint, BROUGHT)
        found[engine.name] = _compare(engine, log)[0]
        return found, [name for name, row in found.items() if not _within(row)]
    n_members = len(checkpoint.networks)
    for m in range(n_members):
        which = f", member {m}" if n_members > 1 else ""
        found |= {f"{name}{which}": row for name, row in _network(checkpoint.alone(m), log).items()}
    sums = ("neds",) if n_members > 1 else ()
    for decoder in (*sums, "ridge", "blend") if checkpoint.linear else sums:
        engine = engines.create(checkpoint, decoder)
        found[engine.name] = _compare(engine, log)[0]
    if engines.named(checkpoint, RECOMMENDED) == RECOMMENDED:
        engine = engines.create(checkpoint, RECOMMENDED)
        found[f"{engine.name}, recommended"] = _compare(engine, log)[0]
    return found, [name for name, row in found.items() if not _within(row)]


def _network(checkpoint: Checkpoint, log: Told) -> dict[str, Row]:
    """The engines of one network."""
    found: dict[str, Row] = {}
    if checkpoint.header.config.model.attention == "causal":
        found |= _streams(checkpoint, log)
    else:
        window = engines.create(checkpoint, "neds")
        found[window.name] = _compare(window, log)[0]
    if torch.cuda.is_available() and not checkpoint.header.config.model.filter_taus_ms:  # which it refuses
        on_gpu = engines.create(checkpoint, "neds", device="cuda")
        found[on_gpu.name] = _compare(on_gpu, log)[0]
    return found


def _within(row: Row) -> bool:
    changes = row.get("r2_minus_float32", {}).values()
    return row["max_abs"] <= row["bound"] and all(abs(change) <= R2_BOUND for change in changes)


def _streams(checkpoint: Checkpoint, log: Told) -> dict[str, Row]:
    """The engines of a causal checkpoint: decoding, beside observed behaviour, and the encoding direction."""
    found: dict[str, Row] = {}
    shows = tuple(spec.name for spec in checkpoint.specs if not spec.lead_ms)  # a token of others holds their future
    held_out = np.zeros(log.session.n_bins, bool)
    for start, stop in sessions.split(log.session).test.segments:
        held_out[start:stop] = True
    exact: np.ndarray | None = None
    for weights, bound in BOUNDS.items():
        engine = StreamEngine(checkpoint, weights)
        row, streamed = _compare(engine, log, bound)
        if exact is not None:
            row["r2_minus_float32"] = _r2_changes(checkpoint, log, held_out[log.bins], exact, streamed)
        else:
            exact = streamed
        found[engine.name] = row
        if shows:
            rates = RateEngine(engine, shows)
            found[rates.name] = _compare_rates(rates, checkpoint, log, bound)
    if shows:
        observer, shown = StreamEngine(checkpoint, observed=shows), log.behaviour[log.bins]
        shown[np.random.default_rng(0).random(shown.shape) >= SHARE_OBSERVED] = np.nan
        found[f"{observer.name}, half observed"] = _compare(observer, log, observed=shown)[0]
    plain = TorchStreamEngine(checkpoint)
    found[plain.name] = _compare(plain, log)[0]
    return found


def _compare(
    engine: Engine, log: Told, bound: float = BOUNDS["float32"], observed: np.ndarray | None = None
) -> tuple[Row, np.ndarray]:
    """A row, and what was streamed (n, V)."""
    prepare.warm_up(engine, log.log.counts.shape[1])
    streamed, took = _timed(engine.step, engine.reset, log.tokens(observed), engine.layout.n_values)
    valid = log.log.valid[log.rows]
    logged = log.log.counts[log.rows], valid, log.log.clock[log.rows], log.log.reset[log.rows]
    if observed is not None and isinstance(engine, StreamEngine):
        offline = engine.offline(*logged, observed)
    elif isinstance(engine, StateSpaceEngine):
        offline = engine.offline(*logged, log.log.stands[log.rows])
    else:
        offline = engine.offline(*logged)
    worst = scoring.exactness(engine.layout, streamed, offline, valid)
    if worst is None or (np.isfinite(streamed) != np.isfinite(offline)).any():
        worst = float("nan")
    return _row(worst, took, bound), streamed


def _compare_rates(engine: RateEngine, checkpoint: Checkpoint, log: Told, bound: float) -> Row:
    """The encoding direction over the recording's segments, each cold, in log-rates."""
    session, spans = log.session, directions.spans_of(log.session)

    def tokens() -> Iterator[Token]:
        for start, stop in spans:
            for t in range(start, stop):
                valid, seen = bool(session.valid[t]), log.behaviour[t]
                yield Token(t, 0, session.counts[t], valid, t - start, reset=t == start, observed=seen)

    names = tuple(spec.name for spec in checkpoint.specs if not spec.lead_ms)
    rates, took = _timed(engine.step, engine.reset, tokens(), session.counts.shape[1])
    offline = directions.encode(checkpoint.model, evaluation.cutter(checkpoint, session), spans, names)
    return _row(float(np.abs(np.log(rates) - np.log(offline)).max()), took, bound)


def _timed(
    step: Callable[[Token], np.ndarray], reset: Callable[[], None], tokens: Iterator[Token], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the tokens give (n, width), and ms of each step."""
    out, took = [], []
    for token in tokens:
        if token.reset:
            reset()
        begin = time.perf_counter_ns()
        values = step(token)
        took.append((time.perf_counter_ns() - begin) * 1e-6)
        out.append(values.copy())
    return np.array(out, np.float32).reshape(-1, width), np.array(took)


def _row(worst: float, took: np.ndarray, bound: float) -> Row:
    p50, p99 = (float(np.percentile(took, p)) for p in (50, 99))
    return {"max_abs": worst, "bound": bound, "p50_ms": p50, "p99_ms": p99}


def _r2_changes(
    checkpoint: Checkpoint, log: Told, held_out: np.ndarray, exact: np.ndarray, compact: np.ndarray
) -> dict[str, float]:
    """R2 of compact weights minus that of float32 over the held-out rows, of each continuous output measured there."""
    changes, place = {}, layout(checkpoint)
    for m, spec in enumerate(checkpoint.specs):
        y = log.behaviour[log.bins, m].astype(np.float64)
        known = held_out & np.isfinite(y)
        if spec.kind == "continuous" and known.sum() >= 2:
            column = place.columns[spec.name].start
            changes[spec.name] = scores.r2(y[known], compact[known, column]) - scores.r2(y[known], exact[known, column])
    return changes
