"""Whatever a recording or a configuration holds: one sentence, or it can be written, read again and trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from neds_core import checkpoint as checkpoints, toml
from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data import session_file
from neds_core.data.session import BIN_NS_MOST, Session, UnitTable
from neds_core.errors import NedsError
from neds_core.train import single
from neds_core.train.single import Job

TRIALS, BINS, U = 20, 6, 4
TEXT = st.text(max_size=5) | st.sampled_from(["wheel_speed", "choice", "spikes", "type", "a.b", "x\n"])
NUMBER = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(width=32) | st.sampled_from([0.0, 0.087, 1e-30, 1e30])
EDIT = st.sampled_from(["none", "units", "spikes", "counts", "segments", "trace", "classes", "words", "bins", "valid"])
Draw = Callable[[st.SearchStrategy[Any]], Any]


def column(draw: Draw, dtypes: list[str], n: int) -> np.ndarray:
    """n numbers or words of some type."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind in "OU":
        return np.array(draw(st.lists(TEXT, min_size=n, max_size=n)), dtype)
    return draw(hnp.arrays(dtype, n)) if draw(st.booleans()) else np.arange(n).astype(dtype)


def units(draw: Draw, one: Session) -> Session:
    """A unit table of anything."""
    n = draw(st.sampled_from([U, U, U, U - 1]))
    ids = column(draw, ["i8", "i4", "u8", "f8", "f2", "?", "U4", "O", "S3"], n)
    depth = column(draw, ["f4", "f8", "i8", "U3", "?"], n)
    return replace(one, units=UnitTable(ids, column(draw, ["U4", "U4", "i8", "S2"], n), depth))


def spikes(draw: Draw, one: Session) -> Session:
    """Spike times of any scale, order and type."""
    n = draw(st.integers(0, 300))
    t_ns = np.linspace(0, float(one.n_bins * one.bin_ns - 1), n) * draw(st.sampled_from([1.0, 1.3, 1e-3, 1e-9, 1e3]))
    t_ns = t_ns + draw(st.sampled_from([0, -100, 10**9, 10**18]))
    if draw(st.booleans()):
        t_ns = t_ns[::-1]
    if draw(st.booleans()):
        t_ns = np.rint(t_ns)
    unit = np.arange(n) % draw(st.sampled_from([U, U, U + 1]))
    with np.errstate(invalid="ignore"):
        times = t_ns.astype(draw(st.sampled_from(["i8", "u8", "f8", "i4"])))
    return replace(one, events=(times, unit.astype(draw(st.sampled_from(["i4", "i8", "u2", "f4"])))))


def counts(draw: Draw, one: Session) -> Session:
    """Counts of another type, and any sizes."""
    wide = one.counts.astype(draw(st.sampled_from(["u1", "u2", "u4", "u8", "i8", "f4"])))
    wide[draw(st.integers(0, 30)), 0] = draw(st.sampled_from([0, 255]))
    return replace(one, counts=wide * draw(st.sampled_from([0, 1, 255])))


def segments(draw: Draw, one: Session) -> Session:
    """Trials anywhere, with any numbers."""
    edges = one.segments + draw(st.sampled_from([0, 0, 1, -1, 10**6]))
    s = draw(st.integers(0, TRIALS - 1))
    edges[s, draw(st.integers(0, 1))] += draw(st.integers(-9, 9))
    ids = draw(hnp.arrays(np.int64, TRIALS, elements=NUMBER, unique=draw(st.booleans())))
    return replace(one, segments=edges, segment_ids=ids)


def trace(draw: Draw, one: Session) -> Session:
    """A trace of anything in a stretch of bins, and of any type."""
    name, dtype = one.specs[0].name, draw(st.sampled_from(["f4", "f8", "f2", "i4"]))
    begin, end = sorted(draw(st.tuples(st.integers(0, one.n_bins), st.integers(0, one.n_bins))))
    with np.errstate(over="ignore", invalid="ignore"):
        wheel = one.values[name].astype(dtype)
        wheel[begin:end] = np.array(draw(FLOAT)).astype(dtype)
    return replace(one, values=one.values | {name: wheel})


def classes(draw: Draw, one: Session) -> Session:
    """Labels of a stretch of trials, and how many classes there are."""
    label = one.values["choice"].copy()
    begin, end = sorted(draw(st.tuples(st.integers(0, one.n_bins), st.integers(0, one.n_bins))))
    label[begin:end] = draw(st.integers(-2, 3))
    spec = msgspec.structs.replace(one.specs[1], classes=tuple(draw(st.lists(TEXT, min_size=0, max_size=4))))
    specs = (one.specs[0], spec) if draw(st.booleans()) else one.specs
    return replace(one, values=one.values | {"choice": label}, specs=specs)


