"""Cost of a decoding step and of a full window on a GPU: ours against torch's best, and the floors, in one run.

`neds-rt bench kernels` runs it where there is a GPU; `python -m benchmarks.cost.kernels_gpu` runs it alone.
Every contender first has to say what the offline forward on the CPU says. Host to host is what a bin waits for: its
counts go up, its values come down. Device is the same launch between two events, without the host's wait.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.cost.full_forward import PERCENTILES
from benchmarks.cost.gpu_peers import TorchStep, TorchWindow
from benchmarks.cost.kernel_sweep import Size
from neds_core.checkpoint import Checkpoint
from runtime.core.values import Token
from runtime.engines.cuda_stream import CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine
from runtime.engines.stream import StreamEngine

GATE = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 1e-1}  # z-scores and probabilities, largest difference from float32
LAYERS = (5, 22)
WINDOW_BINS = 100
BIN_S = 0.02
NOTHING = "$^"  # matches no name


@dataclass(slots=True)
class Row:
    """One contender: `call` from host to host, `launch` on the device alone, and how long each took, ms."""

    case: str
    name: str
    precision: str
    call: Callable[[], object]
    launch: Callable[[], None] | None
    ours: bool
    max_abs: float
    took: dict[str, list[float]] = field(default_factory=lambda: {"host": [], "paced": [], "device": []})

    def json(self) -> dict[str, Any]:
        times = {
            kind: {n: round(float(np.percentile(t, p)), 4) for n, p in PERCENTILES.items()} | {"n": len(t)}
            for kind, t in self.took.items()
            if t
        }
        return {
            "case": self.case, "name": self.name, "precision": self.precision, "ours": self.ours,
            "max_abs_vs_offline": float(f"{self.max_abs:.2e}"), "ms": times,
        }  # fmt: skip


class Precision:
    """Products of float32 as they are, or in TF32, while it lasts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision("highest")


Maker = tuple[str, bool, str, Callable[[], Any]]  # precision, whether ours, and what torch.compile has to search, if it


