"""A simulated cursor on real LSL and real ZeroMQ, moved by what a real `neds-rt run` decodes from its spikes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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

EASY = replace(CURSOR, noise=0.0)  # what is tested is the way of a value, not the decoder
PERIOD = 4  # ticks of a bin: a value comes in each


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


class Recorder(Decoded):
    """Keeps for each tick of a trial: (trial, delay in ms, what drove it, the newest values that had come)."""

    def __init__(self, link: Subscriber, act: Callable[[World], None] = lambda world: None) -> None:
        super().__init__(link, EASY)
        self.rows: list[tuple[int, int, Drive]] = []
        self.act = act

    def drive(self, now_ns: int, world: World) -> Drive:
        self.act(world)
        found = super().drive(now_ns, world)
        if world.moving:
            self.rows.append((len(world.trials), world.delay_ms, found))
        return found


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
    """Each velocity of the cursor is one that the run has published; an added delay comes on top, counted in ticks;
    and a run that falls silent stops the cursor."""
    rig, saved = write_rig(tmp_path / "rig.toml", day.prefix, tuple(day.channels), decoder), tmp_path / "log.npz"
    given = ("run", rig, "--decoder", "ridge", "--allow-replay", "--headless", "--json", "--save-log", saved)
    world = day.world(1, (0, 200), 3)
    with Child(tmp_path, *given) as child:
        address = child.until(r"decode and status on (tcp://\S+),", START_S, day.watch)
        with Subscriber(address) as link:
            silent = False

            def fall_silent(now: World) -> None:
                """In the last trial, once the cursor is on its way."""
                nonlocal silent
                last = now.moving and len(now.trials) == len(now.plan) - 1
                if not silent and last and np.linalg.norm(now.cursor) > 1.0:
                    os.kill(child.process.pid, signal.SIGSTOP)
                    silent = True

            recorder = Recorder(link, fall_silent)
            day.heard(child)
            live.play(world, day.sender, recorder, 3, day.watch)
            os.kill(child.process.pid, signal.SIGCONT)
            child.stop(day.watch)
    log = log_file.load(saved)
    published = {tuple(row) for row in log.values[: log.n].astype(float).tolist()}
    drives = [d for _, _, d in recorder.rows if d.velocity is not None]
    assert len(drives) > 100
    assert all(tuple(np.asarray(d.velocity).tolist()) in published for d in drives)

    first = {}  # tick of each trial at which it was first moved
    for trial in range(len(world.plan)):
        rows = [(delay, d) for at, delay, d in recorder.rows if at == trial]
        first.setdefault(rows[0][0], []).append(next(i for i, (_, d) in enumerate(rows) if d.velocity is not None))
    # 200 ms are 40 ticks; the first bin ends at one of PERIOD ticks, and a busy machine may take one value more
    assert min(first[200]) >= 40
    assert 40 - 2 * PERIOD <= np.median(first[200]) - np.median(first[0]) <= 40 + 4 * PERIOD

    assert silent
    last = world.trials[-1]
    assert not last.success
    assert last.stale_ticks > 100
    stopped = [d for at, _, d in recorder.rows if at == len(world.plan) - 1][-100:]
    assert all(d.stale and d.velocity is None for d in stopped)
    assert any(trial.success for trial in world.trials[:-1])
