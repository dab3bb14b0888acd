"""NEDS: one masked transformer over spikes and behaviour, read in both directions.

Zhang et al., Neural Encoding and Decoding at Scale (ICML 2025). attention "full" is their pattern:
a window from a segment's start, both directions, learned positions, and hidden tokens are keys too.
attention "causal" is made for streaming: hidden tokens are queries and never keys, positions are
rotary only, sinks replace cold starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from neds_core.config import ModelConfig
from neds_core.data.session import BehaviourSpec
from neds_core.errors import DataError
from neds_core.model import banded, embed
from neds_core.model.attention import Attention, Full, attention
from neds_core.model.embed import UnitStitcher, UnitTokenizer, WindowReadout


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one session.

    counts (B, T, U) float32; valid (B, T) bool, False = padding or no live data; traces
    name -> (B, T) float32 z-scored, NaN = undefined; classes name -> (B, T) int64, -1 =
    undefined; clock (B, T) int64 bins since the segment's marker, -1 = not known; session:
    row in the session table; filters (B, K, U): their states before the first bin, None = cold.
    """

    counts: Tensor
    valid: Tensor
    traces: dict[str, Tensor]
    classes: dict[str, Tensor]
    clock: Tensor
    session: int = 0
    filters: Tensor | None = None


class Block(nn.Module):
    """Pre-LayerNorm transformer block (Zhang et al. 2025, App. A).

    Of the mixed values, the published pattern drops before the projection, the causal one after it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.band = config.band
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.mlp)
        self.down = nn.Linear(config.mlp, width)
        is_full = config.attention == "full"
        self.drop_mixed = nn.Dropout(config.dropout if is_full else 0.0)
        self.drop_out = nn.Dropout(0.0 if is_full else config.dropout)
        self.drop_mlp = nn.Dropout(config.dropout)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, D) to q, k, v, each (B, H, N, K)."""
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        return q.reshape(shape).transpose(1, 2), k.reshape(shape).transpose(1, 2), v.reshape(shape).transpose(1, 2)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Residual stream x (B, N, D) after attention output mixed (B, H, N, K)."""
        x = x + self.drop_out(self.out(self.drop_mixed(mixed.transpose(1, 2).flatten(2))))
        return x + self.drop_mlp(self.down(nn.functional.gelu(self.up(self.norm_mlp(x)))))

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor, n_sinks: int, attend: Attention) -> Tensor:
        q, k, v = self.heads_of(x)
        mixed = attend(q, k, v, position=position, hidden=hidden, band=self.band, n_sinks=n_sinks)
        return self.finish(x, mixed)


@dataclass(frozen=True, slots=True)
class Everywhere:
    """A kernel without its band: every key of the window."""

    kernel: Callable[..., Tensor]

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, position: Tensor, hidden: Tensor, band: int, n_sinks: int
    ) -> Tensor:
        """Arguments and result as in `attention.attention`, but that band is ignored."""
        return self.kernel(q, k, v, position=position, hidden=hidden, band=None, n_sinks=n_sinks)


class NEDS(nn.Module):
    """Tokens of a bin are ordered (spikes, behaviour 1, behaviour 2, ...); bins follow each other."""

    def __init__(self, config: ModelConfig, n_units: tuple[int, ...], specs: tuple[BehaviourSpec, ...]) -> None:
        """n_units: units of each session, in the order of the session table."""
        super().__init__()
        width = config.width
        self.config, self.specs = config, specs
        # attention in place of torch's own, where a trainer on a GPU gives one
        self.kernel: Callable[..., Tensor] | None = None
        is_full, n_sessions, n_modalities = config.attention == "full", len(n_units), 1 + len(specs)
        self.units = nn.ModuleList(embed.spike_tokenizer(config, n) for n in n_units)
        self.rates = nn.ModuleList(nn.Linear(width, n) for n in n_units)
        self.behaviour = embed.ByName({s.name: embed.behaviour_tokenizer(config, s, n_sessions) for s in specs})
        self.heads = embed.ByName({s.name: embed.read_out(config, s, n_sessions) for s in specs})
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.modality = nn.Parameter(torch.randn(n_modalities, width) * 0.3)
        if is_full:  # every modality has its own table of positions and of sessions
            self.session = nn.Parameter(torch.randn(n_sessions, n_modalities, width) * 0.1)
            self.position = nn.Parameter(torch.randn(config.window_bins, n_modalities, width) * 0.1)
        else:
            self.session = nn.Parameter(torch.randn(n_sessions, width) * 0.3)
            self.registers = nn.Parameter(torch.randn(config.registers, width) * 0.3)
        self.clock = nn.Embedding(config.clock_bins + 1, width) if config.clock_bins else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.drop_value = nn.Dropout(config.embed_dropout if is_full else 0.0)
        self.drop_token = nn.Dropout(0.0 if is_full else config.embed_dropout)
        self._init(config)

    def _init(self, config: ModelConfig) -> None:
        """Depth-scaled residual projections, small heads: a fresh model predicts the mean."""
        for block in self.layers:
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=(2 * config.layers * layer.in_features) ** -0.5)
                nn.init.zeros_(layer.bias)
        for head in [h for h in (*self.heads.modules(), *self.rates) if isinstance(h, nn.Linear)]:
            nn.init.normal_(head.weight, std=0.1 * config.width**-0.5)
            nn.init.zeros_(head.bias)
        if self.clock is not None:
            nn.init.normal_(self.clock.weight, std=0.3)
        for name in self.left_out:
            nn.init.zeros_(self.get_parameter(name)).requires_grad_(False)

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the parameters of the embeddings that `config.without` leaves out: zero, and never trained."""
        time = "position" if self.config.attention == "full" else "clock.weight" if self.clock is not None else None
        tables = {"modality": "modality", "session": "session", "temporal": time}
        return frozenset(table for name in self.config.without if (table := tables[name]) is not None)

    def tokenizer(self, session: int = 0) -> UnitTokenizer | UnitStitcher:
        """The spike tokenizer of a session."""
        return cast(UnitTokenizer | UnitStitcher, self.units[session])

    def head(self, name: str, session: int = 0) -> nn.Linear:
        """The read-out of a behaviour."""
        head = embed.of_session(self.heads, name, session)
        return head.linear if isinstance(head, WindowReadout) else cast(nn.Linear, head)

    def rate_head(self, session: int = 0) -> nn.Linear:
        """The log-rate read-out of a session's units."""
        return cast(nn.Linear, self.rates[session])

    @property
    def layers(self) -> list[Block]:
        """The transformer blocks, first to last."""
        return [cast(Block, block) for block in self.blocks]

    @property
    def n_sinks(self) -> int:
        """Session embedding + registers; none in full attention."""
        return 0 if self.config.attention == "full" else 1 + self.config.registers

    def sinks(self, session: int) -> Tensor:
        """Sink tokens (S, D): constants of a session, always visible, attending only to themselves."""
        if self.config.attention == "full":
            return self.mask_token.new_zeros((0, self.config.width))
        return torch.cat([self.session[session : session + 1], self.registers])

    def pattern(self) -> Attention:
        """The attention of the configuration: the kernel where there is one, on the CPU the fast twin of the plain one.

        Dropout of attention weights is torch's alone.
        """
        is_full, drops = self.config.attention == "full", self.training and self.config.attention_dropout > 0
        if self.kernel is not None and not (is_full and drops):
            return Everywhere(self.kernel) if is_full else self.kernel
        if not is_full:
            return banded.attention if self.mask_token.is_cpu else attention
        return Full(self.config.attention_dropout if self.training else 0.0)

    def when(self, batch: Batch) -> Tensor | float:
        """What a token says of time and session beside its content; broadcasts to (B, T, M, D)."""
        if self.config.attention == "full":
            return self.position[: batch.valid.shape[1]] + self.session[batch.session]
        if self.clock is None:
            return 0.0
        return self.clock((batch.clock + 1).clamp(0, self.config.clock_bins))[:, :, None]

    def spike_content(self, batch: Batch, hidden: Tensor, keep: Tensor | None) -> Tensor:
        """Spike tokens (B, T, D) without what they say of time and modality; hidden (B, T): those that are not shown.

        Filters run over shown bins alone: a later bin would tell what a hidden one holds.
        """
        tokenizer = self.tokenizer(batch.session)
        if not self.config.filter_taus_ms:
            return tokenizer(batch.counts, keep)
        shown = batch.counts.masked_fill((hidden | ~batch.valid)[..., None], 0.0)
        return tokenizer(shown, keep, batch.filters)

    def tokens(self, batch: Batch, hidden: Tensor, keep: Tensor | None) -> Tensor:
        """All tokens (B, T, M, D); hidden (B, T, M). A hidden token is the same whatever it hides."""
        shown = [self.spike_content(batch, hidden[..., 0], keep)]
        for spec in self.specs:
            tokenize = embed.of_session(self.behaviour, spec.name, batch.session)
            if spec.kind == "continuous":
                shown.append(tokenize(batch.traces[spec.name].nan_to_num()[..., None]))
            else:
                shown.append(tokenize(batch.classes[spec.name].clamp(min=0)))
        content = torch.where(hidden[..., None], self.mask_token, self.drop_value(torch.stack(shown, 2)))
        return content + self.modality + self.when(batch)

    def forward(
        self, batch: Batch, hidden: Tensor, keep: Tensor | None = None, attend: Attention | None = None
    ) -> dict[str, Tensor]:
        """Encode windows and read every head at every bin.

        hidden (B, T, M) bool, True = the encoder may not see that token. keep (B, 1, U):
        unit dropout. attend: None = `pattern`. Returns "spikes" log-rates (B, T, U), continuous
        (B, T), logits (B, T, C); the published read-out gives every bin the window's logits.

        Causal: a hidden token is no key. Full: it is one, as published, so that a token's place
        among the hidden ones can be read. Tokens of bins that are not valid are never keys.
        """
        n_batch, n_bins, n_modalities = hidden.shape
        if self.config.attention == "full" and n_bins > self.config.window_bins:
            raise DataError(
                f"a window of {n_bins} bins is longer than the {self.config.window_bins} of this model; "
                "raise model.window_bins, or train with attention = 'causal'"
            )
        sinks = self.sinks(batch.session).expand(n_batch, -1, -1)
        tokens = self.tokens(batch, hidden, keep).flatten(1, 2)
        x = self.drop_token(torch.cat([sinks, tokens], dim=1))
        device = hidden.device
        bins = torch.arange(n_bins, device=device).repeat_interleave(n_modalities)
        position = torch.cat([bins.new_zeros(self.n_sinks), bins])
        keyless = (~batch.valid[..., None]).expand_as(hidden)
        if self.config.attention == "causal":
            keyless = keyless | hidden
        keyless = torch.cat([hidden.new_zeros((n_batch, self.n_sinks)), keyless.flatten(1)], dim=1)
        attend = attend or self.pattern()
        for block in self.layers:
            x = block(x, position, keyless, self.n_sinks, attend)
        x = self.norm(x[:, self.n_sinks :]).unflatten(1, (n_bins, n_modalities))
        out = {"spikes": self.rates[batch.session](x[:, :, 0])}
        for m, spec in enumerate(self.specs, start=1):
            head = embed.of_session(self.heads, spec.name, batch.session)
            y = head(x[:, :, m], batch.valid) if isinstance(head, WindowReadout) else head(x[:, :, m])
            out[spec.name] = y[..., 0] if spec.kind == "continuous" else y
        return out
