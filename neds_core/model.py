"""NEDS: one masked transformer over spikes and behaviour, read in both directions.

Zhang et al., Neural Encoding and Decoding at Scale (ICML 2025), made causal for streaming:
hidden tokens are queries and never keys, positions are rotary only, sinks replace cold starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from neds_core.attention import Attention, attention
from neds_core.config import ModelConfig
from neds_core.session import BehaviourSpec


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one session.

    counts (B, T, U) float32; valid (B, T) bool, False = padding or no live data; traces
    name -> (B, T) float32 z-scored, NaN = undefined; classes name -> (B, T) int64, -1 =
    undefined; clock (B, T) int64 bins since the segment's marker, -1 = not known; session:
    row in the session table.
    """

    counts: Tensor
    valid: Tensor
    traces: dict[str, Tensor]
    classes: dict[str, Tensor]
    clock: Tensor
    session: int = 0


class UnitTokenizer(nn.Module):
    """Spike counts of a bin to one token: a sum of one learned row per unit.

    Counts enter as (sqrt(count) - mean) / sd with the training part's mean and sd; a filtered
    unit has gain 0, so its row adds nothing.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, n_units: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(n_units, width) * (2.0 / max(n_units, 1)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(n_units))
        self.register_buffer("gain", torch.ones(n_units))

    def forward(self, counts: Tensor, keep: Tensor | None = None) -> Tensor:
        """counts (..., U) to tokens (..., D); keep broadcasts over units (unit dropout)."""
        z = (counts.sqrt() - self.mean) * self.gain
        return (z if keep is None else z * keep) @ self.rows + self.bias


class Block(nn.Module):
    """Pre-LayerNorm transformer block (Zhang et al. 2025, App. A)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.band = config.band
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.mlp_ratio * width)
        self.down = nn.Linear(config.mlp_ratio * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, D) to q, k, v, each (B, H, N, K)."""
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        return q.reshape(shape).transpose(1, 2), k.reshape(shape).transpose(1, 2), v.reshape(shape).transpose(1, 2)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Residual stream x (B, N, D) after attention output mixed (B, H, N, K)."""
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(nn.functional.gelu(self.up(self.norm_mlp(x)))))

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor, n_sinks: int, attend: Attention) -> Tensor:
        q, k, v = self.heads_of(x)
        mixed = attend(q, k, v, position=position, hidden=hidden, band=self.band, n_sinks=n_sinks)
        return self.finish(x, mixed)


