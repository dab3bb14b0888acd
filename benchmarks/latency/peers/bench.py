"""`neds-rt bench peers`: every row in turn, round by round, and what came of it as one report."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.latency import measured
from benchmarks.latency.peers import decoders, fits, heard, launch, rows, table
from benchmarks.latency.peers.heard import Messages
from benchmarks.latency.peers.launch import Bench, Launch
from benchmarks.latency.peers.rows import Row
from neds_core import checkpoint as checkpoints
from neds_core.data import session as sessions, session_file
from neds_core.errors import ConfigError, StreamError
from neds_core.scores import r2 as scores
from runtime import config as rigs
from runtime.cli.demo import demo
from runtime.core.engine import Engine
from runtime.core.latency import percentiles
from runtime.engines import create as engines

TAIL_LAUNCHES = 3  # in each round, of the rows whose p99 is compared: of 470 bins that is the fifth largest
OUTPUTS = ("wheel_speed", "whisker_motion_energy")
Say = Callable[[str], None]


def run(
    rounds: int, trials: int, only: str = "", say: Say = lambda line: None, tails: int = TAIL_LAUNCHES
) -> report.Report:
    """Measure the rows whose "size name" an expression matches: so many launches of each, in turn; `tails` times as
    many of those whose tails are compared.

    trials: held-out trials measured in each launch. Raises `ConfigError` where none matches, `DataError` outside of a
    checkout.
    """
    chosen = [row for row in rows.ROWS if re.search(only, f"{row.size} {row.name}".strip())]
    if not chosen:
        names = ", ".join(f"{row.size} {row.name}".strip() for row in rows.ROWS)
        raise ConfigError(f"--only {only!r} matches none of the rows: {names}")
    torch.set_num_threads(1)
    config, test = rigs.load(demo() / "rig.toml"), sessions.split(session_file.load(demo() / "session.npz")).test
    with tempfile.TemporaryDirectory(prefix="neds-rt-peers-") as folder:
        fitted = Path(folder)
        say("fit the peers that are trained, and hold those that have to equal ours to our engine")
        fits.prepare(fitted, {row.decoder for row in chosen})
        path = Path(config.checkpoint)
        at = rows.models(fitted, checkpoints.load(path), path, {row.size for row in chosen})
        bench = Bench(config, at, fitted, test, OUTPUTS, trials)
        states = list(rows.judged(chosen, at, fitted, test))
        taken = _rounds(bench, states, rounds, tails, say)
        found = [_result(bench, row, skipped, wrong, taken.get(row, [])) for row, skipped, wrong in states]
    said = {"rounds": rounds, "trials": trials, "tail_launches": tails, "rows": found}
    result = report.begun("latency-peers") | said
    return result | {"gate": table.gate(found)}


def _rounds(
    bench: Bench, states: list[tuple[Row, str, str]], rounds: int, tails: int, say: Say
) -> dict[Row, list[Launch]]:
    """The launches of each row that can be run: one of each row, then the next one of each; of those whose tails are
    compared `tails` in each round."""
    taken: dict[Row, list[Launch]] = {}
    for row, skipped, wrong in states:
        if skipped or wrong:
            say(f"{row.size} {row.name}: {skipped or wrong}")
    able = [row for row, skipped, wrong in states if not skipped and not wrong]
    for number in range(rounds * tails):
        for row in able if number % tails == 0 else [row for row in able if row.key in table.TAILS]:
            say(f"round {number // tails + 1} of {rounds}: {row.size} {row.name}")
            with tempfile.TemporaryDirectory(prefix="neds-rt-peer-") as folder:
                try:
                    found = launch.run(bench, row, number, Path(folder))
                except StreamError as error:
                    raise StreamError(f"{row.size} {row.name}: {error}") from None
            taken.setdefault(row, []).append(found)
    return taken


def _result(bench: Bench, row: Row, skipped: str, wrong: str, launches: list[Launch]) -> dict[str, Any]:
    """A row of the report."""
    where: dict[str, Any] = {"name": row.name, **row.key._asdict(), "skipped": skipped, "wrong": wrong}
    where["equal"] = row.equal
    if not launches:
        return where
    both = [heard.served(one.sent, one.messages, one.bins, one.end_ns) for one in launches]
    pub, sub = (np.concatenate(part) for part in zip(*both, strict=True))
    steps = np.concatenate([_steps(one) for one in launches])
    stalls = [heard.wrong_ages(one.sent, one.messages, bench.test.bin_ns) for one in launches]
    return where | {
        "scheduled": len(pub),
        "own_message": sum(len(np.unique(_measured(one).t_end)) for one in launches),
        "step_ms": percentiles(steps * 1e-6) | {"n": len(steps)},
        "edge_to_pub_ms": percentiles(pub * 1e-6),
        "edge_to_sub_ms": percentiles(sub * 1e-6),
        "deadline_misses": int((pub > heard.DEADLINE_NS).sum()),
        "stall": {key: sum(stall[key] for stall in stalls) for key in stalls[0]},
        "r2": _skill(bench, launches) if row.size != rows.PUBLISHED else None,
        **(_received(bench, row, launches) if row.equal else {}),
        "histogram": measured.histogram(pub).encoded(),
    }


def _steps(one: Launch) -> np.ndarray:
    """(n,) ns: the arithmetic of the values of measured bins."""
    took = _measured(one).infer
    return took[took > 0]


def _measured(one: Launch) -> Messages:
    """The messages of measured bins that carry a value of every output."""
    return one.messages.of(one.messages.whole & np.isin(one.messages.t_end, one.sent.edge[one.bins]))


def _skill(bench: Bench, launches: list[Launch]) -> dict[str, Any]:
    """R2 of each output, of what a client has at each deadline, with an interval over the trials."""
    parts = [launch.held_out(one, OUTPUTS) for one in launches]
    y, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    trial = np.concatenate([k * 1000 + one.sent.trial[one.bins] for k, one in enumerate(launches)])
    found: dict[str, Any] = {"trials": len(np.unique(trial))}
    for v, name in enumerate(OUTPUTS):
        known = np.isfinite(y[:, v]) & np.isfinite(value[:, v])
        row = y[known, v], value[known, v]
        found[name] = {"value": scores.r2(*row), "ci95": scores.r2_interval(*row, trial[known])}
    return found


def _received(bench: Bench, row: Row, launches: list[Launch]) -> dict[str, Any]:
    """Received values against our engine's offline forward on the recording.

    received_max_abs: the largest difference in z-scores, None = nothing was compared. received: bins that were;
    received_unequal: of those, messages that are further apart than `table.most_apart`.
    received_of: of ours all that were measured, of another those that it sent a message of, as it skips what is late.
    """
    engine = engines.create(checkpoints.load(bench.models[row.size]), "neds")
    columns = [engine.layout.columns[name].start for name in OUTPUTS]
    worst, unequal, compared, of = 0.0, 0, 0, 0
    for one in launches:
        edge, mine = one.sent.edge[one.bins], _measured(one)
        truth = expected(engine, one, windows=row.decoder in decoders.WINDOWS)[:, columns]
        apart = np.abs(mine.values - truth[np.searchsorted(edge, mine.t_end)]) / engine.layout.scale[columns]
        worst = max(worst, float(apart.max(initial=0.0)))
        unequal += int((~(apart <= table.most_apart(row.key))).any(1).sum())
        compared += len(np.unique(mine.t_end))
        of += len(edge) if row.program == rows.OURS else int(np.isin(edge, one.messages.t_end).sum())
    found = {"received": compared, "received_of": of, "received_unequal": unequal}
    return {"received_max_abs": worst if compared else None, **found}


def expected(engine: Engine, one: Launch, windows: bool) -> np.ndarray:
    """Values (m, V) of the measured bins by our engine's offline forward, from the start of each one's segment.

    windows: from no more than a window before each, as a full forward sees them.
    """
    trial = one.sent.trial
    if windows:
        begin = np.maximum(np.searchsorted(trial, trial[one.bins]), one.bins + 1 - decoders.BINS)
        spans = [np.arange(first, last + 1) for first, last in zip(begin, one.bins, strict=True)]
        at, newest = np.concatenate(spans), np.cumsum([len(span) for span in spans]) - 1
        reset = np.append(True, np.isin(np.arange(1, len(at)), newest + 1))
    else:
        at, newest, reset = np.arange(len(trial)), one.bins, np.diff(trial, prepend=-1) > 0
    n = len(at)
    return engine.offline(one.played.counts[one.sent.row[at]], np.ones(n, bool), np.full(n, -1), reset)[newest]
