"""What is streamed bin by bin is what the offline forward makes of the log, for every engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Gate, Offer
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError
from neds_core.model import offline
from neds_core.model.model import Batch
from runtime.core.engine import DECODERS
from runtime.core.values import Token
from runtime.engines import create as engines, prepare
from runtime.engines.ensemble import EnsembleEngine
from runtime.engines.linear import LinearEngine
from runtime.engines.stream import StreamEngine

ROOT = Path(__file__).parents[3]
U, BAND, CLOCK_BINS = 12, 5, 4
FAR = 10**7  # 55 hours of 20 ms bins

Engine = StreamEngine | LinearEngine | EnsembleEngine


def in_z(engine: Engine, values: np.ndarray) -> np.ndarray:
    """Values (T, V) in z-scores; probabilities stay as they are."""
    return (values - engine.layout.offset) / engine.layout.scale


# Linear decoders: float32 products of other shapes. NEDS: the same through layers, with the tokenizer's
# mean and gain folded into its rows, and rotary tables rounded to float32.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Log:
    """What a run stepped: counts (T, U), valid, clock, reset (T,), and the position of each cold start."""

    counts: np.ndarray
    valid: np.ndarray
    clock: np.ndarray
    reset: np.ndarray
    start: np.ndarray

    def play(self, engine: Engine) -> np.ndarray:
        """Step by step; values (T, V)."""
        engine.reset(int(self.start[0]))
        return np.stack([self.step(engine, t) for t in range(len(self.counts))])

    def step(self, engine: Engine, t: int) -> np.ndarray:
        """One bin, after its cold start."""
        if self.reset[t]:
            engine.reset(int(self.start[t]))
        token = Token(t, 0, self.counts[t], valid=bool(self.valid[t]), clock=int(self.clock[t]))
        return engine.step(token).copy()

    def offline(self, engine: Engine) -> np.ndarray:
        """At once; values (T, V)."""
        return engine.offline(self.counts, self.valid, self.clock, self.reset)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Up to 45 bins, nine bands: dense and empty bins, dropouts, cold starts anywhere and at any position."""
    n = draw(st.integers(1, 45))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rate = draw(st.sampled_from([0.02, 0.6, 6.0]))
    return Log(
        counts=rng.poisson(rate, (n, U)).astype(np.uint16),
        valid=rng.random(n) >= draw(st.sampled_from([0.0, 0.2, 0.8])),
        clock=rng.integers(-1, 3 * CLOCK_BINS, n),
        reset=rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.5])),
        start=rng.choice([0, 1, BAND - 1, 12_345, FAR], n),
    )


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["phase-free", "clocked", "one layer", "filtered"])
@settings(max_examples=40)  # of each of twelve engines
@given(log=logs())
def test_stream_is_offline(tiny_ones: dict[str, Checkpoint], decoder: str, kind: str, log: Log) -> None:
    """Over any length, dropouts, cold starts and positions, far beyond where the ring wraps."""
    engine = engines.create(tiny_ones[kind], decoder)

    streamed, offline = log.play(engine), log.offline(engine)

    assert streamed.shape == offline.shape == (len(log.counts), 3)
    np.testing.assert_allclose(in_z(engine, streamed), in_z(engine, offline), atol=TOLERANCE, rtol=TOLERANCE)


def a_log(seed: int = 0, live: float = 0.8) -> Log:
    """60 dense bins, one in five without data, from position 0."""
    rng, n = np.random.default_rng(seed), 60
    counts, clock = rng.poisson(1.0, (n, U)).astype(np.uint16), np.arange(n) % 20
    return Log(counts, rng.random(n) < live, clock, np.zeros(n, bool), np.zeros(n, np.int64))


