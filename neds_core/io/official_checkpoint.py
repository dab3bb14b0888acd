"""A published checkpoint (`{"epoch", "model", "optimizer", "lr_sched"}`, a `.pt`) to a `Checkpoint`.

The file holds weights alone, whose names `neds_core.official` translates. What else a checkpoint needs is
supplied, or recorded in the header as not known: units, the range that behaviours were scaled by, heads, rows
of the session table.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from neds_core import official
from neds_core.checkpoint import FORMAT, Checkpoint, Header, Imported, Record, versions
from neds_core.config import TrainConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError
from neds_core.files import sha256
from neds_core.model.model import NEDS
from neds_core.official import SPIKES, Names, Sizes

BIN_NS = 20_000_000  # Zhang et al. 2025, App. B: all recordings
HEADS = 8  # in every published configuration
SCALED = "share of the session's range, 0..1"  # the source scales minimum and maximum of each session to 0 and 1
KNOWN = {
    "wheel": BehaviourSpec(
        "wheel_speed", "continuous", SCALED, "unsigned", "zero-phase low-pass: contains about 50 ms of the future"
    ),
    "whisker": BehaviourSpec("whisker_motion_energy", "continuous", SCALED, "unsigned", "none stated"),
    "choice": BehaviourSpec("choice", "class", sign="IBL trials.choice", classes=("-1", "+1")),
    "block": BehaviourSpec("block", "class", sign="IBL trials.probabilityLeft", classes=("0.2", "0.5", "0.8")),
}


@dataclass(frozen=True, slots=True)
class Supplied:
    """What the user knows and the file does not say.

    sizes, or else heads: see `official.Sizes`. session: import this one alone. units: its unit
    table, in the order of the source's columns; columns behind them are padding. ranges: our
    behaviour name -> (minimum, maximum) of the session.
    """

    sizes: Sizes | None = None
    heads: int | None = None
    session: str = ""
    units: UnitTable | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


def read(path: Path) -> dict[str, Any]:
    """The file's content, read without running any code it may carry."""
    try:
        made = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; check the path") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors and would have to run code to be read; "
            "save its state dict alone and import that"
        ) from None
    except Exception:  # torch and zipfile raise a dozen kinds of error for damaged bytes
        raise CheckpointError(f"{path} is not a readable torch checkpoint; copy it again") from None
    model = made.get("model") if isinstance(made, dict) else None
    if not isinstance(model, dict) or not model or not all(isinstance(v, Tensor) for v in model.values()):
        raise CheckpointError(f'{path} holds no state dict under "model"; give a checkpoint of the published training')
    made["model"] = {str(k).removeprefix("module."): v.float() for k, v in model.items()}  # DDP's prefix
    for name, value in made["model"].items():
        if not value.numel() or not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} is empty or not finite; give a checkpoint whose training went well")
    return made


def sizes_of(made: dict[str, Any], heads: int | None) -> tuple[Sizes, tuple[str, ...]]:
    """Sizes that the file says or suggests, and a sentence for each that it only suggests."""
    weights: dict[str, Tensor] = made["model"]
    modalities = tuple(dict.fromkeys(k.split(".")[1] for k in weights if k.startswith("encoder_embeddings.")))
    root = Names(SPIKES).spread("")
    ends = (".weight", ".bias")
    sessions = tuple(dict.fromkeys(k.removeprefix(root)[: -len(e)] for e in ends for k in weights
                                   if k.startswith(root) and k.endswith(e)))  # fmt: skip
    rows = tuple(range(len(sessions)))
    assumed = [] if heads else [f"{HEADS} heads, as in every published configuration"]
    trained = trained_rows(made)
    if len(trained) == len(sessions):
        rows = trained
        if len(rows) > 1:
            assumed.append(f"sessions have rows {', '.join(map(str, rows))} of the session table in the file's order")
    else:
        assumed.append("sessions have the first rows of the session table, in the file's order")
    try:
        return Sizes(heads or HEADS, modalities, sessions, rows), tuple(assumed)
    except ValueError as error:
        raise CheckpointError(f"not a multimodal model with stitchers ({error}); give another checkpoint") from None


def trained_rows(made: dict[str, Any]) -> tuple[int, ...]:
    """Rows of the session table that ever had a gradient: Adam's second moment is not 0 there.

    The optimiser numbers parameters in the order of the state dict (torch.optim). Empty: it is
    not there, or does not match.
    """
    names = list(made["model"])
    table = Names(SPIKES).session
    optimizer = made.get("optimizer")
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(states, dict) or table not in names or len(states) != len(names):
        return ()
    state = states.get(names.index(table))
    moment = state.get("exp_avg_sq") if isinstance(state, dict) else None
    if not isinstance(moment, Tensor) or moment.ndim != 2 or moment.shape != made["model"][table].shape:
        return ()
    return tuple(int(r) for r in torch.nonzero(moment.any(1)).flatten())


