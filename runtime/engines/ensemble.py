"""The engine of a weighted sum: the networks of an ensemble, and the linear decoder where it has a share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.cpu import linear as kernel
from runtime.core.engine import Engine
from runtime.core.values import Token
from runtime.engines.linear import LinearEngine
from runtime.engines.stream import StreamEngine
from runtime.engines.stream_weights import Steppers


def with_linear(shares: np.ndarray) -> np.ndarray:
    """(K + 1, V) float32: the shares (K, V) of K networks, and what is missing to 1."""
    own = shares.astype(np.float32)
    return np.concatenate([own, 1.0 - own.sum(0, keepdims=True)])


def weighted(weights: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum (T, V) of what each part said (T, V), times its weight (V,), in their order."""
    total = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        total += weight * part
    return total


def variance(each: Sequence[np.ndarray]) -> np.ndarray:
    """Sample variance (T, V) between what networks said (T, V), zeros of one."""
    return np.var(np.stack(each), axis=0, ddof=1) if len(each) > 1 else np.zeros_like(each[0])


class EnsembleEngine:
    """The sum of its parts' values in units (probabilities of classes), each times a fixed weight, in their order.

    Networks of the stream engine step in one call of compiled code. variance (V,) float32: the sample variance between
    the networks at the last step, zeros of one.
    """

    def __init__(self, networks: Sequence[Engine], shares: np.ndarray, linear: LinearEngine | None = None) -> None:
        """shares (K, V) of K networks; what is missing to 1 is the linear decoder's, where there is one."""
        self.networks = tuple(networks)
        self.parts: tuple[Engine, ...] = self.networks if linear is None else (*self.networks, linear)
        self.layout, self.window_bins = self.parts[0].layout, self.parts[0].window_bins
        self.weights = shares.astype(np.float32) if linear is None else with_linear(shares)
        kind = self.networks[0].name if len(self.networks) == 1 else f"{len(self.networks)} x {self.networks[0].name}"
        self.name = kind if linear is None else f"{kind} + {linear.name}"
        self.values = np.zeros(self.layout.n_values, np.float32)
        self.variance = np.zeros(self.layout.n_values, np.float32)
        self._term = np.zeros(self.layout.n_values, np.float32)
        self._each = np.zeros((len(self.networks), self.layout.n_values), np.float32)
        self._rows = list(self._each)
        streams = [network for network in self.networks if isinstance(network, StreamEngine)]
        self._together = Steppers([one.stepper for one in streams]) if len(streams) == len(self.networks) > 1 else None

    def reset(self, position: int = 0) -> None:
        for part in self.parts:
            part.reset(position)

    def skip(self, n_bins: int) -> None:
        for part in self.parts:
            part.skip(n_bins)

    def step(self, token: Token) -> np.ndarray:
        self._step_networks(token)
        for part in self.parts[len(self.networks) :]:
            part.step(token)
        np.multiply(self.weights[0], self.parts[0].values, out=self.values)
        for weight, part in zip(self.weights[1:], self.parts[1:], strict=True):
            np.multiply(weight, part.values, out=self._term)
            np.add(self.values, self._term, out=self.values)
        if len(self.networks) > 1:
            for row, network in zip(self._rows, self.networks, strict=True):
                row[:] = network.values
            kernel.variance(self._each, self.variance)
        return self.values

    def _step_networks(self, token: Token) -> None:
        first = self.networks[0]
        if self._together is not None and isinstance(first, StreamEngine):
            counts, row = first.taken(token)
            self._together.step(counts, token.valid, row)
            return
        for network in self.networks:
            network.step(token)

    def rehearse(self) -> None:
        """`Stepper.rehearse` of each network; all are of the stream engine."""
        if self._together is not None:
            self._together.rehearse()
            return
        for network in self.networks:
            assert isinstance(network, StreamEngine)
            network.rehearse()

    def offline(self, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray) -> np.ndarray:
        """The same sum of what its parts say offline."""
        return weighted(self.weights, [part.offline(counts, valid, clock, reset) for part in self.parts])
