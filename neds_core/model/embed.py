"""Values to tokens and tokens to outputs: a row for each unit, or the published two-layer stitcher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neds_core.config import ModelConfig
from neds_core.data import filters
from neds_core.data.filters import Filters
from neds_core.data.session import BehaviourSpec


class UnitTokenizer(nn.Module):
    """Spike counts of a bin to one token: a sum of one learned row per unit, and of one for each of its filters.

    Counts enter as (sqrt(count) - mean) / sd with the training part's mean and sd; a filtered
    unit has gain 0, so its row adds nothing. So do the K causal filters of a unit's counts (`data.filters`).
    rows ((1 + K) U, D): of the counts first, then of each filter.
    """

    mean: Tensor
    gain: Tensor
    filter_keep: Tensor
    filter_mean: Tensor
    filter_gain: Tensor

    def __init__(self, n_units: int, width: int, n_filters: int = 0) -> None:
        super().__init__()
        n_rows = (1 + n_filters) * n_units
        self.n_filters = n_filters
        self.rows = nn.Parameter(torch.randn(n_rows, width) * (2.0 / max(n_rows, 1)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(n_units))
        self.register_buffer("gain", torch.ones(n_units))
        if n_filters:
            self.register_buffer("filter_keep", torch.zeros(n_filters))
            self.register_buffer("filter_mean", torch.zeros(n_filters, n_units))
            self.register_buffer("filter_gain", torch.ones(n_filters, n_units))

    def forward(self, counts: Tensor, keep: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """counts (..., U) to tokens (..., D); keep broadcasts over units (unit dropout), of all their copies.

        With filters, counts are (B, T, U), 0 in bins that are not seen; start (B, K, U): see `filters.run`.
        """
        z = (counts.sqrt() - self.mean) * self.gain
        if not self.n_filters:
            return (z if keep is None else z * keep) @ self.rows + self.bias
        filtered = (filters.run(counts, self.filter_keep, start).sqrt() - self.filter_mean) * self.filter_gain
        both = torch.cat([z[..., None, :], filtered], -2)
        return (both if keep is None else both * keep[..., None, :]).flatten(-2) @ self.rows + self.bias

    @torch.no_grad()
    def adopt(self, found: Filters) -> None:
        """Take over the filters of a training part."""
        for name in ("keep", "mean", "gain"):
            self.get_buffer(f"filter_{name}").copy_(torch.from_numpy(getattr(found, name)))

    def filters(self) -> Filters | None:
        """Its filters; None where there are none."""
        if not self.n_filters:
            return None
        return Filters(self.filter_keep.numpy(), self.filter_mean.numpy(), self.filter_gain.numpy())

    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and gain ((1 + K) U,) of all that has a row."""
        if not self.n_filters:
            return self.mean, self.gain
        return torch.cat([self.mean, self.filter_mean.flatten()]), torch.cat([self.gain, self.filter_gain.flatten()])


def projection(inner: int, width: int) -> nn.Linear:
    """Second layer of a stitcher: starts three times as large as torch would, so that a token's
    content is not drowned by the embeddings that are added to it."""
    layer = nn.Linear(inner, width)
    nn.init.normal_(layer.weight, std=3.0 * (3 * inner) ** -0.5)
    return layer


class UnitStitcher(nn.Module):
    """The published spike tokenizer: Linear(U, 2U), Softsign, Linear(2U, D) of counts as they are.

    Zhang et al. 2025, sec. 3.3. `mean` and `gain` are kept for whoever asks what the training
    part looked like; of them the tokenizer reads only which gains are 0: filtered units.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, n_units: int, inner: int, width: int) -> None:
        super().__init__()
        self.spread = nn.Linear(n_units, inner)
        self.project = projection(inner, width)
        self.register_buffer("mean", torch.zeros(n_units))
        self.register_buffer("gain", torch.ones(n_units))

    def forward(self, counts: Tensor, keep: Tensor | None = None) -> Tensor:
        """counts (..., U) to tokens (..., D); keep broadcasts over units (unit dropout)."""
        shown = counts * (self.gain != 0)
        return self.project(nn.functional.softsign(self.spread(shown if keep is None else shown * keep)))

    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and gain (U,)."""
        return self.mean, self.gain

    def filters(self) -> None:
        """It has none."""


