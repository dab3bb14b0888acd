"""Cost of a decoding step and of a full window on a GPU: ours against torch's best, and the floors, in one run.

`neds-rt bench kernels` runs it where there is a GPU; `python -m benchmarks.cost.kernels_gpu` runs it alone.
Every contender first has to say what the offline forward on the CPU says. Host to host is what a bin waits for: its
counts go up, its values come down. Device is the same launch between two events, without the host's wait.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.cost.gpu_contenders import GATE, NOTHING, WINDOW_BINS, Bench, Precision, Row
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import random_checkpoint, random_window, tokens
from benchmarks.cost.timing import now, paced, timed
from neds_core.files import whole

LAYERS = (5, 22)


def take_turns(rows: list[Row], seconds: float, paced_bins: int) -> None:
    """Host to host and on the device, a little of each row in turn; then each once every 20 ms."""
    events = [torch.cuda.Event(enable_timing=True) for _ in "ab"]
    for row in rows:
        for _ in range(20):
            row.call()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row in rows:
            for _ in range(20):
                row.took["host"].append(timed(row.call))
            if row.launch is None:
                continue
            for _ in range(20):
                torch.cuda.synchronize()
                events[0].record()
                row.launch()
                events[1].record()
                torch.cuda.synchronize()
                row.took["device"].append(events[0].elapsed_time(events[1]))
    for row in rows:
        row.took["paced"] += paced(row.call, paced_bins)


def floors(device: torch.device) -> dict[str, float]:
    """What this GPU does at most: copies, products, and an empty launch from host to host."""
    big = torch.empty(1 << 28, dtype=torch.float32, device=device)
    other = torch.empty_like(big)
    out = {"copy_TB_s": 2 * big.nbytes / _best(lambda: other.copy_(big)) * 1e-9}
    for name, dtype, precision in (
        ("bfloat16", torch.bfloat16, "float32"),
        ("tf32", torch.float32, "tf32"),
        ("float32", torch.float32, "float32"),
    ):
        n = 8192 if name != "float32" else 4096
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in "ab")
        with Precision(precision):
            out[f"{name}_TFLOP_s"] = 2 * n**3 / _best(lambda a=a, b=b: a @ b) * 1e-9
    one = torch.zeros(1, device=device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one.add_(1.0)

    def launch() -> None:
        graph.replay()
        torch.cuda.current_stream().synchronize()

    out["one_kernel_host_to_host_ms"] = float(np.median([timed(launch) for _ in range(500)]))
    return {name: round(value, 4) for name, value in out.items()}


def _best(call: Callable[[], object], n: int = 10) -> float:
    """Median ms of an operation that fills the GPU."""
    events = [torch.cuda.Event(enable_timing=True) for _ in "ab"]
    took = []
    for _ in range(n + 3):
        events[0].record()
        call()
        events[1].record()
        torch.cuda.synchronize()
        took.append(events[0].elapsed_time(events[1]))
    return float(np.median(took[3:]))


def headline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each case, clock and precision: ours at p50, the best peer's, and how many times longer the peer takes."""
    out: dict[str, Any] = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        for precision in GATE:
            mine = [r for r in rows if r["case"] == case and r["precision"] == precision and "device" in r["ms"]]
            ours, peers = ([r for r in mine if r["ours"] == side] for side in (True, False))
            if ours and peers:
                found = {}
                for clock in ("host", "paced", "device"):
                    best, rival = (min(side, key=lambda r: r["ms"][clock]["p50"]) for side in (ours, peers))
                    mine_ms, their_ms = (r["ms"][clock]["p50"] for r in (best, rival))
                    found[clock] = {
                        "ours": best["name"], "p50_ms": mine_ms, "best_peer": rival["name"], "peer_p50_ms": their_ms,
                        "times": round(their_ms / mine_ms, 2),
                    }  # fmt: skip
                out[f"{case}, {precision}"] = found
    return out


def run(quick: bool, device: torch.device, searched: str = "", out: Path | None = None) -> dict[str, Any]:
    """All rows, floors and the headline; `out` is written after each case. quick: nothing is searched for."""
    torch.set_num_threads(1)
    bench = Bench(device, tokens(Size(), 2 * Size().band + 7), NOTHING if quick else searched)
    result: dict[str, Any] = {
        "created": now(),
        "machine": machine.describe() | {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda},
        "quick": quick,
        "size": asdict(Size()) | {"window_tokens": 5 * WINDOW_BINS},
        "gate": GATE,
        "floors": floors(device),
        "headline": {},
        "left_out": bench.left_out,
        "rows": [],
    }
    for layers in LAYERS:
        for case in ("stream", "window"):
            if case == "stream":
                rows = bench.stream(layers, random_checkpoint(Size(layers=layers)))
            else:
                rows = bench.window(layers, random_window(layers))
            take_turns(rows, 2.0 if quick else 5.0, 50)
            result["rows"] += [row.json() for row in rows]
            result["headline"] = headline(result["rows"])
            if out:
                with whole(out) as partial:
                    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The rows in words."""
    out = [
        f"{result['machine']['gpu']}; ms: host to host p50, p99, paced p50, p99, on the device p50",
        str(result["floors"]),
    ]
    for row in result["rows"]:
        ms = row["ms"]
        device = f"{ms['device']['p50']:9.4f}" if "device" in ms else ""
        out.append(
            f"{row['case']:18} {row['name']:44} {row['precision']:9} {ms['host']['p50']:9.4f} {ms['host']['p99']:9.4f} "
            f"{ms['paced']['p50']:9.4f} {ms['paced']['p99']:9.4f} {device}"
        )
    for case, found in result["headline"].items():
        each = ", ".join(
            f"{clock} {f['times']} ({f['p50_ms']} against {f['peer_p50_ms']})" for clock, f in found.items()
        )
        out.append(f"{case}: best peer / ours: {each}")
    return out


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="cost of a step and of a window on a GPU")
    parser.add_argument("--quick", action="store_true", help="without torch.compile, which searches for minutes")
    parser.add_argument(
        "--searched", default="", help="regular expression of 'case, attention, precision' to search for"
    )
    parser.add_argument("--out", type=Path, help="JSON file, written after each case")
    given = parser.parse_args()
    print("\n".join(lines(run(given.quick, torch.device("cuda"), given.searched, given.out))))


if __name__ == "__main__":
    main()
