"""Checkpoints: tensors as safetensors, everything else as a JSON header; never pickle."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from neds_core.checkpoint.header import Header
from neds_core.checkpoint.judged import Judged, read_judged
from neds_core.checkpoint.tensors import check_content, parse_tensors, write_tensors
from neds_core.data.filters import checked
from neds_core.data.scalers import Scalers
from neds_core.data.session import BIN_NS_LEAST, BIN_NS_MOST, BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError, DataError
from neds_core.linear.linear import Linear
from neds_core.linear.state_space import StateSpace, of_tensors
from neds_core.model import rows
from neds_core.model.model import NEDS
from neds_core.model.rows import Rows

FORMAT = 1
UNITS = "units/"  # of the names of the tensors of the unit table
PACKAGES = ("torch", "numpy", "safetensors", "msgspec")  # whose versions a record names


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a decoder needs, and its identity `sha` (SHA-256 of the file).

    first: its network, None = it has none. others: of an ensemble, its networks behind the first, of the same shape and
    the same scalers. judged: what the verdicts rest on, None = not judged. lost: rows of units that its base had and
    its own session has not. state_space: of a decoder that was brought.
    """

    header: Header
    first: NEDS | None
    units: UnitTable
    scalers: Scalers
    linear: dict[str, Linear]
    sha: str = ""
    others: tuple[NEDS, ...] = ()
    judged: Judged | None = None
    lost: Rows | None = None
    state_space: StateSpace | None = None

    @property
    def model(self) -> NEDS:
        """The first network. Raises `CheckpointError` where there is none."""
        if self.first is None:
            raise CheckpointError(
                f"{self.header.name!r} is a decoder that was brought and holds no network; give a checkpoint that "
                "neds-rt train or calibrate wrote"
            )
        return self.first

    @property
    def networks(self) -> tuple[NEDS, ...]:
        """All of them, in order: one but in an ensemble."""
        return (self.model, *self.others)

    def alone(self, member: int) -> Checkpoint:
        """One network of an ensemble with what it was trained beside; a checkpoint of one network is its own.

        The verdicts are the ensemble's, so it has none.
        """
        if not self.header.members:
            return self
        one = self.header.members[member]
        header = msgspec.structs.replace(
            self.header, name=one.name, blend=one.blend, record=one.record, members=(), verdicts={}
        )
        judged = self.judged.member(member) if self.judged else None
        return replace(self, header=header, first=self.networks[member], others=(), judged=judged)

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


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint; nothing half-written is left behind."""
    networks = checkpoint.networks if checkpoint.state_space is None else ()
    tensors = {
        f"{_prefix(checkpoint.header, n)}{k}": v.contiguous()
        for n, network in enumerate(networks)
        for k, v in network.state_dict().items()
    }
    tensors |= rows.unit_tensors(checkpoint.units, UNITS)
    tensors[f"{UNITS}kept"] = torch.from_numpy(checkpoint.scalers.kept)
    tensors |= {f"trial_mean/{k}": torch.from_numpy(v) for k, v in checkpoint.scalers.trial_mean.items()}
    for name, model in checkpoint.linear.items():
        tensors[f"linear/{name}/weight"] = torch.from_numpy(np.ascontiguousarray(model.weight))
        tensors[f"linear/{name}/bias"] = torch.from_numpy(np.atleast_1d(model.bias))
    tensors |= checkpoint.judged.tensors() if checkpoint.judged else {}
    tensors |= checkpoint.lost.tensors() if checkpoint.lost else {}
    if checkpoint.state_space is not None:
        tensors |= {k: torch.from_numpy(v) for k, v in checkpoint.state_space.tensors().items()}
    metadata = {"neds_rt": msgspec.json.encode(checkpoint.header).decode()}
    write_tensors(path, tensors, metadata, lambda partial: parse(partial.read_bytes(), path))


def _prefix(header: Header, member: int) -> str:
    """Of the tensors' names of one network."""
    return f"member.{member}/" if header.members else "model/"


