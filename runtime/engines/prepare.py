"""Before a run: warm an engine up, and refuse one that cannot serve it."""

from __future__ import annotations

import math
import time

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.engine import Decoder, Engine
from runtime.core.exchange import RECENT_S
from runtime.core.values import Token

FORGOTTEN = 17.0  # e^-17 is below 2^-24


def refuse_endless(decoder: Decoder) -> None:
    """Refuse what needs to be told the start of a segment where no marker tells it: an engine with a window, and a
    decoder whose state outlasts the bins that it can be primed with."""
    engine, forgets_s = decoder.engine, decoder.forgets_bins * decoder.bin_ns * 1e-9
    if engine.window_bins:
        raise ConfigError(
            f"engine {engine.name} decodes {engine.window_bins} bins from the start of a segment and needs markers; "
            "name a marker stream and leave bins.use_markers on, or choose a causal checkpoint or --decoder ridge"
        )
    if forgets_s > RECENT_S:
        raise ConfigError(
            f"{decoder.model} forgets how it began in {forgets_s:.0f} s, longer than the {RECENT_S:g} s of bins that "
            "can prime it, and needs markers; name a marker stream and leave bins.use_markers on"
        )


def warm_up(engine: Engine, n_units: int, steps: int = 50) -> float:
    """Run dense and empty bins through every path, then start cold, so that no path runs for the first time live.

    Returns the median ms of the last quarter of the steps; an engine with a window steps until it is full.
    """
    steps = engine.window_bins or steps
    took = np.zeros(steps)
    for i in range(steps):
        token = Token(i, 0, np.full(n_units, i % 3, np.uint16), valid=i % 5 != 0, clock=i)
        begin = time.perf_counter_ns()
        engine.step(token)
        took[i] = (time.perf_counter_ns() - begin) * 1e-6
    engine.skip(3)
    engine.reset()
    return float(np.median(took[-max(1, steps // 4) :]))


def too_slow(engine: Engine, step_ms: float, bin_ns: int) -> str:
    """One sentence where a step takes longer than the bin that it decodes, else ''."""
    if step_ms <= bin_ns * 1e-6:
        return ""
    return (
        f"engine {engine.name} takes {step_ms:.1f} ms a step, longer than its bin of {bin_ns * 1e-6:g} ms, and falls "
        "behind; choose a causal checkpoint or --decoder ridge"
    )


def receptive_bins(checkpoint: Checkpoint) -> int:
    """How many of the newest bins an engine of this checkpoint has to be primed with: all that reach its outputs.

    Of filters, which forget exponentially, what is left after so many of their times is below float32 rounding.
    """
    if checkpoint.state_space is not None:
        return 1 + checkpoint.state_space.left_bins(math.exp(-FORGOTTEN))
    model, banks = checkpoint.header.config.model, [linear.bank for linear in checkpoint.linear.values()]
    taus_ms = [*model.filter_taus_ms, *(tau for bank in banks for tau in bank.taus_ms)]
    filtered = int(FORGOTTEN * max(taus_ms, default=0.0) * 1e6 / checkpoint.header.bin_ns)
    return max(model.receptive_field, *(bank.lags for bank in banks), 1) + filtered
