"""`neds-rt check`: load everything, listen for a while, and judge before an animal is on the rig."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli.output import emit, note

if TYPE_CHECKING:
    from neds_core.checkpoint import Checkpoint
    from runtime.config import RigConfig
    from runtime.core.engine import Decoder
    from runtime.io.lsl_inlets import Inlet
    from runtime.io.streams import Streams
    from runtime.live.listening import Heard
    from runtime.scoring.inspection import Verdict


def check(
    rig: Annotated[Path, typer.Argument(help="RIG.toml")],
    seconds: Annotated[float, typer.Option(help="how long to listen")] = 5.0,
    allow_replay: Annotated[bool, typer.Option(help="accept streams of neds-rt play")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object as the last line")] = False,
) -> None:
    """Check a rig: streams, units, clocks, allowance, engine, outputs, budget. GO, or NO-GO and exit code 3."""
    import torch

    from neds_core import checkpoint as checkpoints
    from runtime import config as rigs
    from runtime.core.engine import RECOMMENDED
    from runtime.engines import create as engines, prepare
    from runtime.io import system as priority
    from runtime.io.control import Control
    from runtime.io.lsl_resolve import REPLAY_SESSION, configure
    from runtime.io.publish import Publisher
    from runtime.io.streams import find_streams
    from runtime.live.listening import listen
    from runtime.live.wiring import make_pipeline

    rigs.check_seconds("--seconds", seconds)
    config = rigs.load(rig)
    session = REPLAY_SESSION if allow_replay else config.lsl.session_id
    configure(session, config.lsl.resolve_scope, config.lsl.known_peers)
    checkpoint = checkpoints.load(Path(config.checkpoint))
    decoder = engines.decoder(checkpoint, config.engine.decoder, config.engine.weights, config.engine.device)
    if not (config.bins.use_markers and config.input.markers):
        prepare.refuse_endless(decoder)
    torch.set_num_threads(1)  # as in a run: its pace is measured
    step_ms = prepare.warm_up(decoder.engine, len(checkpoint.units))
    scheduling = priority.raise_priority()  # as in a run: so are the delays
    priority.open_files(config.input.count)
    with ExitStack() as stack:
        stack.callback(priority.lower_priority)
        stack.enter_context(Publisher(config.output, config.rig))  # the ports are free
        if config.control.port is not None:
            stack.enter_context(Control(config.control.port))
        streams = find_streams(config, checkpoint.units, allow_replay)
        if config.engine.decoder == RECOMMENDED:
            note(engines.said(checkpoint))
        for inlet in streams.all():
            inlet.clock.start()
        for inlet in streams.all():
            stack.enter_context(inlet)
        heard = listen(streams, make_pipeline(config, decoder, streams), seconds)
        plan = _plan(config, checkpoint, decoder)
        plan |= {"scheduling": scheduling, "step_ms": step_ms}
        plan["too_slow"] = prepare.too_slow(decoder.engine, step_ms, checkpoint.header.bin_ns)
        plan |= _streams(streams, heard, config)
        verdicts = _judged(streams, heard, config, checkpoint)
    reasons = [f"{v.name}: {reason}" for v in verdicts for reason in v.reasons]
    plan["reasons"] = [*([plan["too_slow"]] if plan["too_slow"] else []), *reasons]
    plan["verdict"] = "NO-GO" if plan["reasons"] else "GO"
    plan["streams"] = [
        {"name": v.name, "verdict": "GO" if v.go else "NO-GO", "reasons": v.reasons, "notes": v.notes} for v in verdicts
    ]
    emit(plan, None if json else lambda: [*_lines(plan), *_verdict_lines(verdicts), plan["verdict"]], json)
    if plan["reasons"]:
        raise typer.Exit(3)


def _plan(config: RigConfig, checkpoint: Checkpoint, decoder: Decoder) -> dict[str, Any]:
    """What does not depend on the streams."""
    from neds_core.data import lead
    from runtime.engines import prepare

    model, header = checkpoint.header.config.model, checkpoint.header
    field = prepare.receptive_bins(checkpoint) if header.brought else model.receptive_field
    return {
        "rig": config.rig,
        "model": header.name,
        "model_sha": checkpoint.sha,
        "engine": decoder.engine.name,
        "decoder": decoder.name,
        "recommended": header.verdicts,
        "clocked": checkpoint.clocked,
        "outputs": [
            {
                "name": s.name,
                "kind": s.kind,
                "unit": s.unit,
                "sign": s.sign,
                "filter": s.filter,
                "labels": s.labels,
                "future_ms": s.future_ms,
                "lead_ms": s.lead_ms,
            }
            for s in header.specs
        ],
        "ahead": list(lead.lines(header.specs)),
        "units": {"expected": len(checkpoint.units), "kept": int(checkpoint.scalers.kept.sum())},
        "receptive_field_bins": field,
        "receptive_field_s": field * header.bin_ns * 1e-9,
        "budget_ms": config.output.budget_ms,
        "test_looks": header.record.test_looks,
    }


def _streams(streams: Streams, heard: Heard, config: RigConfig) -> dict[str, Any]:
    """What came of every stream, as numbers."""
    from runtime.scoring.inspection import allowance

    inlet, counters = streams.spikes, heard.counters
    found = allowance(inlet.delays.kept(), config)
    spikes = _arrivals(inlet) | {
        "source": inlet.description.source,
        "keep_alive": inlet.description.keep_alive,
        "received": inlet.received,
        "lost_upstream": inlet.lost_upstream,
        "units_seen": int((heard.fired > 0).sum()),
        "counters": counters,
        "share_late": counters["late"] / counters["received"] if counters["received"] else None,
        "lateness_ms": config.bins.lateness_ms,
        "recommended_lateness_ms": None if found is None else found["lateness_ms"],
        "recommended": found,
    }
    markers = streams.markers
    return {
        "spikes": spikes,
        "markers": None if markers is None else _arrivals(markers) | {"bad": markers.bad},
        "behaviours": {name: _arrivals(inlet) for name, inlet in streams.behaviours.items()},
    }


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


def _judged(streams: Streams, heard: Heard, config: RigConfig, checkpoint: Checkpoint) -> list[Verdict]:
    """The verdict on each stream."""
    import numpy as np

    from runtime.io.lsl_clock import now_ns
    from runtime.scoring import inspection as judge

    def stamps(inlet: Inlet) -> judge.Stamps:
        return judge.Stamps(inlet.delays.kept(), inlet.odd_stamp_s)

    clocks = judge.Clocks(now_ns() * 1e-9, time.time())
    s, markers, header = streams.spikes, streams.markers, checkpoint.header
    ids = tuple(int(uid) for uid in checkpoint.units.ids)
    spikes = judge.Spikes(
        s.info.name(), s.received, s.lost_upstream, heard.counters, stamps(s), heard.fired, heard.foreign, ids,
        heard.coarse, heard.unsaid / max(1, heard.closed) if s.description.keep_alive else 0.0, heard.fault,
        checkpoint.scalers.kept,
    )  # fmt: skip
    found = [judge.spikes(spikes, config, clocks)]
    if markers is not None:
        classes = {spec.name: spec.classes for spec in header.specs if spec.kind == "class"}
        received = markers.delays.n + (markers.bad if np.isfinite(markers.odd_stamp_s) else 0)
        told = judge.Markers(
            markers.info.name(), received, markers.bad, markers.last_bad, stamps(markers), heard.starts, heard.labels,
            heard.astray,
        )  # fmt: skip
        found.append(judge.markers(told, classes, clocks))
    for name, inlet in streams.behaviours.items():
        spec = next((spec for spec in header.specs if spec.name == name and spec.kind == "continuous"), None)
        if spec is None:
            found.append(judge.no_output(name, inlet.info.name(), sorted(header.mean)))
            continue
        regular, values = inlet.info.nominal_srate() > 0, np.array(heard.values[name], np.float64)
        told = judge.Trace(
            inlet.info.name(), values, stamps(inlet), header.mean[name], header.sd[name], spec.unit, regular
        )
        found.append(judge.trace(name, told, clocks))
    return found


def _lines(plan: dict[str, Any]) -> list[str]:
    """The plan in words."""
    from neds_core.scores import judging

    s = plan["spikes"]
    out = [
        f"rig {plan['rig']}: {plan['decoder']} on {plan['engine']}, model {plan['model']} ({plan['model_sha'][:12]})",
        f"receptive field {plan['receptive_field_bins']} bins = {plan['receptive_field_s']:.2f} s, "
        f"{'clocked' if plan['clocked'] else 'phase-free'}, budget {plan['budget_ms']:g} ms",
        f"scheduling {plan['scheduling']}",
        f"units {plan['units']['expected']} in the map, {plan['units']['kept']} used by the model, "
        f"{s['units_seen']} fired",
    ]
    if plan["too_slow"]:
        out.insert(1, plan["too_slow"])
    for name, row in ({"spikes": s, "markers": plan["markers"]} | plan["behaviours"]).items():
        if row and row["arrival_minus_stamp_ms"]:
            source = f" ({row['source']})" if "source" in row else ""
            out.append(
                f"{name} {row['stream']} on {row['host']}{source}: {_delay(row)}, "
                f"clock offset {row['clock_offset_ms']:.3f} ms"
            )
    if (least := s["recommended_lateness_ms"]) is not None:
        out.append(f"bins.lateness_ms {s['lateness_ms']:g} is set; {least:g} keeps the spikes that came just now")
    for o in plan["outputs"]:
        out.append(
            f"output {o['name']} [{o['unit'] or o['kind']}] {o['sign']}; "
            f"filter: {o['filter'] or 'none stated'}; labels {o['labels']}"
        )
    return [*out, *plan["ahead"], *judging.lines(plan["recommended"]), ""]


def _delay(row: dict[str, Any]) -> str:
    delay = row["arrival_minus_stamp_ms"]
    return f"arrival minus stamp p50 {delay['p50']:.2f}, p99 {delay['p99']:.2f}, max {delay['max']:.2f} ms"


def _verdict_lines(verdicts: list[Verdict]) -> list[str]:
    """One line for each stream: what came, and what to do about it."""
    return [f"{v.name}  {'GO' if v.go else 'NO-GO'}  {'; '.join((v.what, *v.reasons, *v.notes))}" for v in verdicts]