def load(path: Path) -> Checkpoint:
    """Read and check a checkpoint. Raises `CheckpointError` with the remedy."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; check the path or train one with `neds-rt train`")
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from None


def parse(data: bytes, path: Path) -> Checkpoint:
    """As `load`, from the bytes of a file that errors call `path`."""
    try:
        tensors, metadata = parse_tensors(data)
    except (SafetensorError, ValueError):
        raise CheckpointError(f"{path} is not a safetensors file or is cut short; copy or train it again") from None
    if "neds_rt" not in metadata:
        raise CheckpointError(f"{path} was not written by neds-rt (no neds_rt header); train one with `neds-rt train`")
    try:
        header = msgspec.json.decode(metadata["neds_rt"], type=Header)
        made = _build(header, tensors, path)
        check_content(tensors, metadata)
    except (msgspec.DecodeError, KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        why = str(error).rpartition("\n")[2].strip()  # torch lists every tensor on a line of its own
        raise CheckpointError(f"{path}: header and tensors do not fit this version ({why}); train it again") from None
    return replace(made, sha=hashlib.sha256(data).hexdigest())


def _build(header: Header, tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    if header.format != FORMAT:
        raise CheckpointError(f"{path} has format {header.format}, not {FORMAT}; train it again with this version")
    if not BIN_NS_LEAST <= header.bin_ns <= BIN_NS_MOST:
        raise ValueError(f"bin_ns is {header.bin_ns}, not between {BIN_NS_LEAST} and {BIN_NS_MOST}")
    try:
        units = rows.read_units(tensors, UNITS)
    except DataError as error:
        raise ValueError(str(error)) from None
    if units.sha256 != header.unit_map_sha:
        raise CheckpointError(f"{path}: its unit table does not match its own SHA-256; copy or train it again")
    if header.brought is not None:
        return _brought(header, tensors, units)
    n_units = (len(units),)
    if header.imported is not None:
        n_units = tuple(tensors[f"model/rates.{s}.bias"].shape[0] for s in range(len(header.imported.sessions)))
    model, *others = (_network(header, tensors, n_units, m) for m in range(len(header.members) or 1))
    if not all(bool(torch.isfinite(v).all()) for k, v in tensors.items() if k.startswith("linear/")):
        raise ValueError("a weight is not finite")
    tokenizer = model.tokenizer()
    if not all(same_scale(model, other) for other in others):
        raise ValueError("the members' scales of units differ")
    if bool((tokenizer.scale()[1] < 0).any()):
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
        filters=checked(tokenizer.filters(), header.config.model.filter_taus_ms, header.bin_ns),
    )
    linear = {
        name: Linear(h.bank, h.penalty, *(tensors[f"linear/{name}/{part}"].numpy() for part in ("weight", "bias")))
        for name, h in header.linear.items()
    }
    for spec in header.specs:
        _check_decoders(header, spec, linear, len(units))
    judged = read_judged(tensors, header.specs, 1 + len(others), header.verdicts)
    try:
        lost = rows.read(tensors)
    except DataError as error:
        raise ValueError(str(error)) from None
    return Checkpoint(header, model, units, scalers, linear, others=tuple(others), judged=judged, lost=lost)


def _brought(header: Header, tensors: dict[str, Tensor], units: UnitTable) -> Checkpoint:
    found = of_tensors(tensors)
    try:
        found.refuse_unfit(len(header.specs), len(units))
    except ValueError as error:
        raise CheckpointError(f"{header.name}: {error}") from None
    for spec in header.specs:
        if spec.kind != "continuous":
            raise ValueError(f"{spec.name} is a class, which a state space does not decode")
        _check_scale(header, spec)
    nothing = np.zeros(len(units), np.float32)
    scalers = Scalers(tensors["units/kept"].numpy(), nothing, nothing, header.mean, header.sd, {}, {})
    return Checkpoint(header, None, units, scalers, {}, state_space=found)


def _network(header: Header, tensors: dict[str, Tensor], n_units: tuple[int, ...], member: int) -> NEDS:
    prefix = _prefix(header, member)
    model = NEDS(header.config.model, n_units, header.specs)
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    if not all(bool(torch.isfinite(w).all()) for w in model.state_dict().values()):
        raise ValueError("a weight is not finite")
    return model.eval().requires_grad_(False)


def same_scale(one: NEDS, other: NEDS) -> bool:
    """Whether two networks take counts of units in the same scale."""
    return all(map(torch.equal, one.tokenizer().scale(), other.tokenizer().scale()))


def _check_scale(header: Header, spec: BehaviourSpec) -> None:
    if spec.kind == "continuous" and not (np.isfinite(header.mean[spec.name]) and 0.0 < header.sd[spec.name] < np.inf):
        raise ValueError(f"the scale of {spec.name} is incomplete or not above 0")


def _check_decoders(header: Header, spec: BehaviourSpec, linear: dict[str, Linear], n_units: int) -> None:
    """The scale of an output is there and above 0, and so are its linear decoder and share in the blend."""
    _check_scale(header, spec)
    if header.imported is not None:
        return
    prior = header.prior.get(spec.name, [])
    if spec.kind == "class" and (len(prior) != len(spec.classes) or not all(0.0 < p <= 1.0 for p in prior)):
        raise ValueError(f"the class shares of {spec.name} are incomplete")
    wanted = linear[spec.name].bank.n_features(n_units)
    shares = [header.blend[spec.name], *(member.blend[spec.name] for member in header.members)]
    if not all(0.0 <= share <= 1.0 for share in shares) or linear[spec.name].weight.shape[0] != wanted:
        raise ValueError(f"the decoders of {spec.name} are incomplete")
