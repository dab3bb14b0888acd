"""One NEDS for many sessions: train it, keep it, and start a new session from its trunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from torch import Tensor

from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.tensors import check_content, read_tensors, write_tensors
from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data import scalers, session as sessions, store
from neds_core.data.session import BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError, ConfigError
from neds_core.files import beside, sha256
from neds_core.io import recording
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS
from neds_core.train import distributed, loop, sources
from neds_core.train.distributed import World
from neds_core.train.log import Log, Show, refuse_taken
from neds_core.train.loop import Fit, Plan
from neds_core.train.optim import owner
from neds_core.train.sources import Source
from neds_core.train.state import Resume

FORMAT = 1
KEY = "neds_rt_pretrained"
SIZES = (
    "attention", "tokenizer", "width", "layers", "heads", "mlp_ratio", "mlp_width", "band", "window_bins", "registers",
    "clock_bins", "filter_taus_ms",
)  # fmt: skip


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the session table: whose it is, its units and its scalers. depth_um: None = not known."""

    name: str
    unit_ids: list[int]
    region: list[str]
    depth_um: list[float | None]
    kept: list[bool]
    mean: dict[str, float]
    sd: dict[str, float]
    prior: dict[str, list[float]]

    @property
    def units(self) -> UnitTable:
        """The session's unit table."""
        depth = np.array([np.nan if d is None else d for d in self.depth_um], np.float32)
        return UnitTable(np.array(self.unit_ids, np.int64), np.array(self.region, str), depth)


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says beside its tensors, as JSON. sessions: in the order of the model's session table."""

    format: int
    bin_ns: int
    config: PretrainConfig
    specs: tuple[BehaviourSpec, ...]
    sessions: tuple[Row, ...]
    best_step: int
    validation_skill: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A NEDS of many sessions, in the order of `header.sessions`, and the SHA-256 of its file."""

    header: Header
    model: NEDS
    sha: str = ""


def read_sources(config: PretrainConfig, folder: Path, world: World) -> tuple[Source, ...]:
    """The recordings, memory-mapped and split; the first process writes the store, the others wait for it."""
    root = folder / config.store
    if world.rank == 0:
        for name in config.recordings:
            store.prepare(folder / name, root, recording.load)
    world.sum([0.0])
    found = []
    for name in config.recordings:
        parts = sessions.split(store.load(store.prepare(folder / name, root, recording.load)))
        specs = tuple(parts.train.spec(output) for output in config.outputs)
        scale = scalers.fit(parts.train, specs, config.min_rate_hz, config.model.filter_taus_ms)
        found.append(Source(parts.train, parts.validation, scale))
    return tuple(found)


def row(source: Source) -> Row:
    """The session table's row of a source."""
    units, scale = source.train.units, source.scale
    return Row(
        name=source.train.name,
        unit_ids=units.ids.tolist(),
        region=units.region.tolist(),
        depth_um=[d if np.isfinite(d) else None for d in units.depth_um.tolist()],
        kept=scale.kept.tolist(),
        mean=scale.mean,
        sd=scale.sd,
        prior={name: p.tolist() for name, p in scale.prior.items()},
    )


def save(pretrained: Pretrained, path: Path) -> None:
    """Write tensors and JSON header to a safetensors file; nothing half-written is left behind."""
    tensors = {name: value.contiguous() for name, value in pretrained.model.state_dict().items()}
    write_tensors(path, tensors, {KEY: msgspec.json.encode(pretrained.header).decode()}, load)


