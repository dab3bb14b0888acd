"""Checkpoints: tensors as safetensors, everything else as a JSON header; never pickle."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from neds_core.config import TrainConfig
from neds_core.data.scalers import Scalers
from neds_core.data.session import BIN_NS_LEAST, BIN_NS_MOST, BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.files import sha256, whole
from neds_core.linear.linear import Bank, Linear
from neds_core.model.model import NEDS

FORMAT = 1
CONTENT = "content_sha256"  # key of the metadata
PACKAGES = ("torch", "numpy", "safetensors", "msgspec")  # whose versions a record names


class LinearHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """The linear decoder of one output, beside its weights."""

    bank: Bank
    penalty: float


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """How a checkpoint came about. `test_looks` counts the scorings of the test part that were recorded as such
    (`neds-rt evaluate --record`), `test_scores` holds the last of them. trunk_sha: SHA-256 of the multi-session NEDS
    that it was fine-tuned from, or empty; interrupted: the best so far of a training that was stopped."""

    created: str
    recording: str
    recording_sha: str
    seed: int
    train_segments: int
    validation_segments: int
    best_step: int
    validation_skill: float
    seconds: float
    versions: dict[str, str]
    test_looks: int = 0
    test_scores: dict[str, dict[str, float]] = {}
    trunk_sha: str = ""
    interrupted: bool = False


class Imported(Struct, frozen=True, forbid_unknown_fields=True):
    """Where weights that were not trained here come from.

    sessions: the source's names of the model's sessions; session_rows: their rows in the source's
    session table; assumed: one sentence for each thing that neither the file nor the user said.
    """

    source: str
    source_sha: str
    epoch: int
    sessions: tuple[str, ...]
    session_rows: tuple[int, ...]
    assumed: tuple[str, ...]


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint says beside its tensors, as JSON. mean, sd: of continuous outputs, in their units; prior: class
    shares in training."""

    format: int
    name: str
    bin_ns: int
    config: TrainConfig
    specs: tuple[BehaviourSpec, ...]
    unit_map_sha: str
    mean: dict[str, float]
    sd: dict[str, float]
    prior: dict[str, list[float]]
    linear: dict[str, LinearHeader]
    blend: dict[str, float]  # share of NEDS in the blend, chosen on validation
    record: Record
    longest_silence_bins: int = 0  # in a training segment, no kept unit fired for so long; 0 = never, or not known
    imported: Imported | None = None  # then there is no linear decoder and no blend


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a decoder needs, and its identity `sha` (SHA-256 of the file)."""

    header: Header
    model: NEDS
    units: UnitTable
    scalers: Scalers
    linear: dict[str, Linear]
    sha: str = ""

    @property
    def specs(self) -> tuple[BehaviourSpec, ...]:
        """Outputs in the order of the model's modalities."""
        return self.header.specs

    @property
    def clocked(self) -> bool:
        """Whether the decoder knows the time in the segment."""
        return self.header.config.model.aligned


def our_version() -> str:
    """Version of neds-rt; "not installed" where it runs from a checkout alone."""
    try:
        return version("neds-rt")
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions that a result depends on, for its `Record`."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "neds-rt": our_version(), **found}


