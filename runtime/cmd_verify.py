"""`neds-rt verify`: every engine of this machine over a recording, against the offline reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from neds_core.checkpoint import Checkpoint
    from runtime.engine import Engine
    from runtime.trace import RunLog

# z-scores and probabilities. float32: sums in another order. Compact weights: the rounding of the weights themselves.
BOUNDS = {"float32": 1e-5, "bfloat16": 0.1, "int8": 0.25}


def verify(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint")],
    recording: Annotated[Path, typer.Argument(help="a Session.npz")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Stream a recording through every engine and compare each with the offline forward of the same bins."""
    import msgspec
    import numpy as np
    import torch

    from neds_core import checkpoint as checkpoints, evaluation, session as sessions
    from runtime import engine as engines, replayed
    from runtime.torch_engine import TorchStreamEngine

    torch.set_num_threads(1)
    made, session = checkpoints.load(checkpoint), sessions.load(recording)
    evaluation.refuse_other_units(made, session)
    log = replayed.stream(made, session, "ridge")  # the quickest: what counts is what the engines are told
    found: dict[str, tuple[Engine, str]] = {}
    causal = made.header.config.model.attention == "causal"
    for weights in ("float32", "bfloat16", "int8") if causal else ("float32",):
        engine = engines.create(made, "neds", weights)
        found[engine.name] = engine, weights
    plain = [TorchStreamEngine(made)] if causal else []
    for engine in (*plain, engines.create(made, "ridge"), engines.create(made, "blend")):
        found[engine.name] = engine, "float32"
    rows = np.flatnonzero(~log.idle[: log.n])
    result: dict[str, Any] = {"checkpoint": made.header.name, "recording": session.name, "bins": len(rows)}
    result["engines"] = {name: _compare(engine, made, log, rows) for name, (engine, _) in found.items()}
    failed = []
    for name, (_, weights) in found.items():
        row = result["engines"][name]
        row["bound"] = BOUNDS[weights]
        print(
            f"{name:28} largest difference {row['max_abs']:.2e} (bound {row['bound']:g}), "
            f"step p50 {row['p50_ms']:.3f} ms, p99 {row['p99_ms']:.3f} ms"
        )
        if not row["max_abs"] <= row["bound"]:
            failed.append(name)
    if json:
        print(msgspec.json.encode(result).decode())
    if failed:
        raise typer.Exit(3)


def _compare(engine: Engine, checkpoint: Checkpoint, log: RunLog, rows: Any) -> dict[str, float]:
    """Largest difference from the offline forward in z-scores or probabilities, and the time of a step in ms."""
    import time

    import numpy as np

    from runtime import scoring
    from runtime.engine import warm_up
    from runtime.token import Token

    warm_up(engine, log.counts.shape[1])
    streamed = np.zeros((len(rows), engine.layout.n_values), np.float32)
    took = np.zeros(len(rows))
    for i, row in enumerate(rows):
        if log.reset[row]:
            engine.reset()
        token = Token(i, 0, log.counts[row], bool(log.valid[row]), int(log.clock[row]))
        begin = time.perf_counter_ns()
        values = engine.step(token)
        took[i] = (time.perf_counter_ns() - begin) * 1e-6
        streamed[i] = values
    offline = engine.offline(log.counts[rows], log.valid[rows], log.clock[rows], log.reset[rows])
    difference = scoring.exactness(engine.layout, streamed, offline, log.valid[rows])
    return {
        "max_abs": difference if difference is not None else float("nan"),
        "p50_ms": float(np.percentile(took, 50)),
        "p99_ms": float(np.percentile(took, 99)),
    }