@dataclass(slots=True)
class Bench:
    """What the rows have in common. searched: a regular expression of what torch.compile is asked to search for."""

    device: torch.device
    tokens: list[Token]
    searched: str
    left_out: list[str] = field(default_factory=list)

    def stream(self, layers: int, checkpoint: Checkpoint) -> list[Row]:
        """The KV step of every contender, each held to the offline forward, and ours on the CPU."""
        device = self.device
        makers: list[Maker] = [
            ("float32", True, "", lambda: CudaStreamEngine(checkpoint, device=device, fused=True)),
            ("float32", True, "", lambda: CudaStreamEngine(checkpoint, device=device, fused=False)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "eager", True, device)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "graph", True, device)),
            ("float32", False, "", lambda: TorchStep(checkpoint, "graph", False, device)),
            ("float32", False, "matmul", lambda: TorchStep(checkpoint, "compiled", False, device)),
            ("float32", False, "SDPA", lambda: TorchStep(checkpoint, "compiled", True, device)),
        ]
        n, cpu = len(self.tokens), StreamEngine(checkpoint)
        counts = np.stack([t.counts for t in self.tokens])
        truth = cpu.offline(counts, np.ones(n, bool), np.full(n, -1), np.arange(n) == 0)
        case = f"stream, {layers} layers"
        rows = self._rows(case, makers, self._streamed, truth, self._turns)
        return [*rows, Row(case, "CPU, one thread", "float32", self._turns(cpu), None, False, 0.0)]

    def window(self, layers: int, checkpoint: Checkpoint) -> list[Row]:
        """The whole window of every contender; at the window's last place, all bins valid."""
        single, half, device = torch.float32, torch.bfloat16, self.device
        makers: list[Maker] = [
            ("float32", True, "", lambda: CudaWindowEngine(checkpoint, device)),
            ("tf32", True, "", lambda: CudaWindowEngine(checkpoint, device)),
            ("bfloat16", True, "", lambda: CudaWindowEngine(checkpoint, device, dtype=half)),
        ]
        forms = (
            ("float32", "eager", "any", single), ("float32", "graph", "efficient", single),
            ("float32", "graph", "math", single), ("tf32", "graph", "efficient", single),
            ("bfloat16", "graph", "flash", half), ("bfloat16", "graph", "cudnn", half),
            ("bfloat16", "graph", "efficient", half), ("float32", "compiled", "any", single),
            ("bfloat16", "compiled", "any", half), ("tf32", "compiled", "any", single),
            ("bfloat16", "compiled", "flex", half),
        )  # fmt: skip
        makers += [
            (
                p,
                False,
                attention if mode == "compiled" else "",
                lambda m=mode, a=attention, d=d: TorchWindow(checkpoint, m, a, d, device),
            )
            for p, mode, attention, d in forms
        ]
        cpu = CudaWindowEngine(checkpoint, torch.device("cpu"))
        counts = np.stack([t.counts for t in self.tokens[:WINDOW_BINS]]).astype(np.float32)
        cpu.window[0], cpu.live[:] = torch.from_numpy(counts), True
        cpu._decode(WINDOW_BINS - 1, self.tokens[WINDOW_BINS - 1])
        return list(self._rows(f"window, {layers} layers", makers, self._filled, cpu.values, _last))

    def _rows(
        self, case: str, makers: list[Maker], tell: Callable[[Any], np.ndarray], truth: np.ndarray,
        call: Callable[[Any], Callable[[], object]],
    ) -> Iterator[Row]:  # fmt: skip
        """Contenders that are made, right and ready; one that is not says so in a line and is left out."""
        for precision, ours, searches, make in makers:
            if searches and not re.search(self.searched, f"{case}, {searches}, {precision}"):
                continue
            began = time.monotonic()
            with Precision(precision):
                try:
                    engine = make()
                    error = float(np.abs(tell(engine) - truth).max())
                except Exception as problem:  # a backend that this GPU or this torch lacks
                    self._leave(f"{case}, {precision}: {type(problem).__name__}: {str(problem).splitlines()[0][:150]}")
                    continue
            if not error <= GATE[precision]:
                self._leave(f"{case}, {engine.name}, {precision}: differs by {error:.1e}")
                continue
            print(f"{case}, {engine.name}, {precision}: {error:.1e}, {time.monotonic() - began:.0f} s", flush=True)
            yield Row(case, engine.name, precision, call(engine), engine.run.launch, ours, error)

    def _leave(self, why: str) -> None:
        self.left_out.append(why)
        print(f"left out: {why}", flush=True)

    def _streamed(self, engine: Any) -> np.ndarray:
        engine.reset()
        return np.stack([engine.step(t).copy() for t in self.tokens])

    def _filled(self, engine: Any) -> np.ndarray:
        """What is said at the last place of a window that these bins have filled."""
        engine.reset()
        engine.answer.on_host.fill_(torch.nan)
        for at in range(WINDOW_BINS):
            engine._decode(at, self.tokens[at])
        return engine.values.copy()

    def _turns(self, engine: Any) -> Callable[[], object]:
        at = 0

        def call() -> None:
            nonlocal at
            engine.step(self.tokens[at])
            at = (at + 1) % len(self.tokens)

        return call


def _last(engine: Any) -> Callable[[], object]:
    token = Token(0, 0, np.ones(len(engine.checkpoint.units), np.uint16), valid=True)
    return lambda: engine._decode(WINDOW_BINS - 1, token)


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
                row.took["host"].append(_timed(row.call))
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
        due = time.perf_counter()
        for _ in range(paced_bins):
            due += BIN_S
            time.sleep(max(0.0, due - time.perf_counter()))
            row.took["paced"].append(_timed(row.call))


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) * 1e-6


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

    out["one_kernel_host_to_host_ms"] = float(np.median([_timed(launch) for _ in range(500)]))
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
    from benchmarks.cost.kernels import random_checkpoint, random_window, tokens

    torch.set_num_threads(1)
    bench = Bench(device, tokens(Size(), 2 * Size().band + 7), NOTHING if quick else searched)
    result: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
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
                out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
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
