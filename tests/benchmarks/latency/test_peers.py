"""The peers compute what they are said to compute, and their loop bins and decodes what was sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from benchmarks import machine
from benchmarks.accuracy.peers import kalman, sequence
from benchmarks.accuracy.peers.task import Task
from benchmarks.cost.kernel_sweep import Size
from benchmarks.cost.random_models import for_a_run
from benchmarks.latency.peers import bench as peers, decoders, fits, heard, loop, rows, window
from benchmarks.latency.peers.decoders import Files
from benchmarks.latency.peers.heard import Messages, Sent
from benchmarks.latency.peers.launch import Launch, stretch
from benchmarks.latency.peers.loop import Binning, Closed, Plan
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session as sessions
from neds_core.data.session import Session
from runtime.core.values import Token
from runtime.engines import create as engines
from runtime.engines.linear import LinearEngine

MS = 1_000_000
BIN = 20 * MS
GRU = {**fits.GRU, "width": 8, "steps": 6, "stop": 3}


# --- arithmetic ---


@pytest.fixture(scope="module")
def networks(make_checkpoint: Callable[..., Checkpoint]) -> dict[str, Checkpoint]:
    """One with a band longer than what is stepped, and one whose band is left."""
    return {"whole": make_checkpoint(band=30), "band": for_a_run(Size(units=12, layers=2, width=16, band=5))}


def created(name: str, made: Checkpoint, folder: Path) -> decoders.Decoder:
    checkpoints.save(made, path := folder / "made.safetensors")
    return decoders.create(name, Files(str(path), str(folder), str(folder / "made.onnx")), ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its compiler's, of its own parts
@pytest.mark.parametrize("which", ["whole", "band"])
@pytest.mark.parametrize(
    "name", ["eager", "kv", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "compile"))]
)
def test_a_peer_that_has_to_equal_ours_does(
    networks: dict[str, Checkpoint], session: Session, tmp_path: Path, name: str, which: str
) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    made = networks[which]
    # 1e-5: two float32 forwards of two layers, in a different order
    assert rows.check(made, created(name, made, tmp_path), session) < 1e-5


def test_a_window_computes_what_was_seen_and_no_more() -> None:
    """From two bins, of which one may be hidden, to the whole; a reset begins anew."""
    shown: list[tuple[list[float], list[bool]]] = []

    def call(counts: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        shown.append((counts[:, 0].tolist(), unseen.tolist()))
        return np.zeros(1)

    made = window.Recompute(4, 1, call)
    for k in range(1, 7):
        made.step(np.array([[k]]))
    assert [len(counts) for counts, _ in shown] == [2, 2, 3, 4, 4, 4]
    assert shown[0][1] == [True, False]
    assert not any(sum(unseen) for _, unseen in shown[1:])
    assert shown[-1][0] == [3.0, 4.0, 5.0, 6.0]
    made.reset()
    made.step(np.array([[7], [8], [9]]))
    assert shown[-1] == ([7.0, 8.0, 9.0], [False] * 3)


@pytest.mark.parametrize("bins", [decoders.BINS, decoders.BINS - 1])
def test_a_window_that_is_a_bin_too_short_is_found(session: Session, bins: int) -> None:
    """It is right until it is full."""
    n_units = session.counts.shape[1]
    made = for_a_run(Size(units=n_units, layers=2, width=16, band=decoders.BINS))
    module = window.Mean(made, bins).eval().requires_grad_(False)
    apart = rows.check(made, window.Recompute(bins, n_units, window.eager(module)), session)
    assert (apart < 1e-5) == (bins == decoders.BINS)


def test_a_peer_that_forgets_to_reset_is_found(
    networks: dict[str, Checkpoint], session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check is for: such a row is red and gets no time."""
    monkeypatch.setattr(decoders.Kv, "reset", lambda self: None)
    checkpoints.save(networks["whole"], tmp_path / "made.safetensors")
    row = rows.Row("torch KV cache", rows.LOOP, "kv", rows.DEMO)
    ((_, skipped, wrong),) = rows.judged([row], {rows.DEMO: tmp_path / "made.safetensors"}, tmp_path, session)
    assert not skipped
    assert wrong.startswith("off by ")


@pytest.mark.parametrize(("size", "before"), [(rows.PUBLISHED, 100), (rows.DEMO, 25)])
def test_the_published_size_is_measured_with_full_windows(session: Session, size: str, before: int) -> None:
    """Trials of 25 bins: as many of them before the measured ones as a window holds, in one segment; else one."""
    played, bins = stretch(session, 3, 2, size)
    edges, t_ns = heard.edges(played)[bins], np.arange(75) * BIN
    assert len(played.segments) == (1 if size == rows.PUBLISHED else 6)
    np.testing.assert_array_equal(played.bins()[bins], 6 * 25 + before + np.arange(75))  # the third round's
    assert bins[0] == before
    if size == rows.PUBLISHED:
        np.testing.assert_array_equal(edges - edges[0], t_ns)
    behind_s = (played.bins()[-1] - played.bins()[bins[-1]]) * 0.02
    assert (
        behind_s == (2 if size == rows.DEMO else 6) * 0.5
    )  # the stall begins after 0.3 s, and 2.1 s of it are looked at


