"""What the engines are told when they are verified."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from calibration.rehearsal import halves
from kernels.cpu import pack
from neds_core import checkpoint as checkpoints
from neds_core.checkpoint import Checkpoint
from neds_core.data import session_file
from neds_core.data.session import Session
from runtime.engines.stream import StreamEngine
from runtime.scoring import verify as verifying

EXAMPLES = Path(__file__).parents[3] / "examples"
SHIPPED, RAT = sorted(EXAMPLES.glob("*/*.safetensors")), EXAMPLES / "rat-linear-track"
STRETCH_BINS, PIECE_BINS = 750, 150
HALVES = ("half-a", "half-b-before")


def test_behaviour_is_the_recordings_bin_by_bin(tiny_checkpoint: Checkpoint, session: Session) -> None:
    """In the outputs' order, NaN where nothing is known, and all NaN of one that was not recorded."""
    lacks = replace(
        session, specs=session.specs[:1], values={"wheel_speed": session.values["wheel_speed"]},
        segments=session.segments[4:7], segment_ids=session.segment_ids[4:7],
    )  # fmt: skip
    few = replace(session, segments=lacks.segments, segment_ids=lacks.segment_ids)

    whole, blind = verifying.told(tiny_checkpoint, few), verifying.told(tiny_checkpoint, lacks)

    np.testing.assert_array_equal(whole.bins, np.arange(100, 175))
    np.testing.assert_array_equal(whole.behaviour[:, 0], session.values["wheel_speed"])
    known = session.values["choice"] >= 0
    np.testing.assert_array_equal(whole.behaviour[known, 1], session.values["choice"][known])
    assert np.isnan(whole.behaviour[~known, 1]).all()
    assert np.isnan(blind.behaviour[:, 1]).all()
    assert [t.reset for t in whole.tokens(None)] == [t % 25 == 0 for t in range(75)]


def stretch(session: Session) -> Session:
    """The first and the last 750 bins of its segments, with ten bins that are not valid.

    A long segment is cut into several, as a split needs ten: cold starts and ends, and between them more bins than the
    engines keep keys of.
    """
    pieces = [(a, b) for start, stop in session.segments for a, b in cuts(int(start), int(stop))]
    sizes = np.array([stop - start for start, stop in pieces])
    kept = (np.cumsum(sizes) <= STRETCH_BINS) | (np.cumsum(sizes[::-1])[::-1] <= STRETCH_BINS)
    segments = np.array(pieces, np.int64)[kept]
    valid = session.valid.copy()
    valid[segments[1, 0] + 3 : segments[1, 0] + 13] = False
    return replace(session, segments=segments, segment_ids=np.arange(len(segments)), valid=valid)


def cuts(start: int, stop: int) -> list[tuple[int, int]]:
    """A segment in pieces of `PIECE_BINS` at most."""
    edges = [*range(start, stop, PIECE_BINS), stop]
    return list(pairwise(edges))


def recorded(path: Path) -> Session:
    """The recording of a shipped checkpoint: its folder's, or the half of its units that the checkpoint decodes."""
    whole = session_file.load(path.parent / "session.npz")
    return halves.half(whole, HALVES.index(path.stem)) if path.stem in HALVES else whole


def right(rows: dict[str, verifying.Row], least: int = 3) -> bool:
    """Float32 within 1e-5 of the offline reference in so many engines, compact weights within their bounds."""
    exact = [row for name, row in rows.items() if "bfloat16" not in name and "int8" not in name]
    return len(exact) >= least and all(row["max_abs"] <= 1e-5 for row in exact) and all(map(near, rows.values()))


def near(row: verifying.Row) -> bool:
    """Values alone, whatever they cost in R2: the last seconds of one long segment do not vary enough to score."""
    return row["max_abs"] <= row["bound"]


def test_each_sum_is_verified(judged_checkpoint: Checkpoint, short: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recommended too, where it is a sum of its own."""
    monkeypatch.setattr(verifying, "_network", lambda checkpoint, log: {})
    rows, failed = verifying.verify(judged_checkpoint, short)

    blend = "3 x stream-numba-cpu + linear-numba-cpu"
    assert rows.keys() == {"3 x stream-numba-cpu", "linear-numba-cpu", blend, f"{blend}, recommended"}
    assert failed == []


def test_a_decoder_that_looks_ahead_is_verified(
    ahead_checkpoint: Checkpoint, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engines may be shown the other output alone; what it decodes is what is measured 60 ms later."""
    monkeypatch.setattr(verifying, "BOUNDS", {"float32": 1e-5})
    few = replace(session, segments=session.segments[:12], segment_ids=session.segment_ids[:12])

    log, (rows, failed) = verifying.told(ahead_checkpoint, few), verifying.verify(ahead_checkpoint, few)

    wheel = session.values["wheel_speed"]
    np.testing.assert_array_equal(log.behaviour[0:22, 0], np.where(session.valid, wheel, np.nan)[3:25])
    assert np.isnan(log.behaviour[22:25, 0]).all()
    assert any(name.endswith("half observed") for name in rows)
    assert any(name.startswith("rates") for name in rows)
    assert failed == []


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_checkpoint_is_right_in_every_engine(path: Path) -> None:
    """Over a stretch; benchmarks/results/verify.jsonl holds what `neds-rt verify` gave over each whole recording."""
    made = checkpoints.load(path)
    session = recorded(path)
    rows, failed = verifying.verify(made, stretch(session))

    assert right(rows, 3 if made.state_space is None else 1), rows
    assert failed == [] or session.continuous


@pytest.mark.slow
def test_a_whole_recording_is_right_in_every_engine() -> None:
    """One segment of 16 minutes: positions go on to 48 000, and the held-out fifth is scored."""
    rows, failed = verifying.verify(checkpoints.load(RAT / "neds.safetensors"), session_file.load(RAT / "session.npz"))

    assert right(rows), rows
    assert failed == []


@pytest.mark.slow
def test_weights_as_large_models_keep_them_are_as_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 in three bytes each, which no shipped checkpoint is large enough for, in every engine that has them."""
    checkpoint, session = checkpoints.load(RAT / "neds.safetensors"), session_file.load(RAT / "session.npz")
    monkeypatch.setattr(pack, "LARGE", 0)
    assert StreamEngine(checkpoint).weights.stack.up.weight.dtype == np.uint8

    rows, _ = verifying.verify(checkpoint, stretch(session))

    assert right(rows), rows
    assert sum(row["bound"] == 1e-5 for row in rows.values()) >= 4  # among them decoding, rates, beside behaviour