def content_sha(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of all that a file holds: its metadata (but this), and each tensor's name, type, shape and bytes."""
    found = hashlib.sha256(msgspec.json.encode(sorted((k, v) for k, v in metadata.items() if k != CONTENT)))
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        found.update(f"{name}\n{value.dtype} {tuple(value.shape)}\n".encode())
        # not copied: of a bool, a copy is 0 or 1 whatever the byte was
        found.update(value.contiguous().as_strided((value.numel(),), (1,)).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_content(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Raise `ValueError` where a file is not what was written; one of before this hash was kept has none."""
    if metadata.get(CONTENT, "") not in ("", content_sha(tensors, metadata)):
        raise ValueError("its content does not match its own SHA-256")


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], check: Callable[[Path], object]
) -> None:
    """Write a safetensors file with the hash of its content; `check` reads it before it takes its place."""
    metadata = metadata | {CONTENT: content_sha(tensors, metadata)}
    with whole(path) as partial:
        partial.write_bytes(_ordered(to_bytes(tensors, metadata=metadata)))  # save_file would make it mode 0600
        check(partial)


def _ordered(data: bytes) -> bytes:
    """The same file with sorted metadata: safetensors writes them in an order of chance."""
    size = int.from_bytes(data[:8], "little")
    header = msgspec.json.decode(data[8 : 8 + size])
    text = msgspec.json.encode(header | {"__metadata__": dict(sorted(header["__metadata__"].items()))})
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def refuse_foreign(path: Path) -> None:
    """Raise `ConfigError` where `--out` cannot be written, or would overwrite what is no checkpoint of neds-rt."""
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: its folder does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out {path}: its folder cannot be written; give another")
    if path.exists() and not is_ours(path):
        raise ConfigError(f"--out {path} exists and is no checkpoint of neds-rt; give another name or move that file")


def is_ours(path: Path) -> bool:
    """Whether a file says that neds-rt wrote it; False for one that is not there or cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith("neds_rt") for key in file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises `SafetensorError`, `OSError` or `ValueError` for another."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)


def _text(values: np.ndarray) -> torch.Tensor:
    return torch.frombuffer(bytearray("\n".join(map(str, values)).encode() or b"\n"), dtype=torch.uint8)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint; nothing half-written is left behind."""
    tensors = {f"model/{k}": v.contiguous() for k, v in checkpoint.model.state_dict().items()}
    tensors |= {
        "units/ids": torch.from_numpy(checkpoint.units.ids.astype(np.int64)),
        "units/region": _text(checkpoint.units.region),
        "units/depth_um": torch.from_numpy(checkpoint.units.depth_um.astype(np.float32)),
        "units/kept": torch.from_numpy(checkpoint.scalers.kept),
    }
    tensors |= {f"trial_mean/{k}": torch.from_numpy(v) for k, v in checkpoint.scalers.trial_mean.items()}
    for name, model in checkpoint.linear.items():
        tensors[f"linear/{name}/weight"] = torch.from_numpy(np.ascontiguousarray(model.weight))
        tensors[f"linear/{name}/bias"] = torch.from_numpy(np.atleast_1d(model.bias))
    metadata = {"neds_rt": msgspec.json.encode(checkpoint.header).decode()}
    write_tensors(path, tensors, metadata, lambda partial: _read(partial, path))


def load(path: Path) -> Checkpoint:
    """Read and check a checkpoint. Raises `CheckpointError` with the remedy."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; check the path or train one with `neds-rt train`")
    return _read(path, path)


def _read(file: Path, path: Path) -> Checkpoint:
    """Read what lies in `file`; errors call it `path`."""
    try:
        tensors, metadata = read_tensors(file)
    except (SafetensorError, OSError, ValueError):
        raise CheckpointError(f"{path} is not a safetensors file or is cut short; copy or train it again") from None
    if "neds_rt" not in metadata:
        raise CheckpointError(f"{path} was not written by neds-rt (no neds_rt header); train one with `neds-rt train`")
    try:
        header = msgspec.json.decode(metadata["neds_rt"], type=Header)
        made = _build(header, tensors, path)
        check_content(tensors, metadata)
    except (msgspec.DecodeError, KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error).rpartition("\n")[2].strip()  # torch lists every tensor on a line of its own
        raise CheckpointError(
            f"{path}: header and tensors do not fit this version ({reason}); train it again"
        ) from None
    return replace(made, sha=sha256(file))


def _build(header: Header, tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    if header.format != FORMAT:
        raise CheckpointError(f"{path} has format {header.format}, not {FORMAT}; train it again with this version")
    if not BIN_NS_LEAST <= header.bin_ns <= BIN_NS_MOST:
        raise ValueError(f"bin_ns is {header.bin_ns}, not between {BIN_NS_LEAST} and {BIN_NS_MOST}")
    ids = tensors["units/ids"].numpy()
    regions = bytes(tensors["units/region"].tolist()).decode().split("\n")[: max(1, len(ids))]
    try:
        units = UnitTable(ids, np.array(regions), tensors["units/depth_um"].numpy())
    except DataError as error:
        raise ValueError(str(error)) from None
    if units.sha256 != header.unit_map_sha:
        raise CheckpointError(f"{path}: its unit table does not match its own SHA-256; copy or train it again")
    n_units = (len(units),)
    if header.imported is not None:
        n_units = tuple(tensors[f"model/rates.{s}.bias"].shape[0] for s in range(len(header.imported.sessions)))
    model = NEDS(header.config.model, n_units, header.specs)
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    model.eval().requires_grad_(False)
    weights = [*model.state_dict().values(), *(v for k, v in tensors.items() if k.startswith("linear/"))]
    if not all(bool(torch.isfinite(w).all()) for w in weights):
        raise ValueError("a weight is not finite")
    tokenizer = model.tokenizer()
    if bool((tokenizer.gain < 0).any()):
        raise ValueError("a scale of a unit is negative")
    scalers = Scalers(
        kept=tensors["units/kept"].numpy(),
        spike_mean=tokenizer.mean.numpy(),
        spike_gain=tokenizer.gain.numpy(),
        mean=header.mean,
        sd=header.sd,
        prior={k: np.array(v) for k, v in header.prior.items()},
        trial_mean={
            k.removeprefix("trial_mean/"): v.numpy() for k, v in tensors.items() if k.startswith("trial_mean/")
        },
    )
    linear = {
        name: Linear(
            h.bank, h.penalty, tensors[f"linear/{name}/weight"].numpy(), tensors[f"linear/{name}/bias"].numpy()
        )
        for name, h in header.linear.items()
    }
    for spec in header.specs:
        _check_decoders(header, spec, linear, len(units))
    return Checkpoint(header, model, units, scalers, linear)


def _check_decoders(header: Header, spec: BehaviourSpec, linear: dict[str, Linear], n_units: int) -> None:
    """The scale of an output is there and above 0, and so are its linear decoder and share in the blend."""
    if spec.kind == "continuous" and not (np.isfinite(header.mean[spec.name]) and 0.0 < header.sd[spec.name] < np.inf):
        raise ValueError(f"the scale of {spec.name} is incomplete or not above 0")
    if header.imported is not None:
        return
    prior = header.prior.get(spec.name, [])
    if spec.kind == "class" and (len(prior) != len(spec.classes) or not all(0.0 < p <= 1.0 for p in prior)):
        raise ValueError(f"the class shares of {spec.name} are incomplete")
    wanted = linear[spec.name].bank.n_features(n_units)
    if not 0.0 <= header.blend[spec.name] <= 1.0 or linear[spec.name].weight.shape[0] != wanted:
        raise ValueError(f"the decoders of {spec.name} are incomplete")
