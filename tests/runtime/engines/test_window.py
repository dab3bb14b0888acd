"""The window engine: what it says bin by bin is what padded prefixes say at once, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.config import ModelConfig, TrainConfig
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.model import offline
from neds_core.model.model import NEDS
from runtime.cli import commands as cli
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.layout import layout
from runtime.live import offline as replayed
from runtime.scoring import score as scoring

U, WINDOW = 12, 25  # a trial of the planted session fills the window


@pytest.fixture(scope="module")
def make_full(
    make_checkpoint: Callable[..., Checkpoint], make_neds: Callable[..., NEDS]
) -> Callable[[str], Checkpoint]:
    """Builder of a checkpoint of full attention: random NEDS, fitted linear decoders, a blend of both."""

    def make(tokenizer: Literal["rows", "stitcher"]) -> Checkpoint:
        causal = make_checkpoint(clock_bins=WINDOW)
        size = ModelConfig(attention="full", tokenizer=tokenizer, width=16, heads=2, window_bins=WINDOW)
        model = make_neds(size, (U,))
        model.units[0].mean.copy_(torch.from_numpy(causal.scalers.spike_mean))
        model.units[0].gain.copy_(torch.from_numpy(causal.scalers.spike_gain))
        config = TrainConfig(causal.header.config.recording, causal.header.config.outputs, model=size)
        return replace(causal, header=msgspec.structs.replace(causal.header, config=config), first=model)

    return make


@pytest.fixture(scope="module", params=["rows", "stitcher"])
def full(request: pytest.FixtureRequest, make_full: Callable[[str], Checkpoint]) -> Checkpoint:
    """With unit rows, and with the published tokenizers and read-outs."""
    return make_full(request.param)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make_full: Callable[[str], Checkpoint], session: Session) -> Path:
    """Folder with full.safetensors and session.npz."""
    folder = tmp_path_factory.mktemp("full")
    checkpoints.save(make_full("rows"), folder / "full.safetensors")
    session_file.save(
        replace(session, segments=session.segments[:10], segment_ids=session.segment_ids[:10]), folder / "session.npz"
    )
    return folder


def stepped(
    engine: engines.Engine, counts: np.ndarray, valid: np.ndarray, clock: np.ndarray, reset: np.ndarray
) -> np.ndarray:
    """Bin by bin; values (T, V)."""
    out = []
    engine.reset()
    for t in range(len(counts)):
        if reset[t]:
            engine.reset(10**7 * t)  # where a run stands changes nothing
        out.append(engine.step(Token(t, 0, counts[t], bool(valid[t]), int(clock[t]))).copy())
    return np.stack(out)


def in_z(engine: engines.Engine, values: np.ndarray) -> np.ndarray:
    """Values (T, V) in z-scores; probabilities stay as they are."""
    return (values - engine.layout.offset) / engine.layout.scale


@st.composite
def logs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts, valid, clock, reset of up to 40 bins: dropouts, cold starts anywhere, also inside a segment, no clock."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    reset = rng.random(n) < draw(st.sampled_from([0.0, 0.05, 0.3]))
    first = draw(st.sampled_from([-1, 0, 7, WINDOW - 1, WINDOW + 3, 10**12]))
    clock, at = np.empty(n, np.int64), first
    for t in range(n):
        at = int(rng.integers(-1, 9)) if reset[t] else at
        clock[t] = at
        at += at >= 0
    valid = rng.random(n) >= draw(st.sampled_from([0.0, 0.2, 0.8]))
    return rng.poisson(draw(st.sampled_from([0.02, 0.6, 6.0])), (n, U)).astype(np.uint16), valid, clock, reset


@pytest.mark.parametrize("decoder", ["neds", "blend"])
@settings(max_examples=10)  # of each of four engines
@given(log=logs())
def test_stream_is_offline(full: Checkpoint, decoder: str, log: tuple[np.ndarray, ...]) -> None:
    """A window that grows bin by bin gives what padded windows of every length give; NaN in the same places."""
    engine = engines.create(full, decoder)

    streamed, at_once = stepped(engine, *log), engine.offline(*log)

    # 1e-5: float32 sums over other shapes, through two layers
    np.testing.assert_allclose(in_z(engine, streamed), in_z(engine, at_once), atol=1e-5, rtol=1e-5)


def trial(session: Session, n: int = WINDOW) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first n bins of the planted session as one segment."""
    clock = np.arange(n)
    return session.counts[:n].astype(np.uint16), np.ones(n, bool), clock, clock == 0


def test_the_last_bin_is_the_published_forward(full: Checkpoint, session: Session) -> None:
    """Once the segment is whole, nothing is to come: the bidirectional forward says the same of its last bin.

    Of the bins before, it says something else, because it has seen what followed.
    """
    engine = engines.create(full, "neds")
    log = trial(session)

    streamed = in_z(engine, stepped(engine, *log))

    whole = offline.decode(full.model, log[0].astype(np.float32), log[1], log[2], [(0, WINDOW)])
    expected = np.concatenate([whole["wheel_speed"][:, None], whole["choice"]], axis=1)
    np.testing.assert_allclose(streamed[-1], expected[-1], atol=1e-5, rtol=1e-5)
    assert np.abs(streamed[:-1] - expected[:-1]).max() > 0.1


