"""Weights under the published names (`yzhang511/NEDS`) into `NEDS` with full attention, whatever their sizes.

State dicts alone; `io.official_checkpoint` reads the published file around them and makes a `Checkpoint`.
Sizes come from the tensors' shapes; the heads and the rows of the session table do not, so `Sizes`
carries them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from neds_core.config import ModelConfig
from neds_core.data.session import BehaviourSpec
from neds_core.errors import CheckpointError
from neds_core.model.model import NEDS

SPIKES = "spike"
BLOCK = {
    "ln1": "norm_attention",
    "attn.out_proj": "out",
    "ln2": "norm_mlp",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}  # published name of a block's layer to ours; query, key and value are one layer here


class Sizes(Struct, frozen=True):
    """What a published state dict does not say. modalities in sequence order, spikes first; session_rows:
    each session's row in the published session tables, which also list sessions outside the model."""

    heads: int
    modalities: tuple[str, ...]
    sessions: tuple[str, ...]
    session_rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.modalities[:1] != (SPIKES,) or len(self.modalities) < 2:
            raise ValueError(f"modalities do not begin with {SPIKES!r} and go on with a behaviour")
        if self.heads < 1:
            raise ValueError("heads is not at least 1")
        if not self.sessions or len(self.sessions) != len(self.session_rows):
            raise ValueError("sessions and session_rows differ in length or are empty")


def read_sizes(path: Path) -> Sizes:
    """Read the JSON file of sizes that lies beside published weights."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sizes)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); put the JSON of sizes there") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise CheckpointError(f"{path}: is no JSON of sizes ({error}); correct it") from None


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what weights that are incomplete or do not fit each other raise into one sentence."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"published weights lack {error}; give a multimodal model with stitchers") from None
    except (IndexError, RuntimeError, ValueError) as error:
        reason = str(error).rpartition("\n")[2].strip()
        raise CheckpointError(f"published weights do not fit each other ({reason}); check the JSON of sizes") from None


class Names:
    """Published names of one modality's tensors."""

    def __init__(self, modality: str) -> None:
        self.root = f"encoder_embeddings.{modality}"
        self.modality = f"{self.root}.embedder.mod_emb.weight"
        self.session = f"{self.root}.embedder.session_emb.weight"
        self.position = f"{self.root}.embedder.pos_embed.weight"

    def spread(self, session: str) -> str:
        """First layer of the tokenizer, without .weight or .bias."""
        return f"{self.root}.embedder.mod_stitch_encoder.stitcher_dict.{session}"

    def project(self, session: str) -> str:
        """Second layer of the tokenizer."""
        return f"{self.root}.embedder.mod_stitch_encoder.project_dict.{session}"

    def head(self, session: str) -> str:
        """Read-out."""
        return f"{self.root}.mod_stitcher_proj_dict.stitch_decoder_dict.{session}"

    def over_bins(self, session: str) -> str:
        """Weights of a class read-out over bins; a modality without them is continuous."""
        return f"{self.root}.mod_static_weight_dict.{session}"


def specs_of(weights: dict[str, Tensor], sizes: Sizes) -> tuple[BehaviourSpec, ...]:
    """The behaviours under their published names; classes are called by their index."""
    found = []
    for modality in sizes.modalities[1:]:
        names, session = Names(modality), sizes.sessions[0]
        if names.over_bins(session) in weights:
            n_classes = len(weights[f"{names.head(session)}.bias"])
            found.append(BehaviourSpec(modality, "class", classes=tuple(map(str, range(n_classes)))))
        else:
            found.append(BehaviourSpec(modality, "continuous"))
    return tuple(found)


def config_of(weights: dict[str, Tensor], sizes: Sizes) -> ModelConfig:
    """The configuration with the sizes of these weights, and the published dropout (0.4, of tokens 0.2)."""
    width = weights["mask_token"].shape[-1]
    if width % (2 * sizes.heads):
        raise CheckpointError(f"a width of {width} cannot be cut into {sizes.heads} heads; give the number of heads")
    spread = weights[f"{Names(SPIKES).spread(sizes.sessions[0])}.weight"]
    layers = {match[1] for name in weights if (match := re.match(r"encoder\.(\d+)\.", name))}
    return ModelConfig(
        attention="full",
        tokenizer="stitcher",
        width=width,
        layers=len(layers),
        heads=sizes.heads,
        mlp_width=weights["encoder.0.mlp.up_proj.bias"].shape[0],
        stitcher_width=0 if len(spread) == 2 * spread.shape[1] else len(spread),
        window_bins=weights[Names(SPIKES).position].shape[0],
        dropout=0.4,
        attention_dropout=0.4,
        embed_dropout=0.2,
        unit_dropout=0.0,
    )


def build(weights: dict[str, Tensor], sizes: Sizes, specs: tuple[BehaviourSpec, ...] | None = None) -> NEDS:
    """NEDS with published weights, in eval mode.

    specs: the behaviours under our names, in the order of `sizes.modalities`; None: `specs_of`.
    Refuses weights that lack a tensor, hold one that the published model does not have, or do
    not fit each other.
    """
    left = dict(weights)
    with refusing():
        specs = specs or specs_of(weights, sizes)
        config = config_of(weights, sizes)
        n_units = tuple(weights[f"{Names(SPIKES).spread(s)}.weight"].shape[1] for s in sizes.sessions)
        model = NEDS(config, n_units, specs)
        model.load_state_dict(_state(left, sizes, specs, config.layers, n_units))
    if left:
        raise CheckpointError(f"published weights hold {min(left)}, which is not known; check the JSON of sizes")
    return model.eval().requires_grad_(False)


def _state(
    left: dict[str, Tensor], sizes: Sizes, specs: tuple[BehaviourSpec, ...], layers: int, n_units: tuple[int, ...]
) -> dict[str, Tensor]:
    """Our state dict; every published tensor that went into it is taken out of `left`."""
    state = {"mask_token": left.pop("mask_token").flatten()}
    rows = list(sizes.session_rows)
    names = [Names(modality) for modality in sizes.modalities]
    state["modality"] = torch.stack([left.pop(n.modality)[m] for m, n in enumerate(names)])
    state["session"] = torch.stack([left.pop(n.session)[rows] for n in names], dim=1)
    state["position"] = torch.stack([left.pop(n.position) for n in names], dim=1)

    def move(theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = left.pop(f"{theirs}.{part}")

    for s, session in enumerate(sizes.sessions):
        state[f"units.{s}.mean"], state[f"units.{s}.gain"] = torch.zeros(n_units[s]), torch.ones(n_units[s])
        move(names[0].spread(session), f"units.{s}.spread")
        move(names[0].project(session), f"units.{s}.project")
        move(names[0].head(session), f"rates.{s}")
        for n, spec in zip(names[1:], specs, strict=True):
            head = f"heads.{spec.name}.{s}"
            move(n.spread(session), f"behaviour.{spec.name}.{s}.spread")
            move(n.project(session), f"behaviour.{spec.name}.{s}.project")
            move(n.head(session), f"{head}.linear" if spec.kind == "class" else head)
            if spec.kind == "class":
                state[f"{head}.weight"] = left.pop(n.over_bins(session))
    for i in range(layers):
        for theirs, ours in BLOCK.items():
            move(f"encoder.{i}.{theirs}", f"blocks.{i}.{ours}")
        for part in ("weight", "bias"):
            qkv = [left.pop(f"encoder.{i}.attn.{name}.{part}") for name in ("query", "key", "value")]
            state[f"blocks.{i}.qkv.{part}"] = torch.cat(qkv)
    move("encoder_norm", "norm")
    return state
