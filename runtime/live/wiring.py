"""A live run put together: streams, pipeline, publisher and log of one rig."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import msgspec
import torch

from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.config import RigConfig
from runtime.core.binning import Binner
from runtime.core.engine import Decoder
from runtime.core.health import Limits
from runtime.core.pipeline import Pipeline, Rules
from runtime.core.run_log import RunLog, describe
from runtime.core.state import State, StateTrack
from runtime.core.values import FAR_S
from runtime.engines import create as engines, prepare
from runtime.io import system
from runtime.io.chain import Chain
from runtime.io.clock import LiveClock
from runtime.io.control import Control
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import unit_rows
from runtime.io.lsl_source import LslSource
from runtime.io.notices import Notices
from runtime.io.streams import Streams
from runtime.live.awake import awake
from runtime.live.loop import Plan, run
from runtime.live.messages import Messages, Publisher
from runtime.live.swapping import Exchanges
from runtime.live.warming import Warming

LOG_SLACK_S = 60.0  # a behaviour's stream may begin before the first bin is logged


@dataclass(frozen=True, slots=True)
class Wired:
    """What a live run is made of; `run` it once. stop: set it from anywhere, and the run ends at its next pass."""

    config: RigConfig
    streams: Streams
    decoder: Decoder
    publisher: Publisher
    player_runs: Callable[[], bool]
    stop: Event
    exchanges: Exchanges | None = None
    scheduling: str = ""

    def run(self, seconds: float | None = None, *, told: bool = True) -> RunLog:
        """Decode until `stop` is set, the recording ends, or `seconds` have passed.

        told: events are also printed on stderr; False where a view has the terminal. Raises `ConfigError` where the
        loop is not granted the scheduling that it has to have.
        """
        with Notices(sys.stderr) as notices:
            return self._run(seconds, notices.say if told else lambda line: None)

    def _run(self, seconds: float | None, say: Callable[[str], None]) -> RunLog:
        config, decoder, streams = self.config, self.decoder, self.streams
        source = LslSource(streams, decoder.bin_ns, self.player_runs)
        clock = LiveClock()
        pipeline = make_pipeline(config, decoder, streams, clock.step_ns)
        kind = streams.spikes.description.source
        sink = Messages(config, pipeline, source, self.publisher, kind, say)
        handover = None if self.exchanges is None else self.exchanges.of(pipeline)
        warm = config.engine.warm == "touch"
        warming = Warming(decoder.engine, decoder.bin_ns, clock.now_ns, source.waiting) if warm else None
        plan = Plan(int(config.output.budget_ms * 1e6), seconds, self.stop.is_set, handover, warming)
        track, log = StateTrack(), _log(config, decoder, streams, kind)

        def happened(name: str, said: str) -> None:
            now = clock.now_ns()
            log.happened(now, name, said)
            sink.event(now, name, said)

        happened("state", track.enter(State.WARMUP))
        source.probe()
        step_ms = prepare.warm_up(decoder.engine, decoder.n_units)
        if slow := prepare.too_slow(decoder.engine, step_ms, decoder.bin_ns):
            happened("too_slow", slow)
        at_edge = pipeline.rules.keep_alive or pipeline.binner.ordered
        with (
            self.exchanges or nullcontext(),
            clock,
            awake(config.engine.awake, decoder.bin_ns, 0 if at_edge else pipeline.rules.lateness_ns),
            _urgent() as scheduling,
        ):  # before the inlets open: their threads inherit it
            if self.scheduling not in ("", scheduling):
                raise ConfigError(
                    f"scheduling was certified as {self.scheduling}, and the loop is granted {scheduling}; start it "
                    "with the rights that it was certified with, or certify the rig again with neds-rt certify RIG.toml"
                )
            log.header = msgspec.structs.replace(log.header, scheduling=scheduling)
            with source:
                happened("state", track.enter(State.READY))
                run(source, pipeline, sink, clock, log, plan, track)
        log.source_delay_ms = streams.spikes.delays.kept().copy()
        return log


def wire(
    config: RigConfig,
    checkpoint: Checkpoint,
    streams: Streams,
    publisher: Publisher,
    player_runs: Callable[[], bool] = lambda: True,
    control: tuple[Control, Chain] | None = None,
    scheduling: str = "",
) -> Wired:
    """Put a run together. player_runs: False once a player that this run started has ended. control: by which its
    decoder may be exchanged. scheduling: what the loop has to be granted, '' = whatever it is.

    Raises `ConfigError` where the engine cannot serve this rig.
    """
    torch.set_num_threads(1)  # scoring at the end; the engine has one thread of its own
    engine = config.engine
    decoder = engines.decoder(checkpoint, engine.decoder, engine.weights, engine.device)
    if not _rules(config, streams).markers:
        prepare.refuse_endless(decoder)
    exchanges = None if control is None else Exchanges(config, checkpoint, decoder, *control)
    return Wired(config, streams, decoder, publisher, player_runs, Event(), exchanges, scheduling)


def make_pipeline(
    config: RigConfig, decoder: Decoder, streams: Streams, step_ns: Callable[[], int] = lambda: 0
) -> Pipeline:
    """The pipeline of a rig. step_ns: a clock for how long a step takes."""
    binner, rules = _binner(config, decoder, streams), _rules(config, streams)
    return Pipeline(binner, decoder, rules, step_ns, lambda other: _limits(config, other))


@contextmanager
def _urgent() -> Iterator[str]:
    """Real-time scheduling and locked memory where they are granted; yields what was."""
    try:
        yield system.raise_priority()
    finally:
        system.lower_priority()


def _binner(config: RigConfig, decoder: Decoder, streams: Streams) -> Binner:
    max_age_ns, future_ns = int(config.bins.max_age_ms * 1e6), int(config.bins.future_ms * 1e6)
    ordered = streams.spikes.description.ordered
    return Binner(decoder.n_units, decoder.bin_ns, max_age_ns=max_age_ns, future_ns=future_ns, ordered=ordered)


def _limits(config: RigConfig, decoder: Decoder) -> Limits:
    health = config.health
    return Limits(
        quarantined=health.quarantined_share, late=health.late_share, out_of_range=health.out_of_range_share,
        profile_min=health.profile_min, profile=decoder.profile, used=decoder.used,
        silence_ns=int(health.silence_s * 1e9) or decoder.silence_ns,
    )  # fmt: skip


def _rules(config: RigConfig, streams: Streams) -> Rules:
    bins = config.bins
    return Rules(
        lateness_ns=int(bins.lateness_ms * 1e6),
        silence_ns=0 if streams.spikes.description.keep_alive else int(bins.silence_ms * 1e6),
        markers=bins.use_markers and streams.markers is not None,
        keep_alive=streams.spikes.description.keep_alive,
        longest_ns=int(bins.max_segment_s * 1e9),
        far_ns=int(FAR_S * 1e9),
    )


def _log(config: RigConfig, decoder: Decoder, streams: Streams, kind: str) -> RunLog:
    header = describe(
        decoder, rig=config.rig, source=kind, budget_ms=config.output.budget_ms,
        checkpoint=str(Path(config.checkpoint).resolve()), recording=config.score.recording,
        config=msgspec.to_builtins(config), versions=system.versions(),
        units=tuple(tuple(row) for row in unit_rows(streams.units)), utc_ns=time.time_ns() - now_ns(),
    )  # fmt: skip
    capacity = int(config.score.log_s * 1e9 / decoder.bin_ns)
    keep_ns = int((config.score.log_s + LOG_SLACK_S) * 1e9)
    log = RunLog(header, capacity, decoder.n_units, decoder.engine.layout.n_values, keep_ns)
    for name in config.input.behaviours:  # also those of which nothing comes
        log.expect(name)
    return log
