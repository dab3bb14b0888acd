"""The peers that learn: the ridge of a checkpoint, and Kalman filter and GRU of `benchmarks.accuracy.peers`.

Settings are those that `neds-rt bench accuracy` chose inside the training part. The two are fitted on training +
validation, as what a checkpoint holds, and kept in a folder from which each process takes its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import recordings
from benchmarks.accuracy.peers import kalman, recurrent, sequence
from benchmarks.accuracy.peers.task import Setting, Task, chronological, standard
from neds_core.checkpoint import Checkpoint
from neds_core.linear.linear import BankState

FOLDER = recordings.EXAMPLES / "ibl-dy016"
KALMAN: Setting = {"tau_ms": 0.0, "lead_bins": 0, "order": 2, "shrinkage": 0.03}
GRU: Setting = {
    "weight_decay": 0.1, "dropout": 0.3, "learning_rate": 0.003, "steps": 400, "width": 64, "unit_dropout": 0.3,
    "stop": 230,
}  # fmt: skip


def task() -> Task:
    """The demo's recording, split as for the accuracy of the shipped decoders."""
    recordings.refuse_missing((FOLDER / "session.npz", FOLDER / "train.toml"))
    return chronological(FOLDER, "train.toml", quick=False)


class Ridge:
    """The causal ridge of a checkpoint in numpy: the features of each output's bank, and a product."""

    def __init__(self, made: Checkpoint, outputs: tuple[str, ...]) -> None:
        self.models = [made.linear[name] for name in outputs]
        self.states = [BankState(m.bank, len(made.units), made.header.bin_ns) for m in self.models]

    def reset(self) -> None:
        for state in self.states:
            state.reset()

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U) of the bins that closed; values (V,) of the newest."""
        for row in counts[:-1]:
            for state in self.states:
                state.step(row, -1)
        pairs = zip(self.models, self.states, strict=True)
        return np.concatenate([m.apply(state.step(counts[-1], -1)) for m, state in pairs])


class Kalman:
    """The Kalman filter in numpy; observations are square roots of the kept units' counts."""

    def __init__(self, model: kalman.Model, kept: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> None:
        self.run, self.kept, self.mean, self.sd = kalman.Filter(model), kept, mean, sd

    @classmethod
    def fit(cls, given: Task, setting: Setting = KALMAN) -> Kalman:
        """Fitted on training + validation. Raises `ValueError` for a setting with smoothing or a lead."""
        if setting["tau_ms"] or setting["lead_bins"]:
            raise ValueError("the filter of a stream has neither smoothing nor a lead")
        return cls(kalman.fit_on(given, setting, given.parts.development), given.scale.kept, *standard(given))

    def save(self, path: Path) -> None:
        """Its matrices."""
        m = self.run.model
        arrays = {name: getattr(m, name) for name in m.__slots__}
        np.savez(path, kept=self.kept, y_mean=self.mean, y_sd=self.sd, **arrays)

    @classmethod
    def load(cls, path: Path) -> Kalman:
        """What `save` wrote."""
        with np.load(path) as found:
            model = kalman.Model(**{name: found[name] for name in kalman.Model.__slots__})
            return cls(model, found["kept"], found["y_mean"], found["y_sd"])

    def reset(self) -> None:
        self.run.reset()

    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U) of the bins that closed; values (V,) of the newest."""
        for row in np.sqrt(counts[:, self.kept], dtype=np.float64):
            self.run.step(row)
        return self.run.state[: len(self.mean)] * self.sd + self.mean


class Gru:
    """The GRU in torch, a bin a call."""

    def __init__(self, network: recurrent.Recurrent, mean: np.ndarray, sd: np.ndarray) -> None:
        self.network, self.mean, self.sd = network.eval(), mean, sd
        self.valid, self.state = torch.ones(1, 1, dtype=torch.bool), None

    @classmethod
    def fit(cls, given: Task, setting: Setting = GRU) -> Gru:
        """Seed 0, trained on training + validation for as many steps as the rolling origins chose."""
        parts = given.parts.development
        network, _, _ = sequence.train(
            lambda: recurrent.Recurrent(given, setting), given, setting, parts, None, 0, setting["stop"]
        )
        assert isinstance(network, recurrent.Recurrent)
        return cls(network, *standard(given))

    def save(self, path: Path) -> None:
        """Its weights."""
        np.savez(path, **{name: value.numpy() for name, value in self.network.state_dict().items()})

    @classmethod
    def load(cls, path: Path, given: Task, setting: Setting = GRU) -> Gru:
        """What `save` wrote."""
        network = recurrent.Recurrent(given, setting)
        with np.load(path) as found:
            network.load_state_dict({name: torch.from_numpy(found[name]) for name in found.files})
        return cls(network, *standard(given))

    def reset(self) -> None:
        self.state = None

    @torch.inference_mode()
    def step(self, counts: np.ndarray) -> np.ndarray:
        """counts (n, U) of the bins that closed; values (V,) of the newest."""
        shown = torch.from_numpy(counts.astype(np.float32))[None]
        value, self.state = self.network.step(shown, self.valid.expand(1, len(counts)), self.state)
        return value[0, -1].double().numpy() * self.sd + self.mean


FITTED = ("kalman", "gru")


def load(name: str, folder: Path) -> Kalman | Gru:
    """One of `FITTED` from the folder that `prepare` filled."""
    path = folder / f"{name}.npz"
    return Kalman.load(path) if name == "kalman" else Gru.load(path, task())


def prepare(folder: Path, names: set[str]) -> None:
    """Fit those of `FITTED` that are named."""
    given = task() if names & set(FITTED) else None
    for name, kind in (("kalman", Kalman), ("gru", Gru)):
        if name in names and given is not None:
            kind.fit(given).save(folder / f"{name}.npz")