@pytest.mark.parametrize("decoder", DECODERS)
def test_outputs_follow_the_spikes(tiny_ones: dict[str, Checkpoint], decoder: str) -> None:
    """The comparison above is of values that differ from bin to bin by far more than its tolerance."""
    engine = engines.create(tiny_ones["phase-free"], decoder)

    assert in_z(engine, a_log().play(engine)).std(0).min() > 0.05


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["phase-free", "filtered"])
@pytest.mark.parametrize("n_skipped", [0, 1, BAND - 1, BAND, 3 * BAND + 2])
def test_a_skipped_bin_is_an_invalid_one(
    tiny_ones: dict[str, Checkpoint], decoder: str, kind: str, n_skipped: int
) -> None:
    """`skip` leaves what stepping through bins without data leaves, to the last bit."""
    stepped, skipped = (engines.create(tiny_ones[kind], decoder) for _ in "ab")
    log = a_log(live=1.0)
    for t in range(10):
        log.step(stepped, t)
        log.step(skipped, t)
    for t in range(n_skipped):
        stepped.step(Token(t, 0, log.counts[t], valid=False, clock=t))

    skipped.skip(n_skipped)

    for t in range(10, 30):
        np.testing.assert_array_equal(log.step(stepped, t), log.step(skipped, t))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_dropout_shows_nothing_of_its_counts(tiny_ones: dict[str, Checkpoint], decoder: str) -> None:
    """Whatever lies in the buffer of a bin without data."""
    log = a_log()
    noisy = Log(np.where(log.valid[:, None], log.counts, 99), log.valid, log.clock, log.reset, log.start)

    one, other = (engines.create(tiny_ones["phase-free"], decoder) for _ in "ab")

    np.testing.assert_array_equal(log.play(one), noisy.play(other))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_filtered_unit_changes_nothing(tiny_ones: dict[str, Checkpoint], decoder: str) -> None:
    """The last unit was below the rate floor in training; now it fires."""
    log = a_log()
    silent = log.counts.copy()
    silent[:, U - 1] = 0

    one, other = (engines.create(tiny_ones["phase-free"], decoder) for _ in "ab")
    quiet = Log(silent, log.valid, log.clock, log.reset, log.start).play(other)

    # 1e-6: a zero more in a float32 sum
    np.testing.assert_allclose(in_z(one, log.play(one)), in_z(other, quiet), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("position", [1, 777, FAR])
def test_a_reset_is_a_fresh_engine_at_any_position(
    tiny_ones: dict[str, Checkpoint], decoder: str, position: int
) -> None:
    """Nothing of what came before is left, and the position shifts nothing."""
    used, fresh = (engines.create(tiny_ones["phase-free"], decoder) for _ in "ab")
    a_log(seed=1).play(used)
    used.reset(position)
    log = a_log()

    got = np.stack([log.step(used, t) for t in range(40)])

    expected = np.stack([log.step(fresh, t) for t in range(40)])
    np.testing.assert_allclose(in_z(used, got), in_z(fresh, expected), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("decoder", DECODERS)
def test_warm_up_leaves_a_cold_engine(tiny_ones: dict[str, Checkpoint], decoder: str) -> None:
    """Same bits as an engine that never ran."""
    warm, cold = (engines.create(tiny_ones["clocked"], decoder) for _ in "ab")

    prepare.warm_up(warm, U)

    log = a_log()
    np.testing.assert_array_equal([log.step(warm, t) for t in range(20)], [log.step(cold, t) for t in range(20)])


@pytest.mark.parametrize("kind", ["phase-free", "clocked"])
def test_behaviour_has_no_part_in_decoding(tiny_ones: dict[str, Checkpoint], kind: str, session: Session) -> None:
    """A trial with its behaviour in the batch, and hidden as training hides it, decodes as the engine streams it."""
    checkpoint = tiny_ones[kind]
    engine = StreamEngine(checkpoint)
    counts, clock = session.counts[:25], np.arange(25)
    batch = Batch(
        torch.from_numpy(counts).float()[None],
        torch.ones(1, 25, dtype=torch.bool),
        {"wheel_speed": torch.from_numpy(session.values["wheel_speed"][None, :25])},
        {"choice": torch.from_numpy(session.values["choice"][None, :25]).clamp(min=0)},
        torch.from_numpy(clock)[None],
    )
    hidden = torch.ones(1, 25, 3, dtype=torch.bool)
    hidden[..., 0] = False

    out = checkpoint.model(batch, hidden)

    expected = torch.cat([out["wheel_speed"][0, :, None], out["choice"][0].softmax(-1)], dim=1)
    streamed = [engine.step(Token(t, 0, counts[t].astype(np.uint16), valid=True, clock=t)).copy() for t in range(25)]
    np.testing.assert_allclose(in_z(engine, np.stack(streamed)), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_values_are_in_units_and_probabilities(tiny_ones: dict[str, Checkpoint]) -> None:
    """Traces with their sd and mean, classes that sum to one; the blend lies where its shares say."""
    checkpoint, log = tiny_ones["phase-free"], a_log()
    ours, theirs, both = (log.play(engines.create(checkpoint, name)) for name in ("neds", "ridge", "blend"))
    layout = StreamEngine(checkpoint).layout

    assert layout.columns == {"wheel_speed": slice(0, 1), "choice": slice(1, 3)}
    assert layout.scale.tolist() == pytest.approx([checkpoint.scalers.sd["wheel_speed"], 1, 1])
    assert layout.offset.tolist() == pytest.approx([checkpoint.scalers.mean["wheel_speed"], 0, 0])
    for values in (ours, theirs, both):
        np.testing.assert_allclose(values[:, 1:].sum(1), 1.0, atol=1e-6)
    share = np.array([0.35, 0.8, 0.8])
    np.testing.assert_allclose(both, share * ours + (1 - share) * theirs, atol=1e-5, rtol=1e-5)


def test_spans_lie_between_cold_starts() -> None:
    """The first row always starts one."""
    assert offline.spans(np.array([False, False, True, True, False])) == [(0, 2), (2, 3), (3, 5)]
    assert offline.spans(np.array([True])) == [(0, 1)]


@pytest.mark.parametrize(("bins", "seconds"), [(100, 3.0), (4, 0.25), (10_000, 60.0), (0, 0.25)])
def test_a_silence_as_long_as_in_training_is_allowed(
    tiny_ones: dict[str, Checkpoint], bins: int, seconds: float
) -> None:
    """And half as long again, within a quarter of a second and a minute; 0 (older checkpoints): by the mean rate."""
    made = tiny_ones["phase-free"]
    said = replace(made, header=msgspec.structs.replace(made.header, longest_silence_bins=bins))
    assert engines.decoder(said, "ridge").silence_ns == seconds * 1e9


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["phase-free", "one layer", "filtered"])
def test_older_bins_than_an_engine_is_primed_with_do_not_reach_its_values(
    tiny_ones: dict[str, Checkpoint], decoder: str, kind: str
) -> None:
    """And of those, the older ones do: 2e-6 is float32 rounding."""
    made, rng = tiny_ones[kind], np.random.default_rng(4)
    n = prepare.receptive_bins(made)
    assert n < 600
    counts = rng.poisson(1.5, (n + 100, U)).astype(np.uint16)
    values = []
    for first in (0, 100, n + 98):
        engine = engines.create(made, decoder)
        engine.reset()
        for row in counts[first:]:
            engine.step(Token(0, 0, row, valid=True))
        values.append(engine.values.copy() / engine.layout.scale)
    np.testing.assert_allclose(values[1], values[0], atol=2e-6)
    assert np.abs(values[2] - values[0]).max() > 1e-3


PASS = Offer("PASS", "neds", "better than the ridge")


@pytest.mark.parametrize(
    ("changes", "decoder", "says"),
    [
        ({}, "neds", ""),
        ({}, "recommended", ""),
        ({}, "blend", "its gate offers neds of wheel_speed, and this rig would publish blend"),
        ({"unit_map_sha": "other"}, "neds", "its gate judged other units"),
        ({"forced": True}, "neds", "it was forced past its gate"),
        ({"offers": {"wheel_speed": PASS}}, "neds", "its gate did not judge choice"),
        ({"offers": {}}, "neds", "its gate judged no output"),
        (
            {"offers": {"wheel_speed": PASS, "choice": Offer("REFUSE", "neds", "one class only")}},
            "neds",
            "its gate says REFUSE of choice: one class only",
        ),
    ],
)
def test_a_gate_stands_behind_what_it_offers_and_nothing_else(
    tiny_ones: dict[str, Checkpoint], changes: dict[str, Any], decoder: str, says: str
) -> None:
    made = tiny_ones["phase-free"]
    gate = Gate("s", "sha", made.header.unit_map_sha, "", {spec.name: PASS for spec in made.specs})
    judged = replace(made, header=msgspec.structs.replace(made.header, gate=msgspec.structs.replace(gate, **changes)))
    assert engines.ungated(judged, decoder) == says
    assert engines.decoder(judged, decoder).gated is (says == "")
    assert engines.ungated(made, decoder) == "no gate has judged it"


def test_no_gate_is_asked_of_inferred_labels(tiny_ones: dict[str, Checkpoint]) -> None:
    """What a calibration of such a recording leaves out of its gate, a run does not miss."""
    made = tiny_ones["phase-free"]
    specs = tuple(msgspec.structs.replace(s, labels="inferred") if s.kind == "class" else s for s in made.specs)
    gate = Gate("s", "sha", made.header.unit_map_sha, "", {"wheel_speed": PASS})
    judged = replace(made, header=msgspec.structs.replace(made.header, specs=specs, gate=gate))
    assert engines.ungated(judged, "neds") == ""


def test_an_unknown_decoder_names_the_known(tiny_ones: dict[str, Checkpoint]) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match="choose one of neds, ridge, blend"):
        engines.create(tiny_ones["phase-free"], "transformer")


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_shipped_checkpoint_streams_exactly(decoder: str) -> None:
    """On ten of its own test trials, each from a cold start, with the shipped unit table."""
    checkpoint = checkpoints.load(ROOT / "examples" / "ibl-dy016" / "neds.safetensors")
    one = session_file.load(ROOT / "examples" / "ibl-dy016" / "session.npz")
    assert checkpoint.header.unit_map_sha == one.units.sha256
    rows = slice(int(one.segments[240, 0]), int(one.segments[249, 1]))
    n = rows.stop - rows.start
    log = Log(
        counts=one.counts[rows].astype(np.uint16),
        valid=one.valid[rows],
        clock=one.clock()[rows],
        reset=np.isin(np.arange(rows.start, rows.stop), one.segments[:, 0]),
        start=np.arange(n) + FAR,
    )
    engine = engines.create(checkpoint, decoder)

    streamed, offline = log.play(engine), log.offline(engine)

    # 1e-4: as above, over hundreds of units
    np.testing.assert_allclose(in_z(engine, streamed), in_z(engine, offline), atol=1e-4, rtol=1e-4)
