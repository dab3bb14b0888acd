"""POYO+ (Azabou et al. 2025): POYO's spikes as tokens, latents and queries in time, with tasks read out apart.

The encoder, the latents' layers and the decoder's attention are those of the package torch-brain
(`[peers]`), whose version 0.2 holds POYO alone. The queries and read-outs of POYO+ are added here:
a query is the session's embedding plus the task's, and each task, here each output, has a linear
read-out and a loss of its own. It reads the whole trial, also what follows the queried time, so it
stands beside the acausal ridge. Spikes of a bin are placed at its middle: finer times are not in
the recording.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import torch
from msgspec.structs import replace as but
from torch import Tensor, nn

from benchmarks.accuracy.peers import sequence
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, parameters_of
from neds_core.data.session import Session

LATENT_STEP_S = 0.125
LATENTS = 8  # of each step
BATCH, QUICK_STEPS = 16, 120
EMBEDDING_SD = 0.02  # of every embedding at the start, as torch-brain's


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
    """POYO+ behind the contract of `sequence`: counts (B, T, U), valid (B, T) -> z-scores (B, T, V)."""

    kept: Tensor
    latent: Tensor
    latent_s: Tensor

    def __init__(self, task: Task, setting: Setting) -> None:
        super().__init__()
        from torch_brain.models import POYO  # pyright: ignore[reportMissingImports]

        self.bin_s = task.session.bin_ns * 1e-9
        longest = int((task.session.segments[:, 1] - task.session.segments[:, 0]).max())  # a trial is one window
        n_steps = int(-(-longest * self.bin_s // LATENT_STEP_S))
        self.poyo: Any = POYO(  # its own annotations are narrower than what it does
            sequence_length=n_steps * LATENT_STEP_S,
            latent_step=LATENT_STEP_S,
            num_latents_per_step=LATENTS,
            dim_out=1,
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
        self.poyo.readout = nn.Identity()  # each task has its own
        self.task = nn.Embedding(len(task.specs), setting["width"])
        nn.init.normal_(self.task.weight, std=EMBEDDING_SD)
        self.read = nn.ModuleList(nn.Linear(setting["width"], 1) for _ in task.specs)
        self.session = torch.tensor(int(self.poyo.session_emb.tokenizer(task.session.name)))
        self.register_buffer("kept", torch.from_numpy(task.scale.kept))
        self.register_buffer("latent", torch.arange(LATENTS).repeat(n_steps))
        self.register_buffer("latent_s", ((torch.arange(n_steps) + 0.5) * LATENT_STEP_S).repeat_interleave(LATENTS))

    def forward(self, counts: Tensor, valid: Tensor) -> Tensor:
        n_batch, n_bins, _ = counts.shape
        unit, time, mask = spike_tokens(counts * (self.kept & valid[..., None]), self.bin_s)
        poyo = self.poyo
        inputs = poyo.unit_emb(self.get_buffer("row")[unit]) + poyo.token_type_emb((unit == 0).long())
        latents = poyo.latent_emb(self.latent).expand(n_batch, -1, -1)
        latent_time = poyo.rotary_emb(self.latent_s.expand(n_batch, -1))
        latents = latents + poyo.enc_atn(latents, inputs, latent_time, poyo.rotary_emb(time), mask)
        latents = latents + poyo.enc_ffn(latents)
        for attend, feed in poyo.proc_layers:
            latents = latents + poyo.dropout(attend(latents, latent_time))
            latents = latents + poyo.dropout(feed(latents))
        n_tasks = len(self.read)
        query = poyo.session_emb(self.session) + self.task.weight  # (V, D)
        query = query.repeat_interleave(n_bins, 0).expand(n_batch, -1, -1)  # task after task
        asked = ((torch.arange(n_bins) + 1) * self.bin_s).repeat(n_tasks).expand(n_batch, -1)
        query = query + poyo.dec_atn(query, latents, poyo.rotary_emb(asked), latent_time)
        each = (query + poyo.dec_ffn(query)).unflatten(1, (n_tasks, n_bins))
        return torch.cat([read(each[:, v]) for v, read in enumerate(self.read)], dim=-1)


SETTING: Setting = {
    "weight_decay": 0.01,
    "unit_dropout": 0.3,
    "depth": 2,
    "width": 64,
    "dropout": 0.4,
    "learning_rate": 3e-3,
    "steps": 240,
    "stop": 240,
}

OTHERS: tuple[Setting, ...] = ({}, {"learning_rate": 1e-3}, {"unit_dropout": 0.6}, {"dropout": 0.2}, {"depth": 4})


def smaller(task: Task) -> Task:
    """The same task with half the windows a step."""
    return replace(task, config=but(task.config, fit=but(task.config.fit, batch=BATCH)))


def search(task: Task) -> tuple[Setting, str]:
    """Rate, depth and regularisation on the rolling origins; quick: none, and a short training."""
    if task.quick:
        return {**SETTING, "steps": QUICK_STEPS, "stop": QUICK_STEPS}, "nothing (quick)"
    settings: list[Setting] = [{**SETTING, **other} for other in OTHERS]

    def build_of(setting: Setting, before: Session, seed: int) -> sequence.Build:
        return lambda: Network(task, setting)

    return sequence.search(smaller(task), settings, build_of), f"{len(settings)} settings on rolling origins"


def fit(task: Task, setting: Setting, seed: int) -> Fitted:
    """One seed on training + validation."""
    part, stop = task.parts.development, setting["stop"]
    network, _, _ = sequence.train(lambda: Network(task, setting), smaller(task), setting, part, None, seed, stop)
    return Fitted(sequence.predictor(task, network), parameters_of(network))


POYO_PLUS = Peer("POYO+ (on torch-brain)", search, fit, "future", 3)
