"""The rows of the table: what runs, at which size, and whether it may be timed at all."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.cost.full_forward import GATE_FLOAT32
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import PUBLISHED as PUBLISHED_SPECS, for_a_run
from benchmarks.latency.peers import decoders
from benchmarks.latency.peers.decoders import Decoder, Files
from benchmarks.latency.peers.window import Recompute
from kernels.cpu.pack import Precision
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from runtime.core.values import Token
from runtime.engines import create as engines

PUBLISHED, DEMO, NO_SIZE = "published", "demo", ""
FLOAT32 = "float32"
OURS, LOOP, EZMSG = "run", "loop", "ezmsg"
FIRST_BINS, THEN_BINS, AT_ONCE, PAST_BINS = 12, 4, 3, 5  # of the check: a trial, another, at once, past the window


class Key(NamedTuple):
    """What tells a row from all others: see `Row`."""

    size: str
    program: str
    decoder: str
    weights: Precision = FLOAT32


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. program: `neds-rt run`, the plain loop, or the ezmsg pipeline. decoder: of ours a name of
    rig.toml, else one of `decoders`. size: '' = it has none of its own, and stands in both tables. weights: how ours
    stores them."""

    name: str
    program: str
    decoder: str
    size: str = NO_SIZE
    weights: Precision = FLOAT32

    @property
    def key(self) -> Key:
        return Key(self.size, self.program, self.decoder, self.weights)

    @property
    def equal(self) -> bool:
        """Whether it has to give the values of our engine, within what its weights' rounding may cost."""
        return self.decoder in decoders.EQUAL or self.named(OURS, "neds")

    def named(self, program: str, decoder: str) -> bool:
        """Whether it is that."""
        return (self.program, self.decoder) == (program, decoder)


SIZED = (
    Row("ours", OURS, "neds"),
    Row("torch KV cache", LOOP, "kv"),
    Row("full forward, torch eager", LOOP, "eager"),
    Row("full forward, ONNX Runtime", LOOP, "onnx"),
    Row("full forward, torch.compile", LOOP, "compile"),
    Row("ezmsg, torch KV cache", EZMSG, "kv"),
)
SMALLER: tuple[Precision, ...] = ("bfloat16", "int8")  # weights of ours at the published size, beside float32
ROWS = (
    *(replace(row, size=PUBLISHED) for row in SIZED),
    *(Row(f"ours, {weights} weights", OURS, "neds", PUBLISHED, weights) for weights in SMALLER),
    *(replace(row, size=DEMO) for row in SIZED),
    Row("ours, as shipped", OURS, "recommended", DEMO),
    Row("GRU, torch", LOOP, "gru"),
    Row("Kalman filter, numpy", LOOP, "kalman"),
    Row("ridge, numpy", LOOP, "ridge"),
    Row("ezmsg, ridge, numpy", EZMSG, "ridge"),
)


def absent(row: Row) -> str:
    """Why a row cannot be run here, '' = it can, as far as its program goes."""
    if row.program == EZMSG and any(not _installed(name) for name in ("ezmsg.core", "ezmsg.lsl", "ezmsg.zmq")):
        return "not installed: pip install 'neds-rt[peers]'"
    return ""


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def models(folder: Path, demo: Checkpoint, demo_path: Path, sizes: set[str]) -> dict[str, Path]:
    """The checkpoint of each size. The published one has random weights and the demo's units."""
    found = {DEMO: demo_path, NO_SIZE: demo_path}
    if PUBLISHED in sizes:
        made = for_a_run(Size(units=len(demo.units)), demo.header.bin_ns, PUBLISHED_SPECS)
        header = msgspec.structs.replace(made.header, unit_map_sha=demo.units.sha256)
        found[PUBLISHED] = folder / "published.safetensors"
        checkpoints.save(replace(made, header=header, units=demo.units), found[PUBLISHED])
    return found


def check(made: Checkpoint, decoder: Decoder, session: Session) -> float:
    """The largest difference between a decoder and our engine, in z-scores and probabilities, on a recording's counts.

    A trial's first bins, a reset, some bins more and some at once; then a reset and more bins than a window holds, of
    which a window is held to our engine as reset at its first bin.
    """
    ours, at, worst = engines.create(made, "neds"), int(session.segments[0, 0]), 0.0
    for sizes in ([1] * FIRST_BINS, [1] * THEN_BINS + [AT_ONCE], [decoders.BINS - 1] + [1] * PAST_BINS):
        decoder.reset()
        begin = at
        for n in sizes:
            counts, at = _bins(session, at, at + n), at + n
            first = max(begin, at - decoders.BINS) if isinstance(decoder, Recompute) else begin
            ours.reset()
            for row in _bins(session, first, at):
                ours.step(Token(0, 0, row, valid=True))
            apart = float(np.max(np.abs(ours.values - decoder.step(counts)) / ours.layout.scale))
            worst = max(worst, apart if np.isfinite(apart) else np.inf)
    return worst


def _bins(session: Session, begin: int, end: int) -> np.ndarray:
    """Counts (end - begin, U) of a recording that begins anew at its end."""
    return session.counts.take(range(begin, end), axis=0, mode="wrap").astype(np.uint16)


def judged(chosen: list[Row], at: dict[str, Path], folder: Path, session: Session) -> Iterator[tuple[Row, str, str]]:
    """Each row with why it is skipped and why it is wrong; '' = it is neither.

    A row that has to equal ours is first held to our engine, within `GATE_FLOAT32`.
    """
    known: dict[tuple[str, str], tuple[str, str]] = {}
    for row in chosen:
        if why := absent(row):
            yield row, why, ""
        elif row.decoder not in decoders.EQUAL:
            yield row, "", ""
        else:
            key = row.size, row.decoder
            if key not in known:
                known[key] = _judged(row, files_of(row, at, folder), session)
            yield row, *known[key]


def _judged(row: Row, files: Files, session: Session) -> tuple[str, str]:
    try:
        decoder = decoders.create(row.decoder, files, ())
    except ConfigError as error:
        return str(error), ""
    apart = check(checkpoints.load(Path(files.checkpoint)), decoder, session)
    return "", "" if apart <= GATE_FLOAT32 else f"off by {apart:.2e}, more than {GATE_FLOAT32:g}"


def files_of(row: Row, at: dict[str, Path], folder: Path) -> Files:
    """What a row's decoder needs. at: the checkpoint of each size. folder: of what was fitted and exported."""
    return Files(str(at[row.size]), str(folder), str(folder / f"{row.size}.onnx"))