def convert(path: Path, supplied: Supplied) -> Checkpoint:
    """Read a published checkpoint. Raises `CheckpointError` with the remedy."""
    made = read(path)
    weights: dict[str, Tensor] = made["model"]
    assumed: tuple[str, ...] = ()
    sizes = supplied.sizes
    if sizes is None:
        sizes, assumed = sizes_of(made, supplied.heads)
    sizes, weights = _choose(sizes, weights, supplied.session)
    with official.refusing():
        published = official.specs_of(weights, sizes)
    units, columns = _units(weights, sizes, supplied.units)
    specs = tuple(_spec(s, supplied.ranges) for s in published)
    for name in set(supplied.ranges) - {s.name for s in specs if s.kind == "continuous"}:
        raise CheckpointError(f"--range {name}: not a continuous behaviour of this model; leave it out")
    model = official.build(weights, sizes, specs)
    prior = {s.name: [1.0 / len(s.classes)] * len(s.classes) for s in specs if s.kind == "class"}
    epoch = made.get("epoch", 0)
    imported = Imported(
        source=path.name,
        source_sha=sha256(path),
        epoch=epoch if isinstance(epoch, int) else 0,
        sessions=sizes.sessions,
        session_rows=sizes.session_rows,
        assumed=assumed + columns + (("classes are equally frequent",) if prior else ()),
    )
    scalers = _scalers(model, specs, prior, supplied.ranges)
    header = Header(
        format=FORMAT,
        name=path.stem,
        bin_ns=BIN_NS,
        config=TrainConfig(recording="", outputs=tuple(s.name for s in specs), model=model.config),
        specs=specs,
        unit_map_sha=units.sha256,
        mean=scalers.mean,
        sd=scalers.sd,
        prior=prior,
        linear={},
        blend={},
        record=Record(datetime.now(UTC).isoformat(timespec="seconds"), "", "", 0, 0, 0, 0, 0.0, 0.0, versions()),
        imported=imported,
    )
    return Checkpoint(header, model, units, scalers, {})


def _units(weights: dict[str, Tensor], sizes: Sizes, given: UnitTable | None) -> tuple[UnitTable, tuple[str, ...]]:
    """The unit table, and what was assumed of it. Columns of `weights` behind the units that are given are dropped."""
    first = sizes.sessions[0]
    with official.refusing():
        columns = weights[f"{Names(SPIKES).spread(first)}.weight"].shape[1]
    if given is None:
        unknown = UnitTable(np.arange(columns), np.full(columns, "unknown"), np.full(columns, np.nan, "f4"))
        said = f"all {columns} spike columns are units, none is padding; their ids and regions are not known"
        return unknown, (said,)
    if len(sizes.sessions) > 1:
        raise CheckpointError(f"--units are those of one session; add --session, one of {', '.join(sizes.sessions)}")
    with official.refusing():
        _drop_padding(weights, first, len(given))
    return given, ()


def _scalers(
    model: NEDS, specs: tuple[BehaviourSpec, ...], prior: dict[str, list[float]], ranges: dict[str, tuple[float, float]]
) -> Scalers:
    """Minimum and range of each trace as mean and sd, 0 and 1 where they are not known; every unit is kept."""
    traces = [s.name for s in specs if s.kind == "continuous"]
    low, high = ({name: ranges.get(name, (0.0, 1.0))[end] for name in traces} for end in (0, 1))
    tokenizer = model.tokenizer()
    return Scalers(
        kept=np.ones(len(tokenizer.mean), bool),
        spike_mean=tokenizer.mean.numpy(),
        spike_gain=tokenizer.gain.numpy(),
        mean=low,
        sd={name: high[name] - low[name] for name in traces},
        prior={name: np.array(p) for name, p in prior.items()},
        trial_mean={name: np.zeros(0, np.float32) for name in traces},
    )


def _choose(sizes: Sizes, weights: dict[str, Tensor], session: str) -> tuple[Sizes, dict[str, Tensor]]:
    """Sizes and weights of one session, or all where none is asked for."""
    if not session:
        return sizes, dict(weights)
    if session not in sizes.sessions:
        raise CheckpointError(f"--session {session}: not in this model; it has {', '.join(sizes.sessions)}")
    others = {f".{s}" for s in sizes.sessions if s != session}
    kept = {k: v for k, v in weights.items() if not any(f"{o}." in k or k.endswith(o) for o in others)}
    row = sizes.session_rows[sizes.sessions.index(session)]
    return Sizes(sizes.heads, sizes.modalities, (session,), (row,)), kept


def _drop_padding(weights: dict[str, Tensor], session: str, n_units: int) -> None:
    """Take the columns behind the units out, in place: the source fills them with -1, a constant for the bias."""
    names = Names(SPIKES)
    spread, head = names.spread(session), names.head(session)
    columns = weights[f"{spread}.weight"]
    if n_units > columns.shape[1]:
        raise CheckpointError(f"--units has {n_units} units, the model only {columns.shape[1]}; give its own recording")
    weights[f"{spread}.bias"] = weights[f"{spread}.bias"] - columns[:, n_units:].sum(1)
    weights[f"{spread}.weight"] = columns[:, :n_units]
    for part in ("weight", "bias"):
        weights[f"{head}.{part}"] = weights[f"{head}.{part}"][:n_units]


def _spec(published: BehaviourSpec, ranges: dict[str, tuple[float, float]]) -> BehaviourSpec:
    """The behaviour under our name; where its range is known, in the range's own unit."""
    spec = KNOWN.get(published.name, published)
    if spec.kind != published.kind:
        spec = published
    if spec.kind == "class":
        return spec if len(spec.classes) == len(published.classes) else replace(spec, classes=published.classes)
    return replace(spec, unit="as --range gave it" if spec.name in ranges else SCALED)
