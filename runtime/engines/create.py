"""Creates the engine of a decoder: by the checkpoint, the decoder's name, the precision and the device."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from kernels.cpu.pack import Precision
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Spread as Calibrated
from neds_core.errors import ConfigError
from neds_core.linear.state_space import StateSpace
from runtime.core.engine import BROUGHT, NAMES, RECOMMENDED, Decoder, Spread
from runtime.engines.cuda_stream import CudaStreamEngine
from runtime.engines.cuda_window import CudaWindowEngine
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.layout import layout
from runtime.engines.linear import LinearEngine
from runtime.engines.prepare import receptive_bins
from runtime.engines.state_space import StateSpaceEngine
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
) -> Network | LinearEngine | EnsembleEngine | StateSpaceEngine:
    """The engine of a decoder name: neds is the mean of the checkpoint's networks, blend has the linear decoder too.

    weights, device: how those of NEDS are stored (see `StreamEngine`), and where.
    """
    decoder = named(checkpoint, decoder)
    if checkpoint.state_space is not None:
        return _brought(checkpoint, checkpoint.state_space, weights, device)
    if decoder != "neds" and not checkpoint.linear:
        raise ConfigError(
            f"checkpoint {checkpoint.header.name!r} holds no linear decoder; train one with neds-rt train"
        )
    if decoder == "ridge":
        return LinearEngine(checkpoint)
    networks = [network(checkpoint.alone(m), weights, device) for m in range(len(checkpoint.networks))]
    if decoder == "neds" and len(networks) == 1:
        return networks[0]
    linear = None if decoder == "neds" else LinearEngine(checkpoint)
    return EnsembleEngine(networks, shares(checkpoint, decoder), linear)


def _brought(checkpoint: Checkpoint, space: StateSpace, weights: Precision, device: Device) -> StateSpaceEngine:
    for key, value, only in (("weights", weights, "float32"), ("device", device, "cpu")):
        if value != only:
            raise ConfigError(
                f"engine.{key} is {value!r}, and {checkpoint.header.name!r} is a decoder that was brought; leave it at "
                f"{only!r}"
            )
    return StateSpaceEngine(checkpoint, space)


def named(checkpoint: Checkpoint, decoder: str) -> str:
    """The decoder that a name stands for. `recommended` is one of the others where all outputs agree on it, and neds
    where the checkpoint was not judged. One that was brought is all that its checkpoint holds."""
    if checkpoint.state_space is not None:
        if decoder not in (RECOMMENDED, BROUGHT):
            raise ConfigError(
                f"decoder {decoder!r} is not in {checkpoint.header.name!r}, which is a decoder that was brought; leave "
                f"engine.decoder at {RECOMMENDED!r}"
            )
        return BROUGHT
    if decoder not in NAMES:
        raise ConfigError(f"decoder {decoder!r} is not known; choose one of {', '.join(NAMES)}")
    if decoder != RECOMMENDED:
        return decoder
    found = {verdict.recommended for verdict in checkpoint.header.verdicts.values()} or {"neds"}
    return found.pop() if len(found) == 1 else RECOMMENDED


def published(checkpoint: Checkpoint, decoder: str, output: str) -> str:
    """Which of `DECODERS` a decoder name publishes of an output."""
    name = named(checkpoint, decoder)
    return checkpoint.header.verdicts[output].recommended if name == RECOMMENDED else name


def ungated(checkpoint: Checkpoint, decoder: str) -> str:
    """Why no gate stands behind what a decoder name publishes, in words; '' = one does."""
    gate = checkpoint.header.gate
    if gate is None:
        return "no gate has judged it"
    if gate.unit_map_sha != checkpoint.header.unit_map_sha:
        return "its gate judged other units"
    if gate.forced:
        return "it was forced past its gate"
    if not gate.offers:
        return "its gate judged no output"
    for spec in checkpoint.specs:
        offer, which = gate.offers.get(spec.name), published(checkpoint, decoder, spec.name)
        if offer is None and spec.labels == "inferred":
            continue  # nothing that was measured can judge it, and the status says so
        if offer is None:
            return f"its gate did not judge {spec.name}"
        if offer.word not in ("PASS", "RIDGE"):
            return f"its gate says {offer.word} of {spec.name}: {offer.reason}"
        if offer.decoder != which:
            return f"its gate offers {offer.decoder} of {spec.name}, and this rig would publish {which}"
    return ""


def said(checkpoint: Checkpoint) -> str:
    """What `recommended` is, in words."""
    verdicts = checkpoint.header.verdicts
    if checkpoint.state_space is not None:
        return f"decoder {BROUGHT}: {checkpoint.header.name} was imported, and nothing here has judged it"
    if not verdicts:
        return "decoder neds: the checkpoint does not recommend one; --decoder ridge or blend publishes another"
    each = ", ".join(f"{name} {verdict.recommended}" for name, verdict in verdicts.items())
    return f"decoder as recommended: {each}"


def shares(checkpoint: Checkpoint, decoder: str) -> np.ndarray:
    """The share of each network in each value (K, V) of a decoder; what is missing to 1 is the linear decoder's."""
    place, header, n = layout(checkpoint), checkpoint.header, len(checkpoint.networks)
    blends = [member.blend for member in header.members] or [header.blend]
    share = np.zeros((n, place.n_values))
    for name, columns in place.columns.items():
        which = published(checkpoint, decoder, name)
        own = {"neds": [1.0] * n, "ridge": [0.0] * n, "blend": [blend.get(name, 1.0) for blend in blends]}[which]
        share[:, columns] = np.array(own)[:, None] / n
    return share


