"""`neds-rt check`: load everything, listen for a while, and print the plan before an animal is on the rig."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from neds_core.checkpoint import Checkpoint
    from runtime.config import RigConfig
    from runtime.io.lsl_inlets import Inlet, SpikeInlet
    from runtime.io.streams import Streams

ALLOWANCE_SHARE = 99.9  # percent of spikes that the recommended allowance lets in
POLL_S = 0.002  # how far apart markers and behaviours are looked at: the resolution of their delays


def check(
    rig: Annotated[Path, typer.Argument(help="RIG.toml")],
    seconds: Annotated[float, typer.Option(help="how long to listen")] = 5.0,
    allow_replay: Annotated[bool, typer.Option(help="accept streams of neds-rt play")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Check a rig: streams, units, clocks, allowance, engine, outputs, budget."""
    import msgspec
    import torch

    from neds_core import checkpoint as checkpoints
    from runtime import config as rigs
    from runtime.engines import create as engines, prepare
    from runtime.io import system as priority
    from runtime.io.lsl_resolve import REPLAY_SESSION, configure
    from runtime.io.publish import Publisher
    from runtime.io.streams import find_streams

    rigs.check_seconds("--seconds", seconds)
    config = rigs.load(rig)
    session = REPLAY_SESSION if allow_replay else config.lsl.session_id
    configure(session, config.lsl.resolve_scope, config.lsl.known_peers)
    checkpoint = checkpoints.load(Path(config.checkpoint))
    engine = engines.create(checkpoint, config.engine.decoder, config.engine.weights, config.engine.device)
    if not (config.bins.use_markers and config.input.markers):
        prepare.refuse_endless(engine)
    torch.set_num_threads(1)  # as in a run: its pace is measured
    step_ms = prepare.warm_up(engine, len(checkpoint.units))
    scheduling = priority.raise_priority()  # as in a run: so are the delays
    with ExitStack() as stack:
        stack.callback(priority.lower_priority)
        stack.enter_context(Publisher(config.output, config.rig))  # the ports are free
        streams = find_streams(config, checkpoint.header.unit_map_sha, allow_replay)
        for inlet in streams.all():
            inlet.clock.start()
        for inlet in streams.all():
            stack.enter_context(inlet)
        units_seen = _listen(streams, seconds)
        plan = _plan(config, checkpoint, engine.name)
        plan["scheduling"] = scheduling
        plan["step_ms"], plan["too_slow"] = step_ms, prepare.too_slow(engine, step_ms, checkpoint.header.bin_ns)
        plan["spikes"] = _spikes(streams.spikes, units_seen, config.bins.lateness_ms)
        plan["markers"] = _arrivals(streams.markers) if streams.markers is not None else None
        plan["behaviours"] = {name: _arrivals(inlet) for name, inlet in streams.behaviours.items()}
    if json:
        print(msgspec.json.encode(plan).decode())
    else:
        print("\n".join(_lines(plan)))


def _plan(config: RigConfig, checkpoint: Checkpoint, engine: str) -> dict[str, Any]:
    """What does not depend on the streams."""
    model, header = checkpoint.header.config.model, checkpoint.header
    field = model.receptive_field
    return {
        "rig": config.rig,
        "model": header.name,
        "model_sha": checkpoint.sha,
        "engine": engine,
        "decoder": config.engine.decoder,
        "clocked": checkpoint.clocked,
        "outputs": [
            {"name": s.name, "kind": s.kind, "unit": s.unit, "sign": s.sign, "filter": s.filter, "labels": s.labels}
            for s in header.specs
        ],
        "units": {"expected": len(checkpoint.units), "kept": int(checkpoint.scalers.kept.sum())},
        "receptive_field_bins": field,
        "receptive_field_s": field * header.bin_ns * 1e-9,
        "budget_ms": config.output.budget_ms,
        "test_looks": header.record.test_looks,
    }


