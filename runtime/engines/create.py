"""Creates the engine of a decoder: by the checkpoint, the decoder's name, the precision and the device."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from kernels.cpu.pack import Precision
from neds_core.checkpoint import Checkpoint
from neds_core.errors import ConfigError
from runtime.core.engine import DECODERS, Decoder
from runtime.engines.cuda_stream import CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.layout import layout
from runtime.engines.linear import LinearEngine
from runtime.engines.stream import StreamEngine
from runtime.engines.window import WindowEngine

Device = Literal["cpu", "cuda"]
SHORTEST_SILENCE_NS, LONGEST_SILENCE_NS = 250_000_000, 60_000_000_000
Network = StreamEngine | WindowEngine | CudaStreamEngine  # a CudaWindowEngine is a WindowEngine


def network(checkpoint: Checkpoint, weights: Precision = "float32", device: Device = "cpu") -> Network:
    """The engine of NEDS: by the window where attention is full, else by the stream."""
    causal = checkpoint.header.config.model.attention == "causal"
    if weights != "float32" and not (causal and device == "cpu"):
        raise ConfigError(
            f"engine.weights {weights!r} is for causal checkpoints on the CPU, and {checkpoint.header.name!r} "
            f"{'runs on the GPU' if causal else 'has full attention'}; leave engine.weights at 'float32'"
        )
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("engine.device is 'cuda', but torch finds no GPU here; set it to 'cpu'")
        return CudaStreamEngine(checkpoint) if causal else CudaWindowEngine(checkpoint)
    return StreamEngine(checkpoint, weights) if causal else WindowEngine(checkpoint)


def create(
    checkpoint: Checkpoint, decoder: str, weights: Precision = "float32", device: Device = "cpu"
) -> Network | LinearEngine | EnsembleEngine:
    """The engine of a decoder name: neds is the mean of the checkpoint's networks, blend has the linear decoder too.

    weights, device: how those of NEDS are stored (see `StreamEngine`), and where.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"decoder {decoder!r} is not known; choose one of {', '.join(DECODERS)}")
    name = checkpoint.header.name
    if decoder != "neds" and not checkpoint.linear:
        raise ConfigError(f"checkpoint {name!r} holds no linear decoder; train one with neds-rt train")
    if decoder == "ridge":
        return LinearEngine(checkpoint)
    each = [checkpoint.alone(m) for m in range(len(checkpoint.networks))]
    networks = [network(one, weights, device) for one in each]
    if decoder == "blend":
        return EnsembleEngine(networks, np.stack([_blend(one) for one in each]) / len(each), LinearEngine(checkpoint))
    equal = np.full((len(each), networks[0].layout.n_values), 1.0 / len(each))
    return networks[0] if len(each) == 1 else EnsembleEngine(networks, equal)


def _blend(checkpoint: Checkpoint) -> np.ndarray:
    """The share of NEDS in each value (V,) of the blend."""
    place = layout(checkpoint)
    share = np.zeros(place.n_values)
    for name, column in place.columns.items():
        share[column] = checkpoint.header.blend[name]
    return share


def decoder(checkpoint: Checkpoint, name: str, weights: Precision = "float32", device: Device = "cpu") -> Decoder:
    """What a run holds of a checkpoint: the engine of a decoder name, and where its numbers come from."""
    header = checkpoint.header
    return Decoder(
        engine=create(checkpoint, name, weights, device), name=name, model=header.name, model_sha=checkpoint.sha,
        model_created=header.record.created, unit_map_sha=header.unit_map_sha, n_units=len(checkpoint.units),
        bin_ns=header.bin_ns, profile=checkpoint.scalers.spike_mean, used=checkpoint.scalers.kept,
        silence_ns=_silence_ns(checkpoint),
    )  # fmt: skip


def _silence_ns(checkpoint: Checkpoint) -> int:
    """How long the units that are used may be silent: half as long again as training saw, and at least what chance
    allows at their mean rate once in e^40 times."""
    bin_ns = checkpoint.header.bin_ns
    seen_ns = checkpoint.header.longest_silence_bins * bin_ns
    a_bin = float(checkpoint.scalers.spike_mean[checkpoint.scalers.kept].sum())  # spikes; too few where counts are high
    by_rate_ns = 40.0 / a_bin * bin_ns if a_bin > 0 else 0.0
    return int(min(max(1.5 * seen_ns, by_rate_ns, SHORTEST_SILENCE_NS), LONGEST_SILENCE_NS))