def words(draw: Draw, one: Session) -> Session:
    """Names and texts of anything."""
    name = draw(TEXT)
    spec = msgspec.structs.replace(one.specs[0], name=name, unit=draw(TEXT), filter_delay_ms=draw(FLOAT))
    values = {name: one.values[one.specs[0].name], "choice": one.values["choice"]}
    moments = {draw(TEXT): np.full(TRIALS, draw(FLOAT))}
    return replace(one, name=draw(TEXT), licence=draw(TEXT), specs=(spec, one.specs[1]), values=values, moments=moments)


def bins(draw: Draw, one: Session) -> Session:
    """A grid of any width."""
    return replace(one, bin_ns=draw(st.integers(-1, 2 * BIN_NS_MOST) | st.sampled_from([0, 1, 2**62])))


def valid(draw: Draw, one: Session) -> Session:
    """Faulty bins anywhere."""
    return replace(one, valid=draw(hnp.arrays(np.bool_, one.n_bins, elements=st.booleans(), fill=st.booleans())))


EDITS = {edit.__name__: edit for edit in (units, spikes, counts, segments, trace, classes, words, bins, valid)}


@pytest.fixture(scope="module")
def small(session: Session) -> Session:
    """20 trials of 6 bins and 4 units."""
    n = TRIALS * BINS
    edges = np.arange(TRIALS + 1, dtype=np.int64) * BINS
    table = session.units
    choice = np.arange(TRIALS).repeat(BINS) % 2
    return replace(
        session,
        units=UnitTable(table.ids[:U], table.region[:U], table.depth_um[:U]),
        counts=session.counts[:n, :U],
        valid=session.valid[:n],
        values={"wheel_speed": session.values["wheel_speed"][:n], "choice": choice},
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(TRIALS),
    )


def one_of_ours(work: Callable[[], Any]) -> Any:
    """What `work` gives, None where it is refused in one sentence; any other error gets out."""
    try:
        return work()
    except NedsError as error:
        refused = str(error)
    assert "\n" not in refused
    return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_can_be_read_can_be_written_and_trained_on(
    small: Session, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """With the same hash of its units; its checkpoint is read again."""
    path = tmp_path_factory.getbasetemp() / "any.npz"
    path.unlink(missing_ok=True)

    def make() -> Session:
        one = small
        for name in data.draw(st.lists(EDIT, max_size=3)):
            one = EDITS[name](data.draw, one) if name != "none" else one
        session_file.save(one, path)
        return one

    made = one_of_ours(make)
    assert path.exists() == (made is not None)
    if made is None:
        return
    read = session_file.load(path)
    session_file.save(read, path)
    assert session_file.load(path).units.sha256 == read.units.sha256 == made.units.sha256

    outputs = data.draw(st.sampled_from([tuple(s.name for s in read.specs), (read.specs[0].name,)]))
    fit = msgspec.structs.replace(tiny.fit, steps=1, batch=2, refit=False)
    config = msgspec.structs.replace(tiny, recording=str(path), outputs=outputs, fit=fit)
    found = one_of_ours(lambda: single.release(Job(config, path, 0, "any"))[0])
    if found is not None:
        checkpoints.save(found, path.with_suffix(".safetensors"))
        assert checkpoints.load(path.with_suffix(".safetensors")).units.sha256 == read.units.sha256


KEYS = st.sampled_from(
    ["recording", "recordings", "outputs", "select", "min_rate_hz", "seed", "model", "model.width", "model.heads",
     "model.attention", "masks.ratio", "masks.span_bins", "fit.steps", "fit.batch", "fit.loss_weights", "fit.device",
     "linear.lags", "linear.filter_taus_ms", "linear.folds", "finetune.trunk", "finetune.stages", "x", "fit.x"]
)  # fmt: skip
VALUES = st.one_of(
    st.integers(-3, 300), st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.text(max_size=4),
    st.lists(st.integers(-2, 9) | st.floats(0, 9) | st.text(max_size=3), max_size=3),
    st.lists(st.lists(st.floats(-1, 9), max_size=2), max_size=2), st.just({}), st.just([{"steps": 1}]),
)  # fmt: skip


def as_toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {as_toml(v)}' for k, v in value.items())}}}"
    return repr(value) if isinstance(value, float) else json.dumps(value)


@given(keys=st.dictionaries(KEYS, VALUES, max_size=6), raw=st.binary(max_size=8), at=st.integers(0, 200))
def test_any_configuration_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any], raw: bytes, at: int
) -> None:
    """Keys of any kind of value, and bytes that are no text."""
    tree = {"recording": "a.npz", "outputs": ["wheel_speed"]} | keys
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in tree.items()).encode("utf-8", "replace")
    path = tmp_path_factory.getbasetemp() / "any.toml"
    for content in (text, text[:at] + raw + text[at:]):
        path.write_bytes(content)
        for kind in (TrainConfig, PretrainConfig):
            one_of_ours(lambda kind=kind: toml.load(path, kind))


def test_a_configuration_of_many_tables_is_refused(tmp_path: Path) -> None:
    """Nested deeper than Python can follow."""
    path = tmp_path / "deep.toml"
    path.write_text("outputs = " + "[" * 5000 + "]" * 5000)
    assert one_of_ours(lambda: toml.load(path, TrainConfig)) is None