class TraceStitcher(nn.Module):
    """The published tokenizer of a continuous behaviour: Linear(1, 2), Softsign, Linear(2, D) of each bin."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Linear(1, 2)
        self.project = projection(2, width)

    def forward(self, values: Tensor) -> Tensor:
        """values (B, T, 1) to tokens (B, T, D)."""
        return self.project(nn.functional.softsign(self.spread(values)))


class ClassStitcher(nn.Module):
    """The published tokenizer of a class: its index as a number, coded apart for each bin of the window.

    Linear(1, 2T) reshaped to (T, 2), Softsign, Linear(2, D).
    """

    def __init__(self, window_bins: int, width: int) -> None:
        super().__init__()
        self.spread = nn.Linear(1, 2 * window_bins)
        self.project = projection(2, width)

    def forward(self, labels: Tensor) -> Tensor:
        """labels (B, T) int64, bin 0 the window's first, to tokens (B, T, D)."""
        weight, bias = self.spread.weight.view(-1, 2), self.spread.bias.view(-1, 2)
        n_bins = labels.shape[1]
        code = labels[..., None].to(weight.dtype) * weight[:n_bins] + bias[:n_bins]
        return self.project(nn.functional.softsign(code))


class WindowReadout(nn.Module):
    """The published read-out of a class: one weight for each bin of the window, then a Linear.

    Starts as the mean over bins. (The published weights start uniform in 0..1: their sum of
    about T / 2 makes a first cross-entropy of about 20.)
    """

    def __init__(self, window_bins: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((window_bins,), 1.0 / window_bins))
        self.linear = nn.Linear(width, n_classes)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D) and valid (B, T) bool, False = left out, to one row of logits repeated, (B, T, C)."""
        weight = self.weight[: x.shape[1]] * valid
        return self.linear((weight[..., None] * x).sum(1))[:, None].expand(-1, x.shape[1], -1)


def spike_tokenizer(config: ModelConfig, n_units: int) -> UnitTokenizer | UnitStitcher:
    """The spike tokenizer of one session."""
    if config.tokenizer == "stitcher":
        return UnitStitcher(n_units, config.stitcher_width or 2 * n_units, config.width)
    return UnitTokenizer(n_units, config.width, len(config.filter_taus_ms))


def behaviour_tokenizer(config: ModelConfig, spec: BehaviourSpec, n_sessions: int) -> nn.Module:
    """The tokenizer of a behaviour: one for all sessions, or a list with a stitcher for each."""
    if config.tokenizer == "rows":
        if spec.kind == "continuous":
            return nn.Linear(1, config.width)
        return nn.Embedding(len(spec.classes), config.width)
    if spec.kind == "continuous":
        return nn.ModuleList(TraceStitcher(config.width) for _ in range(n_sessions))
    return nn.ModuleList(ClassStitcher(config.window_bins, config.width) for _ in range(n_sessions))


def read_out(config: ModelConfig, spec: BehaviourSpec, n_sessions: int) -> nn.Module:
    """The head of a behaviour: one Linear for all sessions, or a list with the published head of each."""
    n_out = 1 if spec.kind == "continuous" else len(spec.classes)
    if config.tokenizer == "rows":
        return nn.Linear(config.width, n_out)
    if spec.kind == "continuous":
        return nn.ModuleList(nn.Linear(config.width, 1) for _ in range(n_sessions))
    return nn.ModuleList(WindowReadout(config.window_bins, config.width, n_out) for _ in range(n_sessions))


class ByName(nn.ModuleDict):
    """Modules by the names of behaviours, also those that are names of a module's own members (type, training)."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__({_key(name): module for name, module in modules.items()})

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(_key(name))


def _key(name: str) -> str:
    """A behaviour's name has no space at its end, so none of these is another's."""
    return f"{name} " if hasattr(nn.ModuleDict(), name) else name


def of_session(modules: nn.ModuleDict, name: str, session: int) -> nn.Module:
    """The module of a name that serves a session: the shared one, or the session's own."""
    module = modules[name]
    return module[session] if isinstance(module, nn.ModuleList) else module
