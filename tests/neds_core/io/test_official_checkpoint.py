"""A published .pt becomes a checkpoint of ours that computes the same; what it does not say is written down."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neds_core import checkpoint as checkpoints, official, parity
from neds_core.checkpoint import Checkpoint
from neds_core.data.session import UnitTable
from neds_core.errors import CheckpointError, ConfigError
from neds_core.io import official_checkpoint as converter
from neds_core.io.official_checkpoint import Supplied
from neds_core.model import offline
from neds_core.official import SPIKES, Names
from runtime.engines import create as engines

GOLDEN = Path(__file__).parents[1] / "golden" / "neds_official.npz"
OURS = {"spike": "spike", "wheel": "wheel_speed", "whisker": "whisker_motion_energy"}
SIZES = official.read_sizes(GOLDEN.with_suffix(".json"))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """The golden file."""
    return parity.read(GOLDEN)


@pytest.fixture(scope="module")
def content(golden: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the published training saves, with the golden weights."""
    weights = {k.removeprefix("weights/"): torch.from_numpy(v) for k, v in golden.items() if k.startswith("weights/")}
    schedule = {"total_steps": 100, "_anneal_func_type": "cos", "last_epoch": 41}
    return {"epoch": 41, "model": weights, "optimizer": {"state": {}, "param_groups": []}, "lr_sched": schedule}


@pytest.fixture
def path(content: dict[str, Any], tmp_path: Path) -> Path:
    """The .pt."""
    torch.save(content, tmp_path / "model_best_avg.pt")
    return tmp_path / "model_best_avg.pt"