def test_the_future_changes_nothing(full: Checkpoint, session: Session) -> None:
    """Other spikes from bin 10 on: the bins before say the same, streamed and at once."""
    engine = engines.create(full, "neds")
    counts, *rest = trial(session)
    other = counts.copy()
    other[10:] += 3

    np.testing.assert_array_equal(stepped(engine, counts, *rest)[:10], stepped(engine, other, *rest)[:10])
    # 1e-6: a padded key adds an exact zero, but the rows share products with others
    first, second = (in_z(engine, engine.offline(c, *rest)) for c in (counts, other))
    np.testing.assert_allclose(first[:10], second[:10], atol=1e-6)
    assert np.abs(first[10:] - second[10:]).max() > 0.1


def test_before_live_data_it_says_the_mean_and_even_odds(full: Checkpoint, session: Session) -> None:
    """Whatever lies in the buffer of a bin without data."""
    engine = engines.create(full, "neds")
    counts, valid, clock, reset = trial(session)
    valid[:3] = False

    values = stepped(engine, counts, valid, clock, reset)

    np.testing.assert_allclose(in_z(engine, values)[:3], [[0.0, 0.5, 0.5]] * 3, atol=1e-6)
    assert np.abs(in_z(engine, values)[3] - [0.0, 0.5, 0.5]).max() > 0.01


def test_a_late_start_keeps_its_place(full: Checkpoint, session: Session) -> None:
    """Cold in bin 9 of a segment: its first nine bins had no data, were skipped or stepped. It is not bin 0."""
    late, skipped, dropped, early = (engines.create(full, "neds") for _ in range(4))
    counts, valid, clock, reset = trial(session)
    got = stepped(late, counts[9:], valid[9:], clock[9:], reset[9:])
    skipped.reset()
    skipped.skip(9)
    by_skip = [skipped.step(Token(t, 0, counts[t], True, -1)).copy() for t in range(9, WINDOW)]
    live = valid & (clock >= 9)

    np.testing.assert_array_equal(got, by_skip)
    np.testing.assert_array_equal(got, stepped(dropped, counts, live, clock, reset)[9:])
    assert np.abs(in_z(late, got - stepped(early, counts[9:], valid[9:], clock[9:] - 9, reset[9:]))).max() > 0.01


def test_past_the_window_nothing_is_said_and_the_pipeline_withholds(full: Checkpoint, session: Session) -> None:
    """The bins that the model knows are decoded, the others are counted invalid, until the next segment."""
    long = replace(session, segments=np.array([[0, 40], [50, 75]]), segment_ids=np.array([1, 2]))

    log = replayed.stream(full, long, "neds")

    rows = log.decoded_rows()
    said = np.isfinite(log.values[rows]).all(1)
    within = log.clock[rows] < WINDOW
    np.testing.assert_array_equal(said, within & log.valid[rows])
    exact = scoring.exactness(
        layout(full), log.values[rows], scoring.all_decoders(full, log, rows)["neds"], log.valid[rows]
    )
    assert exact is not None
    assert exact < 1e-5


def test_without_markers_it_is_refused(full: Checkpoint, session: Session) -> None:
    """Nothing would say where a segment starts; the linear decoder beside it runs on."""
    for decoder in ("neds", "blend"):
        with pytest.raises(ConfigError, match="needs markers"):
            replayed.stream(full, session, decoder, markers=False)

    prepare.refuse_endless(engines.decoder(full, "ridge"))


def test_check_refuses_a_rig_without_markers(home: Path, make_rig: Callable[..., Path], lsl_session: str) -> None:
    """Before it looks for a stream."""
    found = CliRunner().invoke(cli.app, ["check", str(make_rig(checkpoint=home / "full.safetensors"))])

    assert isinstance(found.exception, ConfigError)
    assert "window-torch-cpu decodes 25 bins from the start of a segment and needs markers" in str(found.exception)


def test_compact_weights_are_refused(full: Checkpoint) -> None:
    """They are of the kernels' step; the ridge has none."""
    with pytest.raises(ConfigError, match=r"engine\.weights 'int8' is for causal checkpoints"):
        engines.create(full, "neds", "int8")
    assert engines.create(full, "ridge", "int8").name == "linear-numba-cpu"


def test_it_says_when_it_is_too_slow(full: Checkpoint) -> None:
    """A step longer than the bin is one sentence with the engine's name, a shorter one none; warm-up leaves it cold."""
    warm, cold = engines.create(full, "neds"), engines.create(full, "neds")
    step_ms = prepare.warm_up(warm, U)
    token = Token(0, 0, np.ones(U, np.uint16), True, 0)

    assert step_ms > 0.0
    assert prepare.too_slow(warm, step_ms, round(step_ms * 2e6)) == ""
    assert "window-torch-cpu takes 25.0 ms a step, longer than its bin of 20 ms" in prepare.too_slow(
        warm, 25.0, 20_000_000
    )
    np.testing.assert_array_equal(warm.step(token), cold.step(token))


def test_evaluate_and_verify_take_it(home: Path) -> None:
    """Scores of what was streamed, beside a ridge that knows the time as well; every engine within its bound."""
    files = home / "session.npz", home / "full.safetensors"
    run = CliRunner()

    scored = run.invoke(cli.app, ["evaluate", *map(str, files), "--json", "--no-report"])
    held = run.invoke(cli.app, ["verify", *map(str, reversed(files)), "--json"])

    assert scored.exit_code == held.exit_code == 0, scored.output + held.output
    found = msgspec.json.decode(scored.stdout.splitlines()[-1])
    assert found["streamed_vs_offline_max_abs"] < 1e-5
    rows = msgspec.json.decode(held.stdout.splitlines()[-1])["engines"]
    assert set(rows) == {"window-torch-cpu", "linear-numba-cpu", "window-torch-cpu + linear-numba-cpu"}
    assert all(row["max_abs"] <= row["bound"] == 1e-5 for row in rows.values())
