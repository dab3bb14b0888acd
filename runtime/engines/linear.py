"""The engine of the causal linear decoder that stands beside NEDS."""

from __future__ import annotations

import numpy as np

from kernels.cpu import linear as kernel
from neds_core.checkpoint import Checkpoint
from neds_core.data import filters
from neds_core.linear import linear
from neds_core.linear.linear import CLOCK_SCALE, Bank
from runtime.core.values import Token
from runtime.engines.layout import layout


class Features:
    """The features of one bank, a bin at a time in compiled code. Twin: `neds_core.linear.linear.BankState`."""

    def __init__(self, bank: Bank, n_units: int, bin_ns: int) -> None:
        self.bank, self.n = bank, bank.copies * n_units
        self.keep = filters.shares(bank.taus_ms, bin_ns)
        self.state = np.zeros((bank.copies, n_units), np.float32)
        self.values = np.zeros(bank.n_features(n_units), np.float32)

    def reset(self) -> None:
        """A cold start: no history."""
        self.state.fill(0.0)

    def step(self, counts: np.ndarray, used: np.ndarray, clock: int) -> None:
        """counts (U,) uint16 of a bin, used (U,) bool; clock: bins since the marker, or -1."""
        if self.bank.lags:
            kernel.take_lags(self.state, counts, used, self.bank.root, self.values)
        else:
            kernel.take_filters(self.state, self.keep, counts, used, self.bank.root, self.values)
        if self.bank.clock_bins:
            self.values[self.n :] = 0.0
            if clock >= 0:
                self.values[self.n + min(clock, self.bank.clock_bins - 1)] = CLOCK_SCALE


class LinearEngine:
    """The causal ridge (and logistic for classes) stored with a checkpoint."""

    name = "linear-numba-cpu"
    window_bins = 0

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, self.layout = checkpoint, layout(checkpoint)
        n_units, bin_ns = len(checkpoint.units), checkpoint.header.bin_ns
        self.kept = checkpoint.scalers.kept
        self.nothing = np.zeros(n_units, np.uint16)
        self.banks = {m.bank: Features(m.bank, n_units, bin_ns) for m in checkpoint.linear.values()}
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.readouts = []
        for spec in self.layout.specs:
            model = checkpoint.linear[spec.name]
            out = self.values[self.layout.columns[spec.name]]
            bias = np.atleast_1d(model.bias)
            self.readouts.append((self.banks[model.bank].values, model.weight, bias, spec.kind == "class", out))

    def reset(self, position: int = 0) -> None:
        for bank in self.banks.values():
            bank.reset()

    def skip(self, n_bins: int) -> None:
        for _ in range(n_bins):
            for bank in self.banks.values():
                bank.step(self.nothing, self.kept, -1)

    def step(self, token: Token) -> np.ndarray:
        counts = token.counts if token.valid else self.nothing
        for bank in self.banks.values():
            bank.step(counts, self.kept, token.clock)
        for readout in self.readouts:
            kernel.read(*readout)
        return self.values

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """The same values (T, V) by `neds_core.linear`."""
        seen = np.where(self.kept & valid[:, None], counts, 0).astype(np.float32)
        bin_ns = self.checkpoint.header.bin_ns
        found = {bank: linear.features(bank, seen, clock, reset, bin_ns) for bank in self.banks}
        out = np.zeros((len(counts), self.layout.n_values), np.float32)
        for spec in self.layout.specs:
            model = self.checkpoint.linear[spec.name]
            y = model.apply(found[model.bank])
            if spec.kind == "class":
                y = np.exp(y - y.max(-1, keepdims=True))
                y /= y.sum(-1, keepdims=True)
            out[:, self.layout.columns[spec.name]] = y
        return out
