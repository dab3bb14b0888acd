"""The summary in words, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from neds_core.checkpoint.judged import Verdict
from neds_core.scores import judging
from runtime.core.binning import COUNTERS
from runtime.core.engine import BROUGHT, DECODERS
from runtime.core.run_log import LOG_FULL
from runtime.scoring.points import MOVING_PX_S

LATENCIES = {
    "edge_to_pub_ms": "bin edge to published",
    "edge_to_pub_decoded_ms": "  bins with values",
    "wait_ms": "  bin edge to wake-up",
    "infer_ms": "  engine step",
    "send_ms": "  send",
    "age_ms": "newest spike to send",
    "source_delay_ms": "spike to its arrival",
}


SHOWN = ("tokens_", *(f"spikes_{name}" for name in COUNTERS), "deadline_misses")  # counters that have a line


def number(value: Any, digits: int = 3) -> str:
    """A score, "-" where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(pair: Any, digits: int = 3, unbroken: bool = False) -> str:
    """An interval, or why there is none. unbroken: the recording has no trials."""
    if pair is None or pair[0] is None:
        return "too short for intervals" if unbroken else "too few trials"
    return f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def lines(summary: dict[str, Any]) -> list[str]:
    """Lines of the printed summary of a run (`runtime.scoring.summary.build`)."""
    out = [f"{summary['source'].upper()}  {summary['decoder']} on {summary['engine']}, model {summary['model']}", ""]
    traces = {k: v for k, v in summary["outputs"].items() if "mean_r2" in v}
    unbroken = bool(traces) and all(row.get("r2_about_mean_trial") is None for row in traces.values())
    out += _traces(traces, unbroken)
    out += [
        _gains(name, row, unbroken) if "ridge_r2" in row else f"{name:24} {_largest(row['max_abs_error'], row)}"
        for name, row in traces.items()
    ]
    out += [f"{name:24} {_covers(row['sd'])}" for name, row in traces.items() if "sd" in row]
    out += [*judging.lines(msgspec.convert(summary["recommended"], dict[str, Verdict])), *summary["ahead"]]
    if summary["stopped_by"] == "signal":
        out.append("not scored: a signal ended the run; end it with --seconds to have it scored")
    for name, row in summary["outputs"].items():
        if name not in traces:
            out += _other(name, row, unbroken)
    return [*out, "", *_latencies(summary), *_counts(summary)]


def _traces(traces: dict[str, Any], unbroken: bool) -> Iterator[str]:
    """The table of the traces."""
    if not traces:
        return
    limits, mean = (23, "mean of training") if unbroken else (16, "trial avg")
    heads = " ".join(f"{decoder:>7}" for decoder in DECODERS)
    yield f"{'output':24} {'R2':>7} {'95 % interval':>{limits}} {heads} {mean} {'lag ms':>7}"
    for name, row in traces.items():
        each = " ".join(f"{number(row.get(f'{decoder}_r2')):>7}" for decoder in DECODERS)
        yield (
            f"{name:24} {row['r2']:7.3f} {span(row['ci95'], unbroken=unbroken):>{limits}} {each} "
            f"{row['mean_r2']:{len(mean)}.3f} {row['peak_lag_ms']:7.0f}"
        )
    yield "lag: above 0, what is decoded comes after what is measured"


def moving(unit: str) -> str:
    """Which bins of a point or an angle of a unit are called moving."""
    return f"moving (over {MOVING_PX_S:g} {unit}/s)"


def _covers(row: dict[str, Any]) -> str:
    """What intervals covered of the measured values."""
    ours, flat = ("/".join(f"{100 * share:.0f}" for share in row[k].values()) for k in ("covers", "constant_covers"))
    return f"{'/'.join(row['covers'])} % intervals of sd cover {ours} %, of one width {flat} %, n {row['n']}"


def _largest(error: float, row: dict[str, Any]) -> str:
    """How far a decoder that was brought was from what was measured, at most."""
    return f"largest error {error:.2g} {row['unit']}"


def _gains(name: str, row: dict[str, Any], unbroken: bool) -> str:
    """What NEDS and the blend gain over the ridge."""
    said = []
    for decoder in ("neds", "blend"):
        gain = row[f"{decoder}_minus_ridge"]
        said.append(f"{decoder} minus ridge {gain['value']:+.3f} {_between(gain, unbroken)}")
    return f"{name:24} {', '.join(said)}"