def spread(checkpoint: Checkpoint, decoder: str, variance: np.ndarray) -> Spread | None:
    """How far a decoder's values may be from what is measured, None where no output's is known.

    variance (V,): the buffer of its engine, see `Spread`.
    """
    place = layout(checkpoint)
    floor, slope = np.full(place.n_values, np.nan, np.float32), np.zeros(place.n_values, np.float32)
    for output, columns in place.columns.items():
        if (own := calibrated(checkpoint, decoder, output)) is not None:
            floor[columns], slope[columns] = own.floor, own.slope
    return Spread(floor**2, slope**2, variance) if np.isfinite(floor).any() else None


def calibrated(checkpoint: Checkpoint, decoder: str, output: str) -> Calibrated | None:
    """What was fitted of that on the validation part for one output, None where nothing was."""
    verdict = checkpoint.header.verdicts.get(output)
    if verdict is None:
        return None
    which = published(checkpoint, decoder, output)
    return next((own for of, own in verdict.spread.items() if of == which), None)


def decoder(checkpoint: Checkpoint, name: str, weights: Precision = "float32", device: Device = "cpu") -> Decoder:
    """What a run holds of a checkpoint: the engine of a decoder name, and where its numbers come from."""
    header, engine = checkpoint.header, create(checkpoint, name, weights, device)
    variance = engine.variance if isinstance(engine, EnsembleEngine) else np.zeros(engine.layout.n_values, np.float32)
    return Decoder(
        engine=engine, name=named(checkpoint, name), model=header.name,
        model_sha=checkpoint.sha, model_created=header.record.created, unit_map_sha=header.unit_map_sha,
        n_units=len(checkpoint.units), bin_ns=header.bin_ns, profile=checkpoint.scalers.spike_mean,
        used=checkpoint.scalers.kept, silence_ns=_silence_ns(checkpoint),
        spread=spread(checkpoint, name, variance), gated=not ungated(checkpoint, name),
        forgets_bins=receptive_bins(checkpoint) if checkpoint.state_space is not None else 0,
    )  # fmt: skip


def _silence_ns(checkpoint: Checkpoint) -> int:
    """How long the units that are used may be silent: half as long again as training saw, and at least what chance
    allows at their mean rate once in e^40 times. Of a decoder that was brought it is not known: 0."""
    if checkpoint.state_space is not None:
        return 0
    bin_ns = checkpoint.header.bin_ns
    seen_ns = checkpoint.header.longest_silence_bins * bin_ns
    a_bin = float(checkpoint.scalers.spike_mean[checkpoint.scalers.kept].sum())  # spikes; too few where counts are high
    by_rate_ns = 40.0 / a_bin * bin_ns if a_bin > 0 else 0.0
    return int(min(max(1.5 * seen_ns, by_rate_ns, SHORTEST_SILENCE_NS), LONGEST_SILENCE_NS))
