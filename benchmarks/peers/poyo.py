"""POYO (Azabou et al. 2023) of the package torch-brain (`[peers]`): spikes as tokens, latents, queries in time.

It reads the whole window, also what follows the queried time, so it stands beside the acausal
ridge. Each output is one number of one read-out, which is what POYO+ comes to where all outputs
are sampled together. Spikes of a bin are placed at its middle: finer times are not in the recording.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from benchmarks.peers import sequence
from benchmarks.peers.task import Fitted, Peer, Setting, Task
from neds_core.session import Session

LATENT_STEP_S = 0.125
LATENTS = 8  # of each step


def installed() -> bool:
    """Whether torch-brain is here."""
    return importlib.util.find_spec("torch_brain") is not None


def spike_tokens(counts: Tensor, bin_s: float) -> tuple[Tensor, Tensor, Tensor]:
    """counts (B, T, U) to padded unit (B, N) int64 (1 + unit, 0 = start), time (B, N) s and mask (B, N).

    Token 0 of each window is its start, so that a silent window is not empty.
    """
    n_batch = len(counts)
    b, t, u = counts.nonzero(as_tuple=True)
    n = counts[b, t, u].long()
    b, t, u = b.repeat_interleave(n), t.repeat_interleave(n), u.repeat_interleave(n)
    each = torch.bincount(b, minlength=n_batch)
    place = torch.arange(len(b)) - (each.cumsum(0) - each)[b] + 1
    shape = (n_batch, 1 + int(each.max()) if len(b) else 1)
    unit, time = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool)
    unit[b, place], time[b, place], mask[b, place] = 1 + u, (t + 0.5) * bin_s, True
    mask[:, 0] = True
    return unit, time, mask


class Network(nn.Module):
    """torch-brain's POYO behind the contract of `sequence`: counts (B, T, U), valid (B, T) -> z-scores (B, T, V)."""

    kept: Tensor
    latent: Tensor
    latent_s: Tensor

    def __init__(self, task: Task, setting: Setting) -> None:
        super().__init__()
        from torch_brain.models import POYO  # pyright: ignore[reportMissingImports]

        self.bin_s = task.session.bin_ns * 1e-9
        longest = int((task.session.segments[:, 1] - task.session.segments[:, 0]).max())  # a trial is one window
        n_steps = int(-(-longest * self.bin_s // LATENT_STEP_S))
        self.poyo = POYO(
            sequence_length=n_steps * LATENT_STEP_S,
            latent_step=LATENT_STEP_S,
            num_latents_per_step=LATENTS,
            dim_out=len(task.specs),
            dim=setting["width"],
            depth=setting["depth"],
            dim_head=setting["width"] // 2,
            cross_heads=2,
            self_heads=4,
            lin_dropout=setting["dropout"],
        )
        self.poyo.unit_emb.initialize_vocab(["start", *(str(u) for u in range(len(task.scale.kept)))])
        self.poyo.session_emb.initialize_vocab([task.session.name])
        names = ["start", *(str(u) for u in range(len(task.scale.kept)))]
        self.register_buffer("row", torch.tensor(self.poyo.unit_emb.tokenizer(names)))
        self.session = int(self.poyo.session_emb.tokenizer(task.session.name))
        self.register_buffer("kept", torch.from_numpy(task.scale.kept))
        self.register_buffer("latent", torch.arange(LATENTS).repeat(n_steps))
        self.register_buffer("latent_s", ((torch.arange(n_steps) + 0.5) * LATENT_STEP_S).repeat_interleave(LATENTS))

    def forward(self, counts: Tensor, valid: Tensor) -> Tensor:
        n_batch, n_bins, _ = counts.shape
        unit, time, mask = spike_tokens(counts * (self.kept & valid[..., None]), self.bin_s)
        return self.poyo(
            input_unit_index=self.get_buffer("row")[unit],
            input_timestamps=time,
            input_token_type=(unit == 0).long(),
            input_mask=mask,
            latent_index=self.latent.expand(n_batch, -1),
            latent_timestamps=self.latent_s.expand(n_batch, -1),
            session_index=torch.full((n_batch,), self.session),
            output_timestamps=((torch.arange(n_bins) + 1) * self.bin_s).expand(n_batch, -1),
        )


def grid(task: Task) -> list[Setting]:
    """Rates of learning: a step is so dear on a CPU that the full table allows no more."""
    common = {"weight_decay": 0.01, "unit_dropout": 0.3, "depth": 2, "width": 64, "dropout": 0.4, "steps": 400}
    return [{**common, "learning_rate": rate} for rate in (1e-3, 3e-3)]


def search(task: Task) -> tuple[Setting, str]:
    """The rate of learning on the rolling origins; quick: none, and a short training."""
    if task.quick:
        return {**grid(task)[1], "steps": 160, "stop": 160}, "nothing (quick)"

    def build_of(setting: Setting, before: Session, seed: int) -> sequence.Build:
        return lambda: Network(task, setting)

    settings = grid(task)
    return sequence.search(task, settings, build_of), f"{len(settings)} settings on rolling origins"


def fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """One seed on training + validation."""
    part = task.parts.development
    network, _, _ = sequence.train(lambda: Network(task, setting), task, setting, part, None, seed, setting["stop"])
    return Fitted(sequence.predictor(task, network), sum(p.numel() for p in network.parameters()))


POYO = Peer("POYO (torch-brain)", search, fit, "future", 3)
