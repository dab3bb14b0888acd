"""What the options of `neds-rt bench latency` ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neds_core.errors import ConfigError

if TYPE_CHECKING:
    from benchmarks.latency.bench import Asked
    from runtime.cli.bench.latency import Options

SWEEPS = ("units", "rate", "bins")


def check(given: Options) -> None:
    """Refuse options that cannot be meant, before anything is measured. Raises `ConfigError`."""
    from runtime.config import check_seconds

    check_seconds("--seconds", given.seconds)
    if given.out is not None and given.out.suffix != ".json":
        raise ConfigError(f"--out {given.out}: is no .json; give FILE.json, its page and pictures lie beside it")
    if given.out is not None and not given.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {given.out}: its folder does not exist; make it first")
    if given.sweep is not None and given.sweep not in SWEEPS:
        raise ConfigError(f"--sweep {given.sweep!r} is not known; choose one of {', '.join(SWEEPS)}")
    if given.sweep is not None and (given.saturated or given.budget is not None):
        raise ConfigError("--sweep takes neither --saturated nor --budget; leave them out")
    if given.saturated and given.budget is not None:
        raise ConfigError("--budget is of edge_to_pub_ms, which --saturated does not have; leave one of them out")
    if given.units is not None and not given.rate:
        raise ConfigError(f"--units {given.units}: a made-up model needs made-up spikes; add --rate")
    if given.units is not None and given.checkpoint is not None:
        raise ConfigError("--units and --checkpoint were both given; leave one of them out")


def asked(given: Options) -> Asked:
    """The measurement of one run. Raises `ConfigError` where the options do not fit."""
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
    return Asked(config, load, given.seconds, given.warm_up, checkpoint=made)