def through_file(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Saved and loaded."""
    checkpoints.save(checkpoint, path.with_suffix(".safetensors"))
    return checkpoints.load(path.with_suffix(".safetensors"))


def golden_under_our_names(golden: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], official.Sizes]:
    """Inputs, masks and outputs of the golden file by our behaviours' names."""
    found = {}
    for key, value in golden.items():
        head, _, name = key.rpartition("/")
        found[f"{head}/{OURS.get(name, name)}"] = value
    modalities = tuple(OURS.get(m, m) for m in SIZES.modalities)
    return found, official.Sizes(SIZES.heads, modalities, SIZES.sessions, SIZES.session_rows)


@pytest.mark.parametrize("session", ["", *SIZES.sessions], ids=["all", "first", "second"])
def test_an_imported_checkpoint_computes_the_published_outputs(
    golden: dict[str, np.ndarray], path: Path, session: str
) -> None:
    """After its own file, all sessions or one of them alone."""
    read = through_file(converter.convert(path, Supplied(sizes=SIZES, session=session)), path)

    arrays, sizes = golden_under_our_names(golden)
    kept = [SIZES.sessions.index(session)] if session else [0, 1]
    assert len(read.model.units) == len(kept)
    for case in ("encoding", "decoding", "within_spike", "cross_random"):
        hidden = torch.from_numpy(np.stack([arrays[f"{case}/hidden/{m}"] for m in sizes.modalities], axis=-1))
        for s, of_golden in enumerate(kept):
            rows = np.flatnonzero(golden["input/session"] == of_golden)
            for name, got in parity.run(read.model, arrays, sizes, s, rows, hidden[rows]).items():
                theirs = arrays[f"{case}/out/{name}"]
                assert np.abs(got.numpy() - theirs[rows]).max() <= parity.LIMIT * np.abs(theirs).max()


def test_the_header_says_what_is_known(path: Path) -> None:
    """Our names of the behaviours, their scale, where the file came from, and what nobody said."""
    read = through_file(converter.convert(path, Supplied(ranges={"wheel_speed": (1.0, 13.0)})), path)

    header, taken = read.header, read.header.imported
    assert taken is not None
    assert header.config.outputs == ("choice", "block", "wheel_speed", "whisker_motion_energy")
    assert [s.kind for s in read.specs] == ["class", "class", "continuous", "continuous"]
    assert (header.mean, header.sd) == (
        {"wheel_speed": 1.0, "whisker_motion_energy": 0.0},
        {"wheel_speed": 12.0, "whisker_motion_energy": 1.0},
    )
    assert (header.name, taken.source, taken.epoch) == ("model_best_avg", "model_best_avg.pt", 41)
    assert (taken.sessions, taken.session_rows) == (SIZES.sessions, (0, 1))
    assert [word in " ".join(taken.assumed) for word in ("8 heads", "rows of the session table", "padding")] == [
        True
    ] * 3
    told = converter.convert(path, Supplied(sizes=SIZES)).header.imported
    assert told is not None
    assert "heads" not in " ".join(told.assumed)


def test_rows_of_the_session_table_are_read_off_the_optimiser(content: dict[str, Any], path: Path) -> None:
    """A session that was trained has a gradient in its row: AdamW remembers it, weight decay or not."""
    parameters = {k: torch.nn.Parameter(v.clone()) for k, v in content["model"].items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-3)
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    for name, parameter in parameters.items():
        if name.endswith("session_emb.weight"):
            parameter.grad = torch.zeros_like(parameter)
            parameter.grad[[17, 55]] = 0.1
    optimiser.step()
    trained = content | {"model": {k: v.data for k, v in parameters.items()}, "optimizer": optimiser.state_dict()}
    torch.save(trained, path)

    taken = converter.convert(path, Supplied(heads=4)).header.imported

    assert taken is not None
    assert taken.session_rows == (17, 55)


@pytest.mark.parametrize("damaged", ["all", "one", "moment", "flat"])
def test_an_optimiser_that_is_damaged_tells_nothing(content: dict[str, Any], path: Path, damaged: str) -> None:
    """A list for a table, numbers for states or moments, or a moment without rows: the first rows are assumed."""
    weights = content["model"]
    moments = {"all": 0, "one": 1, "moment": {"exp_avg_sq": 1}, "flat": {"exp_avg_sq": torch.ones(3)}}
    state: object = [1, 2] if damaged == "all" else dict.fromkeys(range(len(weights)), moments[damaged])
    name = Names(SPIKES).session
    torch.save(content | {"optimizer": {"state": state}}, path)

    taken = converter.convert(path, Supplied(heads=4)).header.imported

    assert taken is not None
    assert taken.session_rows == (0, 1)
    assert any("first rows" in said for said in taken.assumed)
    flat = {"model": {name: torch.ones(3)}, "optimizer": {"state": {0: moments["flat"]}}}
    assert converter.trained_rows(flat) == ()


def test_padding_is_folded_into_the_bias(content: dict[str, Any], path: Path) -> None:
    """The source pads a session's units with -1: with its unit table, the same outputs from its own units alone."""
    units = UnitTable(np.array([4, 8, 15]), np.array(["ca1"] * 3), np.zeros(3, np.float32))
    read = through_file(converter.convert(path, Supplied(sizes=SIZES, session=SIZES.sessions[1], units=units)), path)
    published = official.build(content["model"], SIZES)
    counts = np.random.default_rng(0).integers(0, 4, (20, 3)).astype(np.float32)
    padded = np.concatenate([counts, np.full((20, 7), -1.0, np.float32)], axis=1)
    hidden = torch.zeros(1, 20, 5, dtype=torch.bool)
    hidden[..., 1:] = True
    names = [*SIZES.modalities[1:], *OURS.values()]
    arrays = {f"input/{m}": np.zeros((1, 1 if m in ("choice", "block") else 20), np.float32) for m in names}
    rows = np.zeros(1, np.int64)

    ours = parity.run(read.model, arrays | {"input/spike": counts[None]}, SIZES, 0, rows, hidden)
    theirs = parity.run(published, arrays | {"input/spike": padded[None]}, SIZES, 1, rows, hidden)

    assert read.header.unit_map_sha == units.sha256
    for name, got in theirs.items():
        wanted = got[..., :3] if name == SPIKES else got
        # 1e-5: the bias now holds the sum of seven weights
        torch.testing.assert_close(ours[OURS.get(name, name)], wanted, atol=1e-5, rtol=1e-5)


def test_it_decodes_offline_and_by_the_window_engine(path: Path) -> None:
    """Whole segments of at most the window, through the same function as any other; no linear decoder beside it."""
    read = through_file(converter.convert(path, Supplied(sizes=SIZES)), path)
    counts, valid = np.random.default_rng(0).integers(0, 3, (50, 10)), np.ones(50, bool)

    decoded = offline.decode(read.model, counts, valid, np.full(50, -1), [(0, 20), (20, 35), (35, 50)])

    assert {name: v.shape for name, v in decoded.items()} == {
        "choice": (50, 2),
        "block": (50, 3),
        "wheel_speed": (50,),
        "whisker_motion_energy": (50,),
    }
    assert all(np.isfinite(v).all() for v in decoded.values())
    assert engines.create(read, "neds").name == "window-torch-cpu"
    with pytest.raises(ConfigError, match="no linear decoder"):
        engines.create(read, "ridge")


def refusal(path: Path, supplied: Supplied | None = None) -> str:
    """The one line a file is refused with."""
    with pytest.raises(CheckpointError) as error:
        converter.convert(path, supplied or Supplied())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_would_run_code_is_refused(content: dict[str, Any], path: Path) -> None:
    """Also where the weights beside it are good, and whichever way it was pickled; nothing runs."""
    ran = path.with_name("ran")

    class Touch:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (ran,)

    torch.save(content | {"lr_sched": Touch()}, path)
    assert "would have to run code" in refusal(path)
    path.write_bytes(pickle.dumps(content | {"lr_sched": Touch()}))
    assert str(path) in refusal(path)
    assert not ran.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    assert str(path) in refusal(path)


def no_model(content: dict[str, Any]) -> None:
    del content["model"]


def no_tensors(content: dict[str, Any]) -> None:
    content["model"] = {"a": 1}


def other_model(content: dict[str, Any]) -> None:
    content["model"] = {"weight": torch.zeros(3)}


def no_heads(content: dict[str, Any]) -> None:
    """The published unimodal models: their read-outs were never registered, trained or saved."""
    content["model"] = {k: v for k, v in content["model"].items() if "stitch_decoder_dict" not in k}


def no_width(content: dict[str, Any]) -> None:
    content["model"] = content["model"] | {"mask_token": torch.zeros(0)}


def diverged(content: dict[str, Any]) -> None:
    """One NaN among the weights."""
    bias = content["model"]["encoder_norm.bias"].clone()
    bias[1] = np.nan
    content["model"] = content["model"] | {"encoder_norm.bias": bias}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (no_model, 'no state dict under "model"'),
        (no_tensors, 'no state dict under "model"'),
        (other_model, "not a multimodal model"),
        (no_width, "mask_token is empty or not finite"),
        (diverged, "encoder_norm.bias is empty or not finite"),
        (no_heads, "lack 'encoder_embeddings"),
    ],
)
def test_other_checkpoints_are_refused(
    content: dict[str, Any], path: Path, edit: Callable[[dict[str, Any]], None], says: str
) -> None:
    changed = copy.copy(content)
    edit(changed)
    torch.save(changed, path)
    assert says in refusal(path)


