"""NEDS with published weights computes what the published model computed, whatever the sizes.

Its outputs are known for one tiny instance (golden/). For other sizes there is a twin below, in
numpy and float64, trial by trial, written from golden/README.md; the golden file holds it too.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neds_core import parity
from neds_core.errors import CheckpointError, DataError

GOLDEN = Path(__file__).parent / "golden" / "neds_official.npz"
Sizes = dict[str, Any]
Arrays = dict[str, np.ndarray]
ERF = np.vectorize(math.erf)


@dataclass(frozen=True)
class Shape:
    """Sizes of a made-up golden file; classes: modality -> number of classes, 0 = continuous."""

    T: int = 7
    D: int = 16
    inter: int = 24
    layers: int = 2
    heads: int = 2
    units: int = 5
    classes: tuple[tuple[str, int], ...] = (("choice", 2), ("wheel", 0))
    sessions: tuple[str, ...] = ("a-1", "b-2")
    session_rows: tuple[int, ...] = (3, 1)
    trials: tuple[int, ...] = (0, 0, 1)  # session of each trial

    @property
    def modalities(self) -> tuple[str, ...]:
        """In sequence order."""
        return ("spike", *(name for name, _ in self.classes))


def linear(weights: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """x @ weight.T + bias."""
    return x @ weights[f"{name}.weight"].astype(float).T + weights[f"{name}.bias"]


def layer_norm(weights: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """Over the last axis, as torch.nn.LayerNorm."""
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return z * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def turned(x: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Rotary embedding of x (H, N, K), half-split, base 10000."""
    half = x.shape[-1] // 2
    angle = position[:, None] * 10000.0 ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def trial(weights: Arrays, sizes: Sizes, values: Arrays, hidden: Arrays, session: int) -> Arrays:
    """Outputs of one trial: values and hidden by modality."""
    eid, row, T = sizes["sessions"][session], sizes["session_rows"][session], sizes["T"]
    tokens = []
    for m, name in enumerate(sizes["modalities"]):
        root = f"encoder_embeddings.{name}.embedder"
        x = values[name].astype(float)
        x = x if name == "spike" else x.reshape(-1, 1)
        code = linear(weights, f"{root}.mod_stitch_encoder.stitcher_dict.{eid}", x).reshape(T, -1)
        code = linear(weights, f"{root}.mod_stitch_encoder.project_dict.{eid}", code / (1 + np.abs(code)))
        code[hidden[name]] = weights["mask_token"].ravel()
        where = weights[f"{root}.mod_emb.weight"][m] + weights[f"{root}.session_emb.weight"][row]
        tokens.append(code + where + weights[f"{root}.pos_embed.weight"])
    x, position = np.concatenate(tokens), np.tile(np.arange(T), len(tokens))
    for i in range(sizes["layers"]):
        x = block(weights, f"encoder.{i}", x, position, sizes["heads"])
    x = layer_norm(weights, "encoder_norm", x).reshape(len(tokens), T, -1)
    out = {}
    for m, name in enumerate(sizes["modalities"]):
        root = f"encoder_embeddings.{name}"
        over_bins = weights.get(f"{root}.mod_static_weight_dict.{eid}")
        read = x[m] if over_bins is None else (over_bins[:, None] * x[m]).sum(0, keepdims=True)
        out[name] = linear(weights, f"{root}.mod_stitcher_proj_dict.stitch_decoder_dict.{eid}", read)
    return out


def block(weights: Arrays, name: str, x: np.ndarray, position: np.ndarray, heads: int) -> np.ndarray:
    """Pre-LayerNorm block with full attention; x (N, D)."""
    h = layer_norm(weights, f"{name}.ln1", x)
    parts = [linear(weights, f"{name}.attn.{p}", h) for p in ("query", "key", "value")]
    q, k, v = (p.reshape(len(x), heads, -1).swapaxes(0, 1) for p in parts)
    score = turned(q, position) @ turned(k, position).swapaxes(1, 2) / np.sqrt(q.shape[-1])
    share = np.exp(score - score.max(-1, keepdims=True))
    mixed = (share / share.sum(-1, keepdims=True)) @ v
    x = x + linear(weights, f"{name}.attn.out_proj", mixed.swapaxes(0, 1).reshape(x.shape))
    up = linear(weights, f"{name}.mlp.up_proj", layer_norm(weights, f"{name}.ln2", x))
    return x + linear(weights, f"{name}.mlp.down_proj", up * 0.5 * (1 + ERF(up / math.sqrt(2))))