class NEDS(nn.Module):
    """Tokens of a bin are ordered (spikes, behaviour 1, behaviour 2, ...); bins follow each other."""

    def __init__(self, config: ModelConfig, n_units: tuple[int, ...], specs: tuple[BehaviourSpec, ...]) -> None:
        """n_units: units of each session, in the order of the session table."""
        super().__init__()
        width = config.width
        self.config, self.specs = config, specs
        self.units = nn.ModuleList(UnitTokenizer(n, width) for n in n_units)
        self.rates = nn.ModuleList(nn.Linear(width, n) for n in n_units)
        self.behaviour = nn.ModuleDict(
            {
                s.name: nn.Linear(1, width) if s.kind == "continuous" else nn.Embedding(len(s.classes), width)
                for s in specs
            }
        )
        self.heads = nn.ModuleDict(
            {s.name: nn.Linear(width, 1 if s.kind == "continuous" else len(s.classes)) for s in specs}
        )
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.modality = nn.Parameter(torch.randn(1 + len(specs), width) * 0.3)
        self.session = nn.Parameter(torch.randn(len(n_units), width) * 0.3)
        self.registers = nn.Parameter(torch.randn(config.registers, width) * 0.3)
        self.clock = nn.Embedding(config.clock_bins + 1, width) if config.clock_bins else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.drop_token = nn.Dropout(config.embed_dropout)
        self._init(config)

    def _init(self, config: ModelConfig) -> None:
        """Depth-scaled residual projections, small heads: a fresh model predicts the mean."""
        for block in self.layers:
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=(2 * config.layers * layer.in_features) ** -0.5)
                nn.init.zeros_(layer.bias)
        for head in [cast(nn.Linear, h) for h in (*self.heads.values(), *self.rates)]:
            nn.init.normal_(head.weight, std=0.1 * config.width**-0.5)
            nn.init.zeros_(head.bias)
        if self.clock is not None:
            nn.init.normal_(self.clock.weight, std=0.3)
        self._switch_off(config)

    def _switch_off(self, config: ModelConfig) -> None:
        """Embeddings left out of the configuration are zero and do not learn; every other draw stays as it is."""
        clock = [] if self.clock is None else [self.clock.weight]
        tables = {"modality": [self.modality], "temporal": clock, "session": [self.session]}
        for table in [t for name, found in tables.items() if name not in config.embeddings for t in found]:
            nn.init.zeros_(table)
            table.requires_grad_(False)

    def tokenizer(self, session: int = 0) -> UnitTokenizer:
        """The spike tokenizer of a session."""
        return cast(UnitTokenizer, self.units[session])

    def head(self, name: str) -> nn.Linear:
        """The read-out of a behaviour."""
        return cast(nn.Linear, self.heads[name])

    def rate_head(self, session: int = 0) -> nn.Linear:
        """The log-rate read-out of a session's units."""
        return cast(nn.Linear, self.rates[session])

    @property
    def layers(self) -> list[Block]:
        """The transformer blocks, first to last."""
        return [cast(Block, block) for block in self.blocks]

    @property
    def n_sinks(self) -> int:
        """Session embedding + registers."""
        return 1 + self.config.registers

    def sinks(self, session: int) -> Tensor:
        """Sink tokens (S, D): constants of a session, always visible, attending only to themselves."""
        return torch.cat([self.session[session : session + 1], self.registers])

    def clock_code(self, clock: Tensor) -> Tensor | float:
        """Event embedding (..., D) of bins since the segment's marker; row 0 = not known."""
        if self.clock is None:
            return 0.0
        return self.clock((clock + 1).clamp(0, self.config.clock_bins))

    def spike_token(self, counts: Tensor, clock: Tensor, session: int = 0, keep: Tensor | None = None) -> Tensor:
        """Visible spike tokens (..., D) of counts (..., U)."""
        return self.tokenizer(session)(counts, keep) + self.modality[0] + self.clock_code(clock)

    def query_token(self, modality: int, clock: Tensor) -> Tensor:
        """Hidden token (..., D) of a modality (0 = spikes); the same whatever it hides."""
        asked = (self.mask_token + self.modality[modality]).expand(*clock.shape, -1)
        return asked + self.clock_code(clock)

    def tokens(self, batch: Batch, hidden: Tensor, keep: Tensor | None) -> Tensor:
        """All tokens (B, T, M, D); hidden (B, T, M)."""
        shown = [self.spike_token(batch.counts, batch.clock, batch.session, keep)]
        code = self.clock_code(batch.clock)
        for m, spec in enumerate(self.specs, start=1):
            embed = self.behaviour[spec.name]
            if spec.kind == "continuous":
                value = embed(batch.traces[spec.name].nan_to_num()[..., None])
            else:
                value = embed(batch.classes[spec.name].clamp(min=0))
            shown.append(value + self.modality[m] + code)
        asked = [self.query_token(m, batch.clock) for m in range(len(shown))]
        return torch.where(hidden[..., None], torch.stack(asked, 2), torch.stack(shown, 2))

    def forward(
        self, batch: Batch, hidden: Tensor, keep: Tensor | None = None, attend: Attention = attention
    ) -> dict[str, Tensor]:
        """Encode windows and read every head at every bin.

        hidden (B, T, M) bool, True = the encoder may not see that token. keep (B, 1, U):
        unit dropout. Returns "spikes" log-rates (B, T, U), continuous (B, T), logits (B, T, C).
        """
        n_batch, n_bins, n_modalities = hidden.shape
        sinks = self.sinks(batch.session).expand(n_batch, -1, -1)
        tokens = self.tokens(batch, hidden, keep).flatten(1, 2)
        x = self.drop_token(torch.cat([sinks, tokens], dim=1))
        device = hidden.device
        bins = torch.arange(n_bins, device=device).repeat_interleave(n_modalities)
        position = torch.cat([bins.new_zeros(self.n_sinks), bins])
        keyless = torch.cat(
            [hidden.new_zeros((n_batch, self.n_sinks)), (hidden | ~batch.valid[..., None]).flatten(1)], dim=1
        )
        for block in self.layers:
            x = block(x, position, keyless, self.n_sinks, attend)
        x = self.norm(x[:, self.n_sinks :]).unflatten(1, (n_bins, n_modalities))
        out = {"spikes": self.rates[batch.session](x[:, :, 0])}
        for m, spec in enumerate(self.specs, start=1):
            y = self.heads[spec.name](x[:, :, m])
            out[spec.name] = y[..., 0] if spec.kind == "continuous" else y
        return out
