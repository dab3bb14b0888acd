"""A simulated world in real time: every 5 ms one tick, by an absolute schedule; its streams leave over LSL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.simulating.drivers import Driver
from calibration.simulating.task import BIN_NS, BIN_TICKS, TICK_NS, Effector
from calibration.simulating.world import World
from runtime.core.timeline import inside_ns
from runtime.io import system
from runtime.io.lsl_clock import now_ns
from runtime.io.lsl_description import Declared
from runtime.io.lsl_sender import Sender

LEAD_NS = 1_000_000_000  # between the first listener and the first tick
MARGIN_NS = 50_000  # spikes keep so far from the edges of their tick
WHAT = ("cursor", "velocity", "target")
SAYS = "simulation"


@dataclass(slots=True)
class Pace:
    """How well the schedule was kept: ticks, those that began over a tick late, and the worst."""

    ticks: int = 0
    late: int = 0
    worst_ms: float = 0.0


def rest() -> None:
    """A moment, for whoever waits."""
    time.sleep(0.02)


def channels(effector: Effector) -> dict[str, Declared]:
    """The behaviour channels of a simulation, in their order."""
    units = {"cursor": effector.unit, "velocity": f"{effector.unit}/s", "target": effector.unit}
    return {name: Declared(units[what], "signed", SAYS, 0.0) for what in WHAT for name in effector.names(what)}


def play(world: World, sender: Sender, driver: Driver, seed: int, watch: Callable[[], None]) -> Pace:
    """Play a world until its trials are done. seed: of spikes' moments; watch: called once a bin, raises to end it."""
    system.raise_priority()  # it stands for an acquisition system, which has its own machine
    try:
        return _play(world, sender, driver, np.random.default_rng((seed, 11)), watch)
    finally:
        system.lower_priority()


def _play(
    world: World, sender: Sender, driver: Driver, rng: np.random.Generator, watch: Callable[[], None]
) -> Pace:  # fmt: skip
    pace = Pace()
    zero_ns = (now_ns() + LEAD_NS) // BIN_NS * BIN_NS
    while not world.over:
        edge_ns = zero_ns + (world.tick + 1) * TICK_NS
        left_ns = edge_ns - now_ns()
        if left_ns > 0:
            time.sleep(left_ns * 1e-9)
        now = now_ns()
        pace.ticks += 1
        pace.late += now - edge_ns > TICK_NS
        pace.worst_ms = max(pace.worst_ms, (now - edge_ns) * 1e-6)
        velocity, stale = driver.drive(now, world)
        spikes = world.step(velocity, stale=stale)
        driver.intended(edge_ns, world.animal.intent)
        _send(world, sender, spikes, edge_ns, zero_ns, rng)
        if world.tick % BIN_TICKS == 0:
            watch()
    return pace


def _send(
    world: World, sender: Sender, spikes: np.ndarray, edge_ns: int, zero_ns: int, rng: np.random.Generator
) -> None:
    """What one tick has made: spikes and markers, and at the edge of a bin behaviour and a keep-alive."""
    inside = inside_ns(BIN_NS)
    for mark in world.marks:
        sign = 1 if mark.event == "segment_start" else -1
        labels = {"target": f"target_{mark.target}"} if sign < 0 else {}
        sender.mark(zero_ns + mark.tick * TICK_NS + sign * inside, mark.event, mark.trial, **labels)
    world.marks.clear()
    unit = np.repeat(np.arange(len(spikes)), spikes)
    t_ns = edge_ns - rng.integers(MARGIN_NS, TICK_NS - MARGIN_NS, len(unit))
    order = np.argsort(t_ns)
    sender.spikes(t_ns[order], unit[order])
    if world.tick % BIN_TICKS == 0:
        sender.behaviour(edge_ns - inside, np.concatenate([world.cursor, world.velocity, world.target]))
        sender.alive(edge_ns)