def _listen(streams: Streams, seconds: float) -> int:
    """Take in every stream for a while; returns how many units fired."""
    import numpy as np

    seen = np.zeros(0, np.int32)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = np.union1d(seen, streams.spikes.pull(POLL_S)["unit"])
        if streams.markers is not None:
            streams.markers.pull()
        for inlet in streams.behaviours.values():
            inlet.pull()
    return len(seen)


def _arrivals(inlet: Inlet) -> dict[str, Any]:
    """Who sends a stream, and arrival minus stamp of what came (negative: sent ahead of its time)."""
    import numpy as np

    delays = inlet.delays.kept()
    quantiles = (("p50", 50), ("p99", 99), ("max", 100)) if len(delays) else ()
    return {
        "stream": inlet.info.name(),
        "host": inlet.info.hostname(),
        "received": inlet.delays.n,
        "arrival_minus_stamp_ms": {name: float(np.percentile(delays, q)) for name, q in quantiles},
        "clock_offset_ms": inlet.clock.offset_ns * 1e-6,
    }


def _spikes(inlet: SpikeInlet, units_seen: int, lateness_ms: float) -> dict[str, Any]:
    """The spike stream: its arrivals, the share late at the configured allowance, and the allowance to set."""
    import numpy as np

    delays = inlet.delays.kept()
    return _arrivals(inlet) | {
        "source": inlet.description.source,
        "keep_alive": inlet.description.keep_alive,
        "received": inlet.received,
        "lost_upstream": inlet.lost_upstream,
        "units_seen": units_seen,
        "share_late": float((delays > lateness_ms).mean()) if len(delays) else None,
        "lateness_ms": lateness_ms,
        "recommended_lateness_ms": float(np.ceil(np.percentile(delays, ALLOWANCE_SHARE))) if len(delays) else None,
    }


def _lines(plan: dict[str, Any]) -> list[str]:
    """The plan in words."""
    s = plan["spikes"]
    out = [
        f"rig {plan['rig']}: {plan['decoder']} on {plan['engine']}, model {plan['model']} ({plan['model_sha'][:12]})",
        f"receptive field {plan['receptive_field_bins']} bins = {plan['receptive_field_s']:.2f} s, "
        f"{'clocked' if plan['clocked'] else 'phase-free'}, budget {plan['budget_ms']:g} ms",
        f"scheduling {plan['scheduling']}",
        f"units {plan['units']['expected']} in the map, {plan['units']['kept']} used by the model, "
        f"{s['units_seen']} fired",
        f"spikes {s['stream']} on {s['host']} ({s['source']}): {s['received']} received, "
        f"{s['lost_upstream']} lost upstream, clock offset {s['clock_offset_ms']:.3f} ms",
    ]
    if plan["too_slow"]:
        out.insert(1, plan["too_slow"])
    if s["arrival_minus_stamp_ms"]:
        out.append(
            f"spikes {_delay(s)}; "
            f"{100 * s['share_late']:.2f} % later than bins.lateness_ms = {s['lateness_ms']:g}; "
            f"{s['recommended_lateness_ms']:g} would keep {ALLOWANCE_SHARE:g} %"
        )
    else:
        out.append("no spikes arrived: start the sender, or listen longer with --seconds")
    others = {"markers": plan["markers"]} if plan["markers"] else {}
    for name, row in (others | plan["behaviours"]).items():
        what = _delay(row) if row["received"] else "none arrived"
        out.append(f"{name} {row['stream']} on {row['host']}: {row['received']} received, {what}")
    for o in plan["outputs"]:
        out.append(
            f"output {o['name']} [{o['unit'] or o['kind']}] {o['sign']}; "
            f"filter: {o['filter'] or 'none stated'}; labels {o['labels']}"
        )
    return out


def _delay(row: dict[str, Any]) -> str:
    delay = row["arrival_minus_stamp_ms"]
    return f"arrival minus stamp p50 {delay['p50']:.2f}, p99 {delay['p99']:.2f}, max {delay['max']:.2f} ms"
