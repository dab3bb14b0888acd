"""`neds-rt import-decoder`: what it takes, what it makes of it, and one sentence for each fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from neds_core import checkpoint
from neds_core.errors import CheckpointError, ConfigError
from neds_core.io import state_space
from runtime.cli.import_decoder import import_decoder

GOOD: dict[str, Any] = {
    "A": np.diag([0.6, 0.5]), "B": np.arange(6.0).reshape(2, 3) - 2.0, "b": np.array([1.0, 2.0]),
    "unit_ids": np.array([7, 9, 4]), "unit_region": np.array(["m1", "m1", "pmd"]), "bin_ms": np.array(45.0),
    "outputs": np.array(["cursor_vel_x", "cursor_vel_y"]), "output_unit": np.array(["mm/s", "mm/s"]),
    "output_sd": np.array([30.0, 40.0]), "output_group": np.array(["cursor_vel", "cursor_vel"]),
    "start": np.array([0.5, -0.5]), "name": np.array("monday"), "licence": np.array("MIT"),
}  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    """The file with changes; None takes an array out."""
    arrays = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    np.savez(folder / "decoder.npz", **arrays)
    return folder / "decoder.npz"


def test_a_file_becomes_a_checkpoint_that_says_what_the_file_said(tmp_path: Path) -> None:
    out = tmp_path / "monday.safetensors"
    checkpoint.save(state_space.read(written(tmp_path)), out)

    made = checkpoint.load(out)

    header, space = made.header, made.state_space
    assert space is not None
    assert header.brought is not None
    assert (header.name, header.bin_ns, header.brought.licence) == ("monday", 45_000_000, "MIT")
    assert (header.brought.source, len(header.brought.source_sha)) == ("decoder.npz", 64)
    assert [(s.name, s.unit, s.group) for s in made.specs] == [
        ("cursor_vel_x", "mm/s", "cursor_vel"), ("cursor_vel_y", "mm/s", "cursor_vel"),
    ]  # fmt: skip
    assert (made.units.ids.tolist(), made.units.region.tolist()) == ([7, 9, 4], ["m1", "m1", "pmd"])
    assert (header.sd, header.mean) == (
        {"cursor_vel_x": 30.0, "cursor_vel_y": 40.0}, {"cursor_vel_x": 0.0, "cursor_vel_y": 0.0},
    )  # fmt: skip
    for key, matrix in (("A", space.a), ("B", space.b), ("b", space.offset), ("start", space.start)):
        np.testing.assert_array_equal(matrix, GOOD[key])
    with pytest.raises(CheckpointError, match="'monday' is a decoder that was brought and holds no network"):
        _ = made.model


@given(seed=st.integers(0, 2**32 - 1))
def test_z_scores_are_folded_into_the_weights(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    mean, sd, counts = rng.uniform(0, 9, 3), rng.uniform(0.1, 3, 3), rng.poisson(3.0, 3)
    space = state_space.read(written(tmp_path_factory.mktemp("z"), unit_mean=mean, unit_sd=sd, start=None)).state_space
    assert space is not None
    stepped = space.decode(counts[None], np.ones(1, bool), np.ones(1, bool), np.full((1, 2), np.nan))[0]
    np.testing.assert_allclose(stepped, GOOD["B"] @ ((counts - mean) / sd) + GOOD["b"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"B": None}, r"has no array 'B'; add it, \(V, U\)"),
        ({"outputs": None}, r"has no array 'outputs'; add it, text \(V,\)"),
        ({"unit_id": np.zeros(3)}, "array 'unit_id' is not known; is it 'unit_ids'"),
        ({"zzz": np.zeros(3)}, "array 'zzz' is not known; leave it out"),
        ({"A": np.diag([1.0, 0.5])}, "A has an eigenvalue of size 1, so the decoder never forgets"),
        ({"B": np.ones((2, 4))}, r"B is \(2, 4\), not \(2, 3\), of 2 outputs and 3 units"),
        ({"b": np.array(["1", "2"])}, "b is <U1, not numbers"),
        ({"A": np.eye(2) * 1j}, "A is complex128, not numbers"),
        ({"outputs": np.array([1, 2])}, "outputs is int64, not text"),
        ({"outputs": np.array(["x", "x"])}, "outputs repeat"),
        ({"outputs": np.array(["position", "y"])}, "'position' does not name a quantity; say position_x"),
        ({"output_unit": np.array(["mm/s"])}, "have not one unit, sign and group each"),
        ({"output_sd": np.array([1.0, 0.0])}, "output_sd is not above 0 everywhere"),
        ({"output_sd": np.ones(3)}, r"output_sd is \(3,\) or not finite; give 2 numbers"),
        ({"bin_ms": np.array([20.0, 45.0])}, r"bin_ms is \(2,\); give one number"),
        ({"bin_ms": np.array(0.02)}, "not a width between"),
        ({"unit_ids": np.array([7, 7, 4])}, "unit_ids repeat"),
        ({"unit_ids": np.array([7.5, 1, 4])}, "unit_ids hold a fraction"),
        ({"unit_region": np.array(["m1"])}, "not one a unit"),
        ({"unit_mean": np.ones(3)}, "has one of unit_mean and unit_sd; give both"),
        ({"unit_mean": np.ones(3), "unit_sd": np.array([1.0, 0.0, 1.0])}, "unit_sd is not above 0 of unit 1"),
        ({"start": np.array([np.inf, 0.0])}, r"start is \(2,\) or not finite"),
        ({"start": np.array([1e39, 0.0])}, r"start is \(2,\) or not finite; give 2 numbers that float32 can hold"),
        ({"B": np.full((2, 3), 1e300)}, "B holds a number that is not finite in float32; correct it"),
        ({"b": np.array([1.0, np.longdouble("1e4000")])}, "b holds a number that is not finite in float32"),
        ({"output_mean": np.array([1e300, 0.0])}, "output_mean is .* give 2 numbers that float32 can hold"),
        ({"output_sd": np.array([1e300, 1.0])}, "output_sd is .* give 2 numbers that float32 can hold"),
        ({"output_sd": np.array([1e-60, 1.0])}, "output_sd is not above 0 everywhere"),
        ({"unit_mean": np.ones(3), "unit_sd": np.array([1.0, 1e-320, 1.0])}, "B holds a number that is not finite"),
        ({"unit_mean": np.full(3, 3e38), "unit_sd": np.ones(3)}, "b holds a number that is not finite"),
        ({"name": np.array("")}, "name is ''; give one line of text, or leave it out"),
        ({"name": np.array("a\nb")}, "give one line of text"),
        ({"name": np.array(["a", "b"])}, r"name is \['a', 'b'\]; give one line"),
    ],
)  # fmt: skip
def test_each_fault_is_one_sentence_that_names_the_array(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        state_space.read(written(tmp_path, **changes))


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("A = 1")
    with pytest.raises(CheckpointError, match=r"is no \.npz of plain arrays; write one with"):
        state_space.read(tmp_path / "text.npz")
    with pytest.raises(CheckpointError, match="does not exist; check the path"):
        state_space.read(tmp_path / "none.npz")
    np.savez(tmp_path / "pickled.npz", A=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match=r"is no \.npz of plain arrays"):
        state_space.read(tmp_path / "pickled.npz")


def test_it_is_written_as_a_checkpoint_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.txt does not end in \.safetensors; give a name that does"):
        import_decoder(written(tmp_path), tmp_path / "a.txt")
    assert not (tmp_path / "a.txt").exists()
