"""The engine of the causal linear decoder that stands beside NEDS."""

from __future__ import annotations

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.linear import linear
from neds_core.linear.linear import BankState
from runtime.core.values import Token
from runtime.engines.layout import layout


class LinearEngine:
    """The causal ridge (and logistic for classes) stored with a checkpoint."""

    name = "linear-numpy-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        n_units, bin_ns = len(checkpoint.units), checkpoint.header.bin_ns
        self.kept = checkpoint.scalers.kept
        self.banks = {m.bank: BankState(m.bank, n_units, bin_ns) for m in checkpoint.linear.values()}
        self.values = np.zeros(self.layout.n_values, np.float32)

    def reset(self, position: int = 0) -> None:
        for bank in self.banks.values():
            bank.reset()

    def skip(self, n_bins: int) -> None:
        zeros = np.zeros(len(self.kept), np.float32)
        for _ in range(n_bins):
            for bank in self.banks.values():
                bank.step(zeros, -1)

    def step(self, token: Token) -> np.ndarray:
        counts = np.where(self.kept & token.valid, token.counts, 0).astype(np.float32)
        found = {bank: state.step(counts, token.clock) for bank, state in self.banks.items()}
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), self.values)
        return self.values

    def _place(self, name: str, kind: str, y: np.ndarray, out: np.ndarray) -> None:
        if kind == "class":
            y = np.exp(y - y.max(-1, keepdims=True))
            y = y / y.sum(-1, keepdims=True)
        out[..., self.layout.columns[name]] = y

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        seen = np.where(self.kept & valid[:, None], counts, 0).astype(np.float32)
        bin_ns = self.checkpoint.header.bin_ns
        found = {bank: linear.features(bank, seen, clock, reset, bin_ns) for bank in self.banks}
        out = np.zeros((len(counts), self.layout.n_values), np.float32)
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            self._place(spec.name, spec.kind, model.apply(found[model.bank]), out)
        return out