def _latencies(summary: dict[str, Any]) -> list[str]:
    """A table of every latency in ms, and the missed deadlines."""
    columns = ("p50", "p90", "p99", "p99.9", "max")
    out = [f"{'latency, ms':24}" + "".join(f"{name:>9}" for name in columns)]
    for key, what in LATENCIES.items():
        row = summary[key]
        out.append(f"{what:24}" + "".join(f"{number(row[name], 2):>9}" for name in columns))
    causes = ", ".join(f"{name} {n}" for name, n in summary["miss_causes"].items() if n)
    return [*out, f"deadline misses {summary['deadline_misses']}{f' ({causes})' if causes else ''}", ""]


def _counts(summary: dict[str, Any]) -> list[str]:
    """Conservation, exactness, and how the run went."""
    exact, difference = summary["streamed_vs_offline_max_abs"], summary["counts_vs_recording_diff"]
    why = f": {summary['counts_vs_recording_why']}" if difference else ""
    others = {k: n for k, n in summary["counters"].items() if n and not k.startswith(SHOWN)}
    log = (
        [f"log holds the first {summary['log_s']:g} s of {summary['run_s']:g} s; scores cover that part (score.log_s)"]
        if summary["log_full"]
        else []
    )
    return [
        "tokens  " + "  ".join(f"{k} {v}" for k, v in summary["tokens"].items()),
        "spikes  " + "  ".join(f"{k} {v}" for k, v in summary["spikes"].items()),
        f"streamed vs offline  {'not compared' if exact is None else f'{exact:.1e} at most, in z-scores'}",
        f"counts vs recording  {'not compared' if difference is None else f'{difference} spikes differ{why}'}",
        *([f"other   {'  '.join(f'{k.replace(chr(95), chr(32))} {n}' for k, n in others.items())}"] if others else []),
        *log,
        *(_exchange(each, summary) for each in summary["exchanges"]),
        *_events(summary),
        f"ended by {summary['stopped_by']}; {summary['scheduling']}; CPU steal {summary['stolen_ms']:.0f} ms",
    ]


def _exchange(row: dict[str, Any], summary: dict[str, Any]) -> str:
    """A decoder that took over."""
    what = f"{row['why']}{', forced' if row['forced'] else ''}"
    exact = row["streamed_vs_offline_max_abs"]
    own = "" if exact is None else f", streamed vs offline {exact:.1e}"
    return (
        f"from bin {row['token']} on {row['decoder']} of {row['model']} decoded ({what}{own}); scores are of "
        f"{summary['decoder']} of {summary['model']} alone"
    )


def _events(summary: dict[str, Any]) -> list[str]:
    """What happened that nobody may overlook, one line a kind; and why nothing at all was decoded."""
    found = [f"event   {k} {v['n']} x: {v['detail']}" for k, v in summary["events"].items() if k != LOG_FULL]
    tokens = summary["tokens"]
    if tokens["closed"] == tokens["idle"] > 0:
        found.append("nothing was decoded: no segment_start came that can be read; send it, or give --no-markers")
    return found


def _between(gain: dict[str, Any], unbroken: bool, digits: int = 3) -> str:
    """The interval of a gain."""
    return span((gain["low"], gain["high"]), digits, unbroken)


def _other(name: str, row: dict[str, Any], unbroken: bool) -> list[str]:
    """Lines of a class output or of a point."""
    if "contrasts" in row:
        each = row["contrasts"].items()
        return [line for contrast, inner in each for line in _other(f"{name} {contrast}", inner, unbroken)]
    if "balanced_accuracy" in row:
        if row["balanced_accuracy"] is None:
            return [f"{name:24} not scored: {row['null_reason']}"]
        return [
            f"{name:24} balanced accuracy {row['balanced_accuracy']:.3f}, logistic "
            f"{row['logistic_balanced_accuracy']:.3f}, chance {row['chance']:.2f}, n {row['n']}"
        ]
    if "published_median_error_all" in row:
        return [line for part in ("all", "moving") for line in _point(name, row, part, unbroken)]
    return [f"{name:24} not scored: {row.get('null_reason')}"]


def _point(name: str, row: dict[str, Any], part: str, unbroken: bool) -> Iterator[str]:
    """Median errors of a point or an angle, and what the decoders gain over the ridge: below 0, they are nearer."""
    each = {d: row.get(f"{d}_median_error_{part}") for d in ("neds", "ridge", "blend")}
    yield (
        f"{name:24} median error, {moving(row['unit']) if part == 'moving' else part}: "
        f"{number(row[f'published_median_error_{part}'], 1)} "
        f"{span(row[f'published_ci95_{part}'], 1, unbroken)} {row['unit']}, "
        f"{', '.join(f'{d} {number(error, 1)}' for d, error in each.items())}, n {row[f'n_{part}']}"
    )
    gains = {d: gain for d in ("neds", "blend") if (gain := row.get(f"{d}_minus_ridge_{part}"))}
    if gains:
        said = (f"{d} minus ridge {g['value']:+.1f} {_between(g, unbroken, 1)}" for d, g in gains.items())
        yield f"{'':24} {', '.join(said)} {row['unit']}"


