"""The options of `neds-rt bench latency`, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from neds_core.errors import ConfigError
from runtime.cli.bench.options import Json

ALL, CONDITIONS = "all", "conditions"
SWEEPS = ("units", "rate", "bins", ALL, CONDITIONS)
SECONDS, SWEPT_S = 60.0, 10.0
OF_A_LOAD = ("hog", "normal_priority", "rate", "burst", "streams", "units", "decoder", "weights")  # options of one run


@dataclass(frozen=True, slots=True)
class Options:
    """Of `neds-rt bench latency`."""

    rig: Annotated[Path | None, typer.Argument(help="RIG.toml; none: the demo")] = None
    seconds: Annotated[
        float | None, typer.Option(help="length of the measurement, after the warm-up: 60; of each of several runs: 10")
    ] = None
    warm_up: Annotated[float, typer.Option(min=0.0, max=600.0, help="seconds at the start that count apart")] = 5.0
    launches: Annotated[
        int, typer.Option(min=1, max=100, help="processes are started anew so often, within --seconds")
    ] = 3
    saturated: Annotated[
        bool, typer.Option("--saturated", help="instead: one bin after the other, as fast as it goes, without LSL")
    ] = False
    checkpoint: Annotated[Path | None, typer.Option(help="another checkpoint than the rig's")] = None
    decoder: Annotated[str | None, typer.Option(help="neds, ridge, blend or recommended")] = None
    weights: Annotated[str | None, typer.Option(help="float32, bfloat16 or int8")] = None
    units: Annotated[
        int | None, typer.Option(min=1, max=5000, help="a model with random weights for so many units; needs --rate")
    ] = None
    rate: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="made-up spikes a second; 0: the rig's recording is played")
    ] = 0.0
    burst: Annotated[int, typer.Option(min=0, max=100_000, help="more spikes within 2 ms, once a second")] = 0
    push_ms: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="ms between two chunks of the sender, 0: a quarter of a bin")
    ] = 0.0
    streams: Annotated[
        int, typer.Option(min=0, max=4, help="1: spikes, 2: and markers, 3 and 4: and behaviours; 0: as the rig has")
    ] = 0
    hog: Annotated[
        list[str] | None, typer.Option(help="cpu, memory or disk: processes that take it beside the run; repeatable")
    ] = None
    normal_priority: Annotated[
        bool, typer.Option("--normal-priority", help="the loop without real-time scheduling and locked memory")
    ] = False
    budget: Annotated[
        str | None, typer.Option(help="a gate, such as p99=10ms,miss=1e-4 or p99=floor+1ms: exit 3 where it is broken")
    ] = None
    two_hosts: Annotated[
        bool, typer.Option("--two-hosts", help="instead: sender and loop on two hosts made of namespaces; needs root")
    ] = False
    sweep: Annotated[
        str | None, typer.Option(help="instead: short runs over units, rate, bins, all of them, or conditions")
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="FILE.json; beside it FILE.html, FILE.cdf.png and FILE.timeline.png")
    ] = None
    json: Json = False


def check(given: Options) -> None:
    """Refuse options that cannot be meant, before anything is measured. Raises `ConfigError`."""
    from benchmarks import report
    from benchmarks.latency import hogs
    from runtime.config import check_seconds

    hogs.check(given.hog or [])
    check_seconds("--seconds", seconds(given))
    report.check_path("--out", given.out)
    if given.sweep is not None and given.sweep not in SWEEPS:
        raise ConfigError(f"--sweep {given.sweep!r} is not known; choose one of {', '.join(SWEEPS)}")
    if given.sweep is not None and (given.saturated or given.budget is not None):
        raise ConfigError("--sweep takes neither --saturated nor --budget; leave them out")
    if given.sweep is not None and (one := [name for name in OF_A_LOAD if getattr(given, name)]):
        raise ConfigError(f"--sweep sets --{one[0].replace('_', '-')} itself; leave it out")
    if given.two_hosts and (given.saturated or given.budget is not None or given.sweep is not None):
        raise ConfigError("--two-hosts takes neither --saturated, --budget nor --sweep; leave them out")
    if given.saturated and (given.hog or given.normal_priority):
        raise ConfigError("--saturated takes neither --hog nor --normal-priority; leave them out")
    if given.saturated and given.budget is not None:
        raise ConfigError("--budget is of edge_to_pub_ms, which --saturated does not have; leave one of them out")
    if given.units is not None and not given.rate:
        raise ConfigError(f"--units {given.units}: a made-up model needs made-up spikes; add --rate")
    if given.units is not None and given.checkpoint is not None:
        raise ConfigError("--units and --checkpoint were both given; leave one of them out")


def several(given: Options) -> bool:
    """Whether short runs are compared, of one launch each."""
    return given.sweep is not None or given.two_hosts


def seconds(given: Options) -> float:
    """Of the measurement, or of each run of several."""
    if given.seconds is not None:
        return given.seconds
    return SWEPT_S if several(given) else SECONDS


def asked(given: Options) -> Any:
    """The measurement of one run, a `benchmarks.latency.bench.Asked`.

    Raises `ConfigError` where the options do not fit.
    """
    import msgspec

    from benchmarks.cost.kernel_sweep import Size
    from benchmarks.cost.random_models import for_a_run
    from benchmarks.latency.bench import Asked
    from benchmarks.latency.load import Load
    from runtime import config as rigs
    from runtime.cli.demo import demo

    config = rigs.load(given.rig if given.rig is not None else demo() / "rig.toml")
    engine = {name: v for name in ("decoder", "weights") if (v := getattr(given, name)) is not None}
    made = None
    if given.units is not None:
        made, engine = for_a_run(Size(units=given.units)), engine | {"decoder": "neds"}
    changed = msgspec.to_builtins(config.engine) | engine
    try:
        kept = msgspec.convert(changed, rigs.EngineConfig)
    except msgspec.ValidationError:
        raise ConfigError(f"--decoder or --weights is not known in {engine}; see docs/rig.md") from None
    config = msgspec.structs.replace(config, engine=kept)
    if given.checkpoint is not None:
        config = msgspec.structs.replace(config, checkpoint=str(given.checkpoint.absolute()))
    streams = given.streams or (2 if given.rate else 0)
    load = Load(rate=given.rate, burst=given.burst, push_ms=given.push_ms, streams=streams)
    return Asked(
        config, load, seconds(given), given.warm_up, 1 if several(given) else given.launches, checkpoint=made,
        hogs=tuple(given.hog or ()), normal_priority=given.normal_priority,
    )  # fmt: skip
