"""Parity with the published model: its weights and inputs in, our outputs against its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neds_core import official
from neds_core.data.session import BehaviourSpec
from neds_core.errors import DataError
from neds_core.model.model import NEDS, Batch
from neds_core.official import SPIKES, Sizes

LIMIT = 1e-5  # float32 sums taken in another order, through every layer


@dataclass(frozen=True, slots=True)
class Deviation:
    """Largest absolute error of one output, and its largest absolute value."""

    error: float
    largest: float

    @property
    def relative(self) -> float:
        """Error as a share of the largest value; infinite where either is no number."""
        share = self.error / max(self.largest, 1e-30)
        return share if np.isfinite(share) else float("inf")

    @property
    def within(self) -> bool:
        """Whether the error is at most `LIMIT` of the largest value."""
        return self.relative <= LIMIT


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a golden file."""
    try:
        with np.load(path, allow_pickle=False) as bundle:
            return {key: bundle[key] for key in bundle.files}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except Exception:  # numpy, zipfile and zlib raise a dozen kinds of error for damaged bytes
        raise DataError(f"{path} is not a readable .npz of published outputs; copy it again") from None


def compare(path: Path) -> dict[str, dict[str, Deviation]]:
    """Deviation of every case and modality of a golden file; a JSON file of sizes lies beside it.

    Keys: `weights/<published name>`, `input/<modality>` and `input/session` (row in the JSON's
    sessions), `<case>/hidden/<modality>` (B, T) bool, `<case>/out/<modality>`.
    """
    arrays = read(path)
    sizes = official.read_sizes(path.with_suffix(".json"))
    weights = {
        k.removeprefix("weights/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("weights/")
    }  # fmt: skip
    model = official.build(weights, sizes)
    cases = list(dict.fromkeys(k.split("/")[0] for k in arrays if k.split("/")[1:2] == ["out"]))
    if not cases:
        raise DataError(f"{path} holds no case (<case>/out/<modality>); copy it again")
    try:
        return {case: _case(model, arrays, sizes, case) for case in cases}
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: its arrays do not fit together ({error}); copy it again") from None


def _case(model: NEDS, arrays: dict[str, np.ndarray], sizes: Sizes, case: str) -> dict[str, Deviation]:
    hidden = torch.from_numpy(np.stack([arrays[f"{case}/hidden/{m}"] for m in sizes.modalities], axis=-1))
    session = arrays.get("input/session", np.zeros(len(hidden), np.int64))
    error = dict.fromkeys(sizes.modalities, 0.0)
    for s in np.unique(session):  # one batch is of one session, a batch of one trial included
        rows = np.flatnonzero(session == s)
        out = run(model, arrays, sizes, int(s), rows, hidden[rows])
        for modality, got in out.items():
            theirs = arrays[f"{case}/out/{modality}"][rows][..., : got.shape[-1]]  # of fewer units: padded behind
            difference = np.abs(got.numpy() - theirs)
            error[modality] = float(np.maximum(error[modality], difference.max()))  # keeps a NaN
    return {m: Deviation(e, float(np.abs(arrays[f"{case}/out/{m}"]).max())) for m, e in error.items()}


@torch.inference_mode()
def run(
    model: NEDS, arrays: dict[str, np.ndarray], sizes: Sizes, session: int, rows: np.ndarray, hidden: Tensor
) -> dict[str, Tensor]:
    """Our outputs for trials `rows` of one session, in the published layout: continuous (B, T, 1), classes (B, 1, C).

    hidden (B, T, M) bool.
    """
    n_units = model.rate_head(session).out_features
    shape = hidden.shape[:2]

    def given(spec: BehaviourSpec) -> Tensor:
        values = torch.from_numpy(arrays[f"input/{spec.name}"][rows])
        return values if spec.kind == "continuous" else values.long().reshape(-1, 1).expand(shape)

    batch = Batch(
        counts=torch.from_numpy(arrays[f"input/{SPIKES}"][rows])[..., :n_units].float(),
        valid=torch.ones(shape, dtype=torch.bool),
        traces={s.name: given(s).float() for s in model.specs if s.kind == "continuous"},
        classes={s.name: given(s) for s in model.specs if s.kind == "class"},
        clock=torch.full(shape, -1),
        session=session,
    )
    out = model(batch, hidden)
    found = {SPIKES: out["spikes"]}
    for spec in model.specs:
        found[spec.name] = out[spec.name][..., None] if spec.kind == "continuous" else out[spec.name][:, :1]
    return found