def part_of(split: str) -> str:
    """What people call a part of a recording: "train", "validation", "test" or "all"."""
    return {"test": "held-out part", "all": "whole recording"}.get(split, f"{split} part")


def pooled_lines(result: dict[str, Any]) -> list[str]:
    """Lines of `neds-rt evaluate` (`runtime.scoring.score.pool`): R2 of each seed, gains paired by trial."""
    out = [f"{result['recording']}, {part_of(result['split'])}, {len(result['checkpoints'])} checkpoint(s)"]
    out += [result["note"], ""] if result["note"] else [""]
    ours_alone = [row["about_trial_average"] for row in result["traces"].values() if BROUGHT not in row]
    unbroken = bool(ours_alone) and not any(value is not None for values in ours_alone for value in values)
    for name, row in result["traces"].items():
        if BROUGHT in row:
            r2, error = " ".join(f"{v:.3f}" for v in row[BROUGHT]), max(row["max_abs_error"])
            out.append(f"{name}  {BROUGHT} {r2} {span(row['ci95'][0])}, {_largest(error, row)}, n {row['n'][0]}")
            continue
        ours, blend = (
            " ".join(
                f"{v:.3f} {span(ci95, unbroken=unbroken)}" for v, ci95 in zip(row[k], row[f"{k}_ci95"], strict=True)
            )
            for k in ("neds", "blend")
        )
        beyond = " ".join(number(v) for v in row["about_trial_average"])
        out += [
            f"{name}{f'   recommended: {chosen}' if (chosen := ' '.join(row['recommended'])) else ''}",
            f"  neds   {ours}{'' if unbroken else f'   R2 beyond the trial average {beyond}'}",
            f"  blend  {blend}",
            f"  ridge  {row['ridge']:.3f} {span(row['ridge_ci95'], unbroken=unbroken)}   "
            f"{'mean of training' if unbroken else 'trial average'} {number(row['trial_average'])}",
        ]
        out += [f"  {_covers(each)}" for each in row["sd"]]
        for decoder in ("neds", "blend"):
            gain = row[f"{decoder}_minus_ridge"]
            out.append(f"  {decoder} minus ridge  {gain['value']:+.3f} {_between(gain, unbroken)}")
    out += result["ahead"]
    for name, rows in result["other"].items():
        out += dict.fromkeys(line for row in rows for line in _other(name, row, unbroken))  # seeds often say the same
    exact = result["streamed_vs_offline_max_abs"]
    out.append(f"streamed vs offline  {'not compared' if exact is None else f'{exact:.1e} at most, in z-scores'}")
    return out


def task_lines(result: dict[str, Any]) -> list[str]:
    """Lines of `neds-rt evaluate --task encode`, `within` or `cross` (`neds_core.scores.tasks`)."""
    out = [
        f"{result['recording']}, held-out part, {result['task']}, {len(result['checkpoints'])} checkpoint(s)",
        f"{result['units']} units above 2 Hz in training, {result['spikes']} spikes, {result['trials']} trials",
        "",
        f"{'bits/spike':28} {'pooled':>7} {'95 % interval':>16} {'unit mean':>10} {'vs test mean':>13}",
    ]
    rows = {"training mean": [result["training_mean"]], "trial average": [result["trial_average"]]}
    rows |= {name: each for name, each in result["scores"].items() if "bits_per_spike" in each[0]}
    for name, each in rows.items():
        out += [
            f"{name:28} {row['bits_per_spike']:7.3f} {span(row['ci95']):>16} {row['mean_over_units']:10.3f} "
            f"{row['against_test_mean']:13.3f}"
            for row in each
        ]
    for name, each in result["scores"].items():
        for row in each:
            if "r2" in row:
                out.append(f"{name:28} R2 {row['r2']:.3f} {span(row['ci95'])}")
            elif "balanced_accuracy" in row:
                out.append(f"{name:28} balanced accuracy {number(row['balanced_accuracy'])}, n {row['n']}")
    for name, gain in result["gains"].items():
        out.append(f"{name.replace('_', ' ')}  {gain['value']:+.3f} {span((gain['low'], gain['high']))} bits/spike")
    if result.get("left_out_because_inferred"):
        out.append(f"not shown: {', '.join(result['left_out_because_inferred'])} (labels inferred from spikes)")
    return out