def outputs(arrays: Arrays, sizes: Sizes, case: str) -> Arrays:
    """Outputs of every trial of a golden file's case, by modality."""
    weights = {k.removeprefix("weights/"): v for k, v in arrays.items() if k.startswith("weights/")}
    found = []
    for b, session in enumerate(arrays["input/session"]):
        values = {m: arrays[f"input/{m}"][b] for m in sizes["modalities"]}
        hidden = {m: arrays[f"{case}/hidden/{m}"][b] for m in sizes["modalities"]}
        found.append(trial(weights, sizes, values, hidden, int(session)))
    return {m: np.stack([row[m] for row in found]) for m in sizes["modalities"]}


def random_weights(shape: Shape, rng: np.random.Generator) -> Arrays:
    """A published state dict of random weights."""
    D, T, found = shape.D, shape.T, {}

    def put(name: str, *size: int) -> None:
        found[f"weights/{name}"] = (rng.normal(size=size) * max(size[-1], 4) ** -0.5).astype(np.float32)

    def layer(name: str, n_in: int, n_out: int) -> None:
        put(f"{name}.weight", n_out, n_in)
        put(f"{name}.bias", n_out)

    put("mask_token", 1, 1, D)
    for name, n_classes in (("spike", 0), *shape.classes):
        root = f"encoder_embeddings.{name}"
        for table, rows in (("mod_emb", len(shape.modalities)), ("session_emb", 6), ("pos_embed", T)):
            put(f"{root}.embedder.{table}.weight", rows, D)
        n_in, inner, n_out = (shape.units, 2 * shape.units, shape.units) if name == "spike" else (1, 2, n_classes or 1)
        for eid in shape.sessions:
            stitch = f"{root}.embedder.mod_stitch_encoder"
            layer(f"{stitch}.stitcher_dict.{eid}", n_in, 2 * T if n_classes else inner)
            layer(f"{stitch}.project_dict.{eid}", inner, D)
            layer(f"{root}.mod_stitcher_proj_dict.stitch_decoder_dict.{eid}", D, n_out)
            if n_classes:
                put(f"{root}.mod_static_weight_dict.{eid}", T)
    for i in range(shape.layers):
        for name, n_in, n_out in (
            *((f"attn.{part}", D, D) for part in ("query", "key", "value", "out_proj")),
            ("mlp.up_proj", D, shape.inter),
            ("mlp.down_proj", shape.inter, D),
        ):
            layer(f"encoder.{i}.{name}", n_in, n_out)
        for norm in ("ln1", "ln2"):
            layer(f"encoder.{i}.{norm}", 1, D)
            found[f"weights/encoder.{i}.{norm}.weight"] = 1 + 0.2 * rng.normal(size=D).astype(np.float32)
    found["weights/encoder_norm.weight"] = 1 + 0.2 * rng.normal(size=D).astype(np.float32)
    found["weights/encoder_norm.bias"] = rng.normal(size=D).astype(np.float32)
    return {k: v.astype(np.float32) for k, v in found.items()}


def random_golden(path: Path, shape: Shape, seed: int = 0) -> tuple[Arrays, Sizes]:
    """Write a golden file with one case, outputs by `outputs`, and its JSON; returns both."""
    rng = np.random.default_rng(seed)
    B, T = len(shape.trials), shape.T
    arrays = random_weights(shape, rng) | {"input/session": np.array(shape.trials)}
    arrays["input/spike"] = rng.poisson(0.7, (B, T, shape.units)).astype(np.float32)
    for name, n_classes in shape.classes:
        known = rng.integers(0, n_classes, B) if n_classes else rng.random((B, T))
        arrays[f"input/{name}"] = known.astype(np.float32)
    for name in shape.modalities:
        arrays[f"some/hidden/{name}"] = rng.random((B, T)) < 0.5
    names = ("T", "D", "inter", "layers", "heads", "units", "sessions", "session_rows")
    sizes = {k: v for k, v in asdict(shape).items() if k in names} | {"modalities": list(shape.modalities)}
    arrays |= {f"some/out/{m}": v.astype(np.float32) for m, v in outputs(arrays, sizes, "some").items()}
    np.savez(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps(sizes))
    return arrays, sizes


CASES = ("encoding", "decoding", "within_spike", "cross_random")


@pytest.mark.parametrize("case", CASES)
def test_published_outputs_are_reproduced(case: str) -> None:
    """Every modality within 1e-5 of its largest output, and the twin below as well."""
    arrays, sizes = parity.read(GOLDEN), json.loads(GOLDEN.with_suffix(".json").read_bytes())
    found, twin = parity.compare(GOLDEN), outputs(arrays, sizes, case)

    assert tuple(found) == CASES
    assert list(found[case]) == sizes["modalities"]
    for modality, deviation in found[case].items():
        theirs = arrays[f"{case}/out/{modality}"]
        assert deviation.within
        assert deviation.largest == np.abs(theirs).max() > 0.1
        assert np.abs(twin[modality] - theirs).max() < parity.LIMIT * deviation.largest