def test_what_does_not_fit_the_model_is_refused(path: Path) -> None:
    """Another session, behaviour, unit table or number of heads than it has."""
    units = UnitTable(np.arange(11), np.full(11, "x"), np.zeros(11, np.float32))
    first = SIZES.sessions[0]
    assert "not in this model" in refusal(path, Supplied(session="x"))
    assert "not a continuous behaviour" in refusal(path, Supplied(ranges={"choice": (0, 1)}))
    assert "add --session" in refusal(path, Supplied(units=units))
    assert "the model only 10" in refusal(path, Supplied(units=units, session=first))
    assert "give the number of heads" in refusal(path, Supplied(heads=5))
    with pytest.raises(ValueError, match="at least 1"):
        official.Sizes(0, SIZES.modalities, SIZES.sessions, SIZES.session_rows)
    assert "does not exist" in refusal(path.with_name("none.pt"))


def test_names_of_sessions_are_taken_whole(content: dict[str, Any], path: Path) -> None:
    """A session called like the end of another's name stays itself."""
    first, second = SIZES.sessions
    renamed = {k.replace(first, "s-1").replace(second, "-1"): v for k, v in content["model"].items()}
    torch.save(content | {"model": renamed}, path)

    alone = converter.convert(path, Supplied(session="-1", heads=4))

    taken = alone.header.imported
    assert taken is not None
    assert (taken.sessions, taken.session_rows) == (("-1",), (1,))
    spread = content["model"][f"{Names(SPIKES).spread(second)}.weight"]
    assert torch.equal(alone.model.state_dict()["units.0.spread.weight"], spread)
    assert json.loads(GOLDEN.with_suffix(".json").read_bytes())["sessions"] == [first, second]
