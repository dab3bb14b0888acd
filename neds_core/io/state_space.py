"""A linear decoder of another lab, or of one's own, from named matrices in an .npz to a `Checkpoint`."""

from __future__ import annotations

import difflib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from neds_core.checkpoint import FORMAT, Checkpoint, Header, Record, versions
from neds_core.config import TrainConfig
from neds_core.data.checks.spec import check_spec, check_width
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, UnitTable
from neds_core.errors import CheckpointError, DataError
from neds_core.files import sha256
from neds_core.linear.state_space import LARGEST, Brought, StateSpace

NUMBERS = {"A": "(V, V)", "B": "(V, U)", "b": "(V,)", "unit_ids": "(U,)", "bin_ms": "one number", "output_sd": "(V,)"}
TEXTS = ("outputs", "output_unit")
OPTIONAL = {
    "start": "(V,)", "output_mean": "(V,)", "unit_mean": "(U,)", "unit_sd": "(U,)", "unit_depth_um": "(U,)",
    "unit_region": "text (U,)", "output_sign": "text (V,)", "output_group": "text (V,)", "name": "text",
    "licence": "text", "citation": "text",
}  # fmt: skip
TEXT = {*TEXTS, *(key for key, what in OPTIONAL.items() if what.startswith("text"))}


def read(path: Path) -> Checkpoint:
    """The decoder in an .npz of these arrays: A, B, b, unit_ids, bin_ms, outputs, output_unit, output_sd, and any of
    `OPTIONAL`. With unit_mean and unit_sd, B takes z-scores of the counts.

    Raises `CheckpointError`, one sentence that names the array and the remedy.
    """
    arrays = _arrays(path)
    units = _units(arrays, path)
    specs = _specs(arrays, path)
    space = _space(arrays, len(specs), len(units), path)
    scale = {key: _row(arrays, key, len(specs), path) for key in ("output_mean", "output_sd")}
    if not (scale["output_sd"] >= np.finfo(np.float32).tiny).all():
        raise CheckpointError(f"{path}: output_sd is not above 0 everywhere; give each output's standard deviation")
    mean, sd = (
        dict(zip((spec.name for spec in specs), scale[key].tolist(), strict=True))
        for key in ("output_mean", "output_sd")
    )
    name, source_sha = _name(arrays, path), sha256(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    header = Header(
        format=FORMAT, name=name, bin_ns=_bin_ns(arrays, path),
        config=TrainConfig(recording=path.name, outputs=tuple(spec.name for spec in specs)), specs=specs,
        unit_map_sha=units.sha256, mean=mean, sd=sd, prior={}, linear={}, blend={},
        record=Record(now, path.name, source_sha, 0, 0, 0, 0, 0.0, 0.0, versions()),
        brought=Brought(path.name, source_sha, *(str(arrays.get(key, "")) for key in ("licence", "citation"))),
    )  # fmt: skip
    nothing = np.zeros(len(units), np.float32)
    scalers = Scalers((space.b != 0).any(0), nothing, nothing, mean, sd, {}, {})
    return Checkpoint(header, None, units, scalers, {}, state_space=space)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What the file holds, each array by a known name and of its kind."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise CheckpointError(f"decoder {path} does not exist; check the path") from None
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile):
        raise CheckpointError(f"{path} is no .npz of plain arrays; write one with numpy.savez") from None
    known = [*NUMBERS, *TEXTS, *OPTIONAL]
    for key in arrays.keys() - set(known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        raise CheckpointError(f"{path}: array {key!r} is not known; {f'is it {near[0]!r}' if near else 'leave it out'}")
    for key in (*NUMBERS, *TEXTS):
        if key not in arrays:
            raise CheckpointError(f"{path} has no array {key!r}; add it, {NUMBERS.get(key, 'text (V,)')}")
    for key, array in arrays.items():
        if (array.dtype.kind == "U") != (key in TEXT) or array.dtype.kind not in "Uiuf":
            raise CheckpointError(f"{path}: {key} is {array.dtype}, not {'text' if key in TEXT else 'numbers'}")
    return arrays


def _row(arrays: dict[str, np.ndarray], key: str, n: int, path: Path) -> np.ndarray:
    """(n,) float64 of an array, zeros where it is optional and not there."""
    found = np.asarray(arrays.get(key, np.zeros(n)), np.float64)
    if found.shape != (n,) or not (np.abs(found) <= LARGEST).all():
        raise CheckpointError(f"{path}: {key} is {found.shape} or not finite; give {n} numbers that float32 can hold")
    return found


def _name(arrays: dict[str, np.ndarray], path: Path) -> str:
    value = arrays.get("name", np.array(path.stem))
    name = str(value.item()).strip() if value.size == 1 else ""
    if not name or not name.isprintable():
        raise CheckpointError(f"{path}: name is {value.tolist()!r}; give one line of text, or leave it out")
    return name


def _bin_ns(arrays: dict[str, np.ndarray], path: Path) -> int:
    value = arrays["bin_ms"]
    if value.size != 1 or not np.isfinite(value).all():
        raise CheckpointError(f"{path}: bin_ms is {value.shape}; give one number, the width of its bins in ms")
    bin_ns = round(float(value.item()) * 1e6)
    try:
        check_width(bin_ns)
    except DataError as error:
        raise CheckpointError(f"{path}: bin_ms: {error}") from None
    return bin_ns


def _units(arrays: dict[str, np.ndarray], path: Path) -> UnitTable:
    """The units, in the order of B's columns."""
    ids = np.ravel(arrays["unit_ids"])
    region, depth = (
        arrays.get("unit_region", np.full(len(ids), "?")),
        arrays.get("unit_depth_um", np.full(len(ids), np.nan)),
    )
    if region.shape != ids.shape or depth.shape != ids.shape or len(np.unique(ids)) < len(ids) or not len(ids):
        raise CheckpointError(
            f"{path}: unit_ids repeat, or regions or depths are not one a unit; give each unit one row"
        )
    try:
        return UnitTable(ids, region, depth)
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _specs(arrays: dict[str, np.ndarray], path: Path) -> tuple[BehaviourSpec, ...]:
    """What each output is."""
    names = np.ravel(arrays["outputs"])
    each = [arrays.get(key, np.full(len(names), "")) for key in ("output_unit", "output_sign", "output_group")]
    if any(texts.shape != names.shape for texts in each) or len(set(names.tolist())) < len(names) or not len(names):
        raise CheckpointError(f"{path}: outputs repeat, or have not one unit, sign and group each; give each one row")
    specs = tuple(
        BehaviourSpec(name, "continuous", unit, sign, group=group)
        for name, unit, sign, group in zip(*(texts.tolist() for texts in (names, *each)), strict=True)
    )
    try:
        for spec in specs:
            check_spec(spec)
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return specs


def _space(arrays: dict[str, np.ndarray], n_outputs: int, n_units: int, path: Path) -> StateSpace:
    """The recursion on counts: z-scores of units are folded into B and b."""
    with np.errstate(over="ignore"):  # of longer floats; what is not finite is refused
        a, b, offset = (np.asarray(arrays[key], np.float64) for key in ("A", "B", "b"))
    space = StateSpace(a, b, offset, _row(arrays, "start", n_outputs, path))
    _refuse_unfit(space, n_outputs, n_units, path)
    if "unit_mean" not in arrays and "unit_sd" not in arrays:
        return space
    if "unit_mean" not in arrays or "unit_sd" not in arrays:
        raise CheckpointError(f"{path} has one of unit_mean and unit_sd; give both, or none where B takes counts")
    mean, sd = (_row(arrays, key, n_units, path) for key in ("unit_mean", "unit_sd"))
    if not (sd > 0).all():
        raise CheckpointError(f"{path}: unit_sd is not above 0 of unit {int((sd <= 0).argmax())}; leave that unit out")
    with np.errstate(all="ignore"):  # what is not finite is refused
        folded = StateSpace(a, b / sd, offset - (b / sd) @ mean, space.start)
    _refuse_unfit(folded, n_outputs, n_units, path)
    return folded


def _refuse_unfit(space: StateSpace, n_outputs: int, n_units: int, path: Path) -> None:
    try:
        space.refuse_unfit(n_outputs, n_units)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