SHAPES = {
    "two sessions": Shape(),
    "one trial of one session": Shape(sessions=("only",), session_rows=(5,), trials=(0,)),
    "every trial alone in its session": Shape(
        sessions=("a", "b", "c"), session_rows=(2, 0, 4), trials=(2, 0, 1), units=3
    ),
    "one head, one layer, one bin": Shape(heads=1, layers=1, T=1),
    "many heads, odd sizes": Shape(D=24, heads=6, inter=17, T=11, layers=3, units=1),
    "one continuous behaviour": Shape(classes=(("wheel", 0),)),
    "classes only": Shape(classes=(("choice", 2), ("block", 3))),
    "seven behaviours, classes last": Shape(
        classes=(*((f"trace{i}", 0) for i in range(5)), ("block", 3), ("stimulus", 9))
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_any_sizes_are_reproduced(shape: Shape, tmp_path: Path) -> None:
    """Sizes, behaviours and sessions are read from the file; a batch of one is a batch."""
    random_golden(tmp_path / "g.npz", shape)

    found = parity.compare(tmp_path / "g.npz")

    assert list(found["some"]) == list(shape.modalities)
    assert all(d.within for d in found["some"].values()), found


@pytest.mark.parametrize("name", ["some/out/wheel", "some/out/choice", "weights/mask_token", "some/hidden/spike"])
def test_a_small_deviation_is_not_within(name: str, tmp_path: Path) -> None:
    """An output off by 1e-4 of the largest, another weight, another mask."""
    arrays, _ = random_golden(tmp_path / "g.npz", Shape())
    if name.startswith("some/out"):
        arrays[name].flat[-1] += 1e-4 * np.abs(arrays[name]).max()
    elif name == "weights/mask_token":
        arrays[name] = arrays[name] * 1.01
    else:
        arrays[name] = ~arrays[name]
    np.savez(tmp_path / "g.npz", **arrays)

    found = parity.compare(tmp_path / "g.npz")["some"]

    assert [m for m, d in found.items() if not d.within] == (
        [name.split("/")[-1]] if "out" in name else ["spike", "choice", "wheel"]
    )


def test_an_output_that_is_no_number_is_not_within(tmp_path: Path) -> None:
    """NaN compares as neither larger nor smaller."""
    arrays, _ = random_golden(tmp_path / "g.npz", Shape())
    arrays["weights/encoder_norm.bias"][0] = np.nan
    np.savez(tmp_path / "g.npz", **arrays)

    assert not any(d.within for d in parity.compare(tmp_path / "g.npz")["some"].values())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("weights/encoder_norm.bias", None, "lack 'encoder_norm.bias'"),
        ("weights/mask_token", None, "lack 'mask_token'"),
        ("weights/encoder.0.attn.scale", np.ones(1), "encoder.0.attn.scale, which is not known"),
        ("weights/encoder.0.attn.key.bias", np.ones(3), "do not fit each other"),
        ("input/wheel", None, "do not fit together"),
        ("some/hidden/choice", None, "do not fit together"),
    ],
)
def test_an_incomplete_file_is_refused(key: str, value: np.ndarray | None, says: str, tmp_path: Path) -> None:
    """A tensor that is missing, not known, or of another shape; an input or a mask that is missing."""
    arrays, _ = random_golden(tmp_path / "g.npz", Shape())
    arrays.pop(key, None)
    np.savez(tmp_path / "g.npz", **arrays | ({} if value is None else {key: value.astype(np.float32)}))

    with pytest.raises((CheckpointError, DataError), match=says):
        parity.compare(tmp_path / "g.npz")


def test_wrong_sizes_are_refused(tmp_path: Path) -> None:
    """No JSON, no heads in it, heads that do not divide the width, sessions that the weights lack."""
    path = tmp_path / "g.npz"
    _, sizes = random_golden(path, replace(SHAPES["two sessions"], heads=4))
    for change, says in (
        ({"heads": "4"}, "no JSON of sizes"),
        ({"heads": 3}, "cannot be cut into 3 heads"),
        ({"sessions": ["a-1", "x"]}, "lack 'encoder_embeddings.spike.embedder.mod_stitch_encoder.stitcher_dict.x"),
        ({"sessions": ["a-1"]}, "differ in length"),
        ({"session_rows": [1, 77]}, "do not fit each other"),
        ({"modalities": ["wheel", "choice"]}, "do not begin with 'spike'"),
    ):
        path.with_suffix(".json").write_text(json.dumps(sizes | change))
        with pytest.raises(CheckpointError, match=says):
            parity.compare(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="put the JSON of sizes there"):
        parity.compare(path)
    with pytest.raises(DataError, match="does not exist"):
        parity.compare(tmp_path / "none.npz")
