"""A simulated cursor on real LSL and real ZeroMQ, moved by what a real `neds-rt run` decodes from its spikes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from calibration.fitting import fit as fits
from calibration.fitting.config import CalibrateConfig, FitConfig, Linear, Scratch
from calibration.fitting.fit import Task
from calibration.simulating import live
from calibration.simulating.animal import Animal, Body
from calibration.simulating.blocks import START_S, Day, write_rig
from calibration.simulating.drivers import Decoded, Drive
from calibration.simulating.task import BIN_NS, BIN_TICKS, CURSOR, shuffled
from calibration.simulating.world import World
from neds_core import checkpoint
from neds_core.config import ModelConfig
from neds_core.data import parts
from neds_core.data.session import BehaviourSpec, Session
from runtime.children import Child
from runtime.client import Subscriber
from runtime.io import log_file
from runtime.io.lsl_resolve import REPLAY_SESSION, configure
from runtime.wire import Decode

MOVED_TICKS = 20  # before the run falls silent: shorter than the way to a target, and found however slow a machine is
EASY = replace(CURSOR, noise=0.0)  # what is tested is the way of a value, not the decoder


def performed(body: Body, trials: int) -> Session:
    """An open-loop session of an animal, made without a socket."""
    animal = Animal(body, EASY, np.random.default_rng(0))
    world = World(animal, EASY, shuffled(np.random.default_rng(1), 8, (0,), trials))
    rows, edges, intent, moved = [], [], np.zeros(2), False
    while not world.over:
        counts = sum(world.step(animal.intent) for _ in range(BIN_TICKS))
        if world.moving != moved:
            edges.append(len(rows))
            moved = world.moving
        intent = animal.intent
        rows.append((counts, intent.copy()))
    values = np.array([row[1] for row in rows], np.float32)
    specs = tuple(BehaviourSpec(name, "continuous", "cm/s", "signed") for name in EASY.names("velocity"))
    segments = np.array(edges[: 2 * trials]).reshape(-1, 2)
    return Session(
        name="performed", bin_ns=BIN_NS, units=body.table, counts=np.array([row[0] for row in rows], np.uint16),
        valid=np.ones(len(rows), bool), specs=specs, values={s.name: values[:, d] for d, s in enumerate(specs)},
        segments=segments, segment_ids=np.arange(len(segments)),
    )  # fmt: skip


class Row(NamedTuple):
    """A tick of a trial: when it was asked what drives it, and what did."""

    trial: int
    delay_ms: int
    now_ns: int
    drive: Drive


class Came(NamedTuple):
    """A message: when it came, from when on and until when it may drive, and what it says (D,), None = withheld."""

    now_ns: int
    from_ns: int
    until_ns: int
    velocity: np.ndarray | None


class Recorder(Decoded):
    """Keeps each tick of a trial, and each message."""

    def __init__(self, link: Subscriber, act: Callable[[World], None] = lambda world: None) -> None:
        super().__init__(link, EASY)
        self.rows: list[Row] = []
        self.came: list[Came] = []
        self.act = act

    def drive(self, now_ns: int, world: World) -> Drive:
        self.act(world)
        self._now_ns, self._delay_ns = now_ns, world.delay_ms * 1_000_000
        found = super().drive(now_ns, world)
        if world.moving:
            self.rows.append(Row(len(world.trials), world.delay_ms, now_ns, found))
        return found

    def velocity(self, message: Decode) -> np.ndarray | None:
        found, begins = super().velocity(message), self._now_ns + self._delay_ns
        self.came.append(Came(self._now_ns, begins, begins + round(message.valid_for_ms * 1e6), found))
        return found

    def right(self, now_ns: int) -> np.ndarray | None:
        """What is to drive: the last message whose delay is over, if it still holds."""
        over = [each for each in self.came if each.now_ns <= now_ns and each.from_ns <= now_ns]
        return over[-1].velocity if over and now_ns < over[-1].until_ns else None


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.grown(3)


@pytest.fixture(scope="module")
def decoder(body: Body, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for the animal's units, its ridge a good one."""
    config = CalibrateConfig(
        outputs=EASY.names("velocity"), scratch=Scratch(2, 1e-3), fit=FitConfig(batch=4, window_bins=20, check_every=2),
        model=ModelConfig(width=16, layers=1, heads=2, band=5, registers=1),
        linear=Linear(lags=(1,), filter_taus_ms=((40.0, 120.0),), penalties=(100.0,), folds=2),
    )  # fmt: skip
    made = fits.fit(Task(config, parts.cut(performed(body, 40)), Path("performed.npz"), "5" * 64, "performed")).made
    path = tmp_path_factory.mktemp("decoder") / "performed.safetensors"
    checkpoint.save(made, path)
    return path


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    configure(REPLAY_SESSION, "machine")
    return Day(EASY, 3, tmp_path_factory.mktemp("day"), adapts=True, watch=lambda: None)


@pytest.mark.slow
def test_decoded_values_move_the_cursor_as_late_as_they_are_told_to(day: Day, decoder: Path, tmp_path: Path) -> None:
    """Each velocity of the cursor is one that the run has published, the last whose added delay is over;
    and a run that falls silent stops the cursor."""
    rig, saved = write_rig(tmp_path / "rig.toml", day.prefix, tuple(day.channels), decoder), tmp_path / "log.npz"
    given = ("run", rig, "--decoder", "ridge", "--allow-replay", "--headless", "--json", "--save-log", saved)
    world = day.world(1, (0, 200), 3)
    with Child(tmp_path, *given) as child:
        address = child.until(r"decode and status on (tcp://\S+),", START_S, day.watch)
        with Subscriber(address) as link:
            silent = False

            def fall_silent(now: World) -> None:
                """In the last trial, once decoded values have moved the cursor for a while."""
                nonlocal silent
                moved = sum(row.trial == len(now.plan) - 1 and row.drive.velocity is not None for row in recorder.rows)
                if not silent and moved >= MOVED_TICKS:
                    os.kill(child.process.pid, signal.SIGSTOP)
                    silent = True

            recorder = Recorder(link, fall_silent)
            day.heard(child)
            live.play(world, day.sender, recorder, 3, day.watch)
            os.kill(child.process.pid, signal.SIGCONT)
            child.stop(day.watch)
    log = log_file.load(saved)
    published = {tuple(row) for row in log.values[: log.n].astype(float).tolist()}
    drives = [row.drive for row in recorder.rows if row.drive.velocity is not None]
    assert len(drives) > 100
    assert all(tuple(np.asarray(d.velocity).tolist()) in published for d in drives)

    for row in recorder.rows:
        np.testing.assert_array_equal(row.drive.velocity, recorder.right(row.now_ns))
    for trial, (_, delay_ms) in enumerate(world.plan):
        rows = [row for row in recorder.rows if row.trial == trial]
        moved = next(row.now_ns for row in rows if row.drive.velocity is not None)
        assert moved - rows[0].now_ns >= delay_ms * 1_000_000  # nothing of a trial is decoded before it

    assert silent
    last = world.trials[-1]
    assert not last.success
    assert last.stale_ticks > 100
    stopped = [row.drive for row in recorder.rows if row.trial == len(world.plan) - 1][-100:]
    assert all(d.stale and d.velocity is None for d in stopped)
    assert any(trial.success for trial in world.trials[:-1])