def is_one(path: Path) -> bool:
    """Whether a file says that it is a multi-session NEDS; False for one that cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load(path: Path) -> Pretrained:
    """Read and check. Raises `CheckpointError` with the remedy."""
    try:
        tensors, metadata = read_tensors(path)
        header = msgspec.json.decode(metadata[KEY], type=Header)
        if header.format != FORMAT:
            raise ValueError(f"format {header.format}, not {FORMAT}")
        model = NEDS(header.config.model, tuple(len(row.unit_ids) for row in header.sessions), header.specs)
        model.load_state_dict(tensors)
        check_content(tensors, metadata)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, msgspec.DecodeError) as error:
        reason = str(error).rpartition("\n")[2].strip()
        raise CheckpointError(
            f"{path} is not a multi-session NEDS of this version ({reason}); "
            "train one with `python -m neds_core.train CONFIG.toml`"
        ) from None
    return Pretrained(header, model.eval(), sha256(path))


def of_checkpoint(made: Checkpoint) -> Pretrained:
    """A checkpoint of one recording as a trunk of one session: of an ensemble, its first network."""
    header, config, units = made.header, made.header.config, made.units
    if header.imported is not None or not header.linear:
        raise CheckpointError(
            f"checkpoint {header.name!r} was imported, so its units and outputs have no scale; train one with "
            "`neds-rt train`"
        )
    table = Row(
        name=header.record.recording,
        unit_ids=units.ids.tolist(),
        region=units.region.tolist(),
        depth_um=[d if np.isfinite(d) else None for d in units.depth_um.tolist()],
        kept=made.scalers.kept.tolist(),
        mean=header.mean,
        sd=header.sd,
        prior=header.prior,
    )
    recipe = PretrainConfig(
        (config.recording or header.record.recording,), config.outputs, config.select, config.min_rate_hz,
        model=config.model, masks=config.masks, fit=config.fit,
    )  # fmt: skip
    record = header.record
    found = Header(
        FORMAT, header.bin_ns, recipe, header.specs, (table,), record.best_step, record.validation_skill, record.seconds
    )
    return Pretrained(found, made.model, made.sha)


@torch.no_grad()
def graft(trunk: Pretrained, config: TrainConfig, source: Source, seed: int) -> NEDS:
    """A NEDS for one new session on a pre-trained trunk: fresh unit rows, the mean of the session embeddings.

    With stitchers whatever a session of the trunk had for itself is fresh. Its outputs may be some of the trunk's.
    Raises `ConfigError` where the trunk does not fit.
    """
    old = trunk.model
    for key in SIZES:
        ours, theirs = getattr(config.model, key), getattr(old.config, key)
        if ours != theirs:
            raise ConfigError(f"model.{key} is {ours}, but the trunk's is {theirs}; set it to {theirs}")
    ours, theirs = sorted(config.model.without), sorted(old.config.without)
    if ours != theirs:
        raise ConfigError(f"model.without is {ours}, but the trunk's is {theirs}; set it to {theirs}")
    if source.train.bin_ns != trunk.header.bin_ns:
        raise ConfigError(f"recording {source.train.name!r} has other bins than the trunk; use one of its bin width")
    place = {spec.name: (m, spec) for m, spec in enumerate(old.specs, start=1)}
    model = sources.build(config, (source,), seed)
    modality = [0]  # the trunk's row of each of ours
    for spec in model.specs:
        n, known = place.get(spec.name, (0, None))
        if known is None or (known.kind, known.classes) != (spec.kind, spec.classes):
            raise ConfigError(f"output {spec.name!r} is none of the trunk's ({', '.join(place)}); leave it out")
        modality.append(n)
    theirs = {k: v for k, v in old.state_dict().items() if owner(k) is None} | {"session": old.session.mean(0)[None]}
    theirs["modality"] = old.modality[modality]
    if config.model.attention == "full":  # tables of every modality apart
        theirs |= {"position": old.position[:, modality], "session": theirs["session"][:, modality]}
    kept = model.state_dict()
    model.load_state_dict({k: theirs.get(k, v) for k, v in kept.items()})
    if config.model.tokenizer == "rows":
        biases = [cast(UnitTokenizer, old.tokenizer(s)).bias.detach() for s in range(len(trunk.header.sessions))]
        cast(UnitTokenizer, model.tokenizer()).bias.copy_(torch.stack(biases).mean(0))
    return model


def run(
    config: PretrainConfig, folder: Path, out: Path, show: Show, attend: Callable[..., Tensor] | None = None
) -> Fit:
    """Train what a file in `folder` says, in this process or in all that `torchrun` started.

    Writes `out`; beside it `.jsonl` (a line a step) and, until it is done, `.state` to go on from.
    """
    refuse_taken(out)
    torch.set_num_threads(config.fit.threads)
    began = time.monotonic()
    with distributed.world(config.fit.device, attend) as world, distributed.stop_on_signal() as stop:
        found = read_sources(config, folder, world)
        resume = Resume(beside(out, ".state"), stop.is_set)
        with Log(beside(out, ".jsonl"), show) as log:
            if not world.rank:
                log.stage("NEDS, stopped on validation")
            fit = loop.fit(Plan(config, found, config.seed, world=world, resume=resume), log.step)
        if world.rank:
            return fit
        if fit.interrupted:
            print(f"{out}: stopped, saved to {resume.path}; the same command goes on")
            return fit
        if not fit.best_step:
            raise ConfigError("NEDS never had a finite skill on validation; lower fit.learning_rate")
        specs = fit.model.specs
        rows = tuple(row(source) for source in found)
        seconds = time.monotonic() - began + fit.earlier_s
        header = Header(FORMAT, found[0].train.bin_ns, config, specs, rows, fit.best_step, fit.best_skill, seconds)
        save(Pretrained(header, fit.model), out)
        resume.discard()
        print(f"{out}: best step {fit.best_step}, validation skill {fit.best_skill:.4f}, {seconds:.0f} s")
        return fit