@pytest.mark.parametrize("size", [rows.PUBLISHED, rows.DEMO])
@pytest.mark.parametrize("windows", [True, False])
def test_received_values_are_held_to_what_their_decoder_can_know(session: Session, size: str, windows: bool) -> None:
    """A full forward to the bins of its window, a cache to all since the segment's start; bin by bin."""
    made = for_a_run(Size(units=session.counts.shape[1], layers=2, width=16, band=decoders.BINS))
    played, bins = stretch(session, 2, 0, size)
    none = np.zeros((0, 3), np.int64)
    sent = Sent(heard.edges(played), played.bins(), played.segment_of(played.bins()), none, (0, 0))
    engine = engines.create(made, "neds")
    found = peers.expected(engine, Launch(played, Messages(*[np.zeros(0)] * 7), sent, bins, 0), windows)
    for value, k in list(zip(found, bins, strict=True))[::7]:
        start = played.segments[sent.trial[k], 0]
        engine.reset()
        for t in range(max(start, sent.row[k] + 1 - decoders.BINS) if windows else start, sent.row[k] + 1):
            engine.step(Token(0, 0, played.counts[t].astype(np.uint16), valid=True))
        np.testing.assert_allclose(value, engine.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "kalman", "gru"])
def test_a_peer_that_learns_streams_what_it_predicts(
    task: Task, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path, name: str
) -> None:
    """Bin by bin, and several at once; also after it was written and read."""
    whole = [k for k, (a, b) in enumerate(task.parts.test.segments) if task.parts.test.valid[a:b].all()][:3]
    test = sessions.select(task.parts.test, np.array(whole))
    if name == "ridge":
        made = read = fits.Ridge(checkpoint := make_checkpoint(), ("wheel_speed",))
        bins = test.bins()
        first = np.isin(bins, test.segments[:, 0])
        truth = LinearEngine(checkpoint).offline(test.counts[bins], np.ones(len(bins), bool), test.clock()[bins], first)
    elif name == "kalman":
        made, model = fits.Kalman.fit(task), kalman.fit_on(task, fits.KALMAN, task.parts.development)
        made.save(tmp_path / "kalman.npz")
        read, truth = fits.load("kalman", tmp_path), kalman.predict(task, fits.KALMAN, model, test)
    else:
        made = fits.Gru.fit(task, GRU)
        made.save(tmp_path / "gru.npz")
        read, truth = fits.Gru.load(tmp_path / "gru.npz", task, GRU), sequence.predictor(task, made.network)(test)
    for decoder, at_once in ((made, 1), (read, 5)):
        row = 0
        for start, stop in test.segments:
            decoder.reset()
            for t in range(start, stop, at_once):
                found = decoder.step(test.counts[t : min(t + at_once, stop)].astype(np.uint16))
                row += min(at_once, stop - t)
                np.testing.assert_allclose(found, truth[row - 1, :1], rtol=1e-5, atol=1e-5)


def test_the_settings_are_those_that_the_accuracy_benchmark_chose() -> None:
    found = json.loads((machine.ROOT / "benchmarks" / "results" / "accuracy-full.json").read_text())
    chosen = {
        row["peer"]: row["setting"]
        for row in found["table"]
        if (row["recording"], row["task"], row["split"]) == ("ibl-dy016", "decode", "chronological")
    }
    assert chosen["Kalman filter"] == fits.KALMAN
    assert {key: value for key, value in chosen["GRU"].items() if key != "origins_r2"} == fits.GRU


# --- the loop ---


def binning(n_units: int = 3) -> Binning:
    """Open at bin 0."""
    made = Binning(Plan("", "", "", Files("", "", ""), ("x",), n_units, BIN, 10 * MS, 0, 0))
    made.bins.open = 0
    return made


@given(spikes=st.lists(st.tuples(st.integers(0, 10 * BIN - 1), st.integers(0, 2)), max_size=60), cut=st.integers(1, 60))
def test_chunking_does_not_matter(spikes: list[tuple[int, int]], cut: int) -> None:
    """However the stream is cut, the counts are those of the recording's own binning; keep-alives count for nothing."""
    spikes.sort()
    t, unit = np.array(spikes, np.int64).reshape(-1, 2).T
    made = binning()
    made.trials.inside = True
    closed: list[Closed] = []
    for begin in range(0, len(t), cut):
        made.bins.feed(t[begin : begin + cut], unit[begin : begin + cut])
        closed += made.closed(int(t[begin + cut]) // BIN * BIN if begin + cut < len(t) else 0)
    made.bins.feed(np.array([10 * BIN]), np.array([-7]))
    closed += made.closed(0)
    assert [one.edge_ns for one in closed] == [(k + 1) * BIN for k in range(10)]
    expected = sessions.bin_events(t, unit, BIN, 10, 3)
    assert np.array_equal(np.concatenate([one.counts for one in closed]), expected)


def test_markers_say_which_bins_are_decoded() -> None:
    """A trial of bins 2 to 4: the first begins it, the one that holds the end is still in it."""
    made = binning()
    made.trials.note(['{"event": "segment_start"}', '{"event": "segment_end"}'], [2 * BIN + MS, 5 * BIN - MS])
    closed = list(made.closed(8 * BIN))
    assert [(one.edge_ns // BIN, one.begins) for one in closed] == [(3, True), (4, False), (5, False)]
    assert loop.joined(closed).counts.shape == (3, 3)
    assert loop.joined(closed).begins

    made.trials.note(['{"event": "segment_start"}'], [9 * BIN + MS])
    again = loop.joined([*closed, *made.closed(10 * BIN)])
    assert (again.edge_ns, again.begins, len(again.counts)) == (10 * BIN, True, 1)
