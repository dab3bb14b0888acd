"""Made-up recordings whose truth is known: task, shared latents, regions, drift and turnover.

Every session's name, citation and behaviours say "synthetic", and so must every figure made from one.
The task has the structure of the International Brain Laboratory's (eLife 10:e63711, 2021): 90 trials
at p(left) = 0.5, then blocks of 0.2 and 0.8 of 20 to 100 trials. Latents follow one linear dynamical
system in all animals; units read them by the tuning of their region. Simpler than a brain on purpose:
the stimulus reaches units through the choice alone, and all trials have one reaction time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from neds_core.data.session import BehaviourSpec, Session, UnitTable
from neds_core.errors import DataError

P_LEFT = (0.5, 0.2, 0.8)  # of the three blocks
FIRST_BLOCK, BLOCK_MIN, BLOCK_MAX, BLOCK_SCALE = 90, 20, 100, 60.0  # trials
CONTRASTS = (0.0, 0.0625, 0.125, 0.25, 1.0)
N_LATENTS = 4  # two damped rotations
SAYS = "synthetic"
SPECS = (
    BehaviourSpec("wheel_velocity", "continuous", "rad/s", "signed", labels_note=SAYS),
    BehaviourSpec("whisker_motion_energy", "continuous", "a.u.", "unsigned", labels_note=SAYS),
    BehaviourSpec("choice", "class", classes=("left", "right"), labels_note=SAYS),
    BehaviourSpec("stimulus_side", "class", classes=("left", "right"), labels_note=SAYS),
    BehaviourSpec("block", "class", classes=tuple(f"p_left_{p}" for p in P_LEFT), labels_note=SAYS),
)


class World(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes and strengths of what is generated. `drift` and `tuning` are in log-rate."""

    animals: Annotated[int, Meta(ge=1)] = 4
    sessions: Annotated[int, Meta(ge=1)] = 2  # of each animal
    trials: Annotated[int, Meta(ge=10)] = 200
    trial_bins: Annotated[int, Meta(ge=10)] = 50
    bin_ns: Annotated[int, Meta(ge=1)] = 20_000_000
    regions: tuple[str, ...] = ("ca1", "lp", "mos", "vis")
    units_per_region: Annotated[int, Meta(ge=1)] = 15
    rate_hz: Annotated[float, Meta(gt=0.0)] = 5.0
    tuning: Annotated[float, Meta(ge=0.0)] = 0.4  # length of a unit's loading on the latents
    region_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5  # of the loading's variance, common to a region
    block_tuning: Annotated[float, Meta(ge=0.0)] = 0.05  # log-rate between blocks 0.5 and 0.8
    drift: Annotated[float, Meta(ge=0.0)] = 0.3  # sd that a random walk reaches at the session's end
    turnover: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3  # units replaced from one session to the next
    behaviour_noise: Annotated[float, Meta(ge=0.0)] = 0.2


@dataclass(frozen=True, slots=True)
class Units:
    """What a unit is, for U units: id, region (index), depth_um, base log rate, loading (U, K), block (U,)."""

    ids: np.ndarray
    region: np.ndarray
    depth_um: np.ndarray
    base: np.ndarray
    loading: np.ndarray
    block: np.ndarray

    def replace_rows(self, rows: np.ndarray, new: Units) -> Units:
        """These units with `rows` (U,) bool taken from `new`."""
        fields = (self.ids, self.region, self.depth_um, self.base, self.loading, self.block)
        others = (new.ids, new.region, new.depth_um, new.base, new.loading, new.block)
        mixed = (np.where(rows.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(fields, others, strict=True))
        return Units(*mixed)


@dataclass(frozen=True, slots=True)
class Shared:
    """One for all animals. Latents x(t) = n(t) + mean(t) + direction * turn(t), direction +1 left, -1 right,
    and n(t) = step @ n(t - 1) + noise with stationary covariance 1, new at each trial."""

    step: np.ndarray  # (K, K)
    noise_sd: np.ndarray  # (K,)
    mean: np.ndarray  # (T, K)
    turn: np.ndarray  # (T, K)
    readout: np.ndarray  # (2, K): wheel_velocity and whisker_motion_energy
    offset: np.ndarray  # (2,)
    tuning: np.ndarray  # (R, K): a region's common loading
    block: np.ndarray  # (R,): a region's common block tuning
    rate: np.ndarray  # (R,): a region's mean log rate, about the world's


@dataclass(frozen=True, slots=True)
class Recording:
    """A synthetic session and all that made it. log_rate (S, U): log spikes a bin without latents and block."""

    session: Session
    animal: str
    shared: Shared
    units: Units
    log_rate: np.ndarray
    direction: np.ndarray  # (S,) +1 left, -1 right
    block: np.ndarray  # (S,) int64 index into P_LEFT
    latents: np.ndarray  # (S, T, K)


def recordings(world: World, seed: int) -> list[Recording]:
    """All sessions of all animals; the same seed gives the same, and more animals leave the first ones as they are."""
    shared = _shared(world, np.random.default_rng((seed, 0)))
    found = []
    for animal in range(world.animals):
        rng = np.random.default_rng((seed, 1, animal))
        units = _units(world, shared, rng, first_id=0)
        for number in range(world.sessions):
            if number:
                gone = rng.random(len(units.ids)) < world.turnover
                units = units.replace_rows(gone, _units(world, shared, rng, first_id=number * len(units.ids)))
            name = f"synthetic-seed{seed}-animal{animal}-session{number}"
            found.append(record(world, shared, units, rng, name, f"animal{animal}"))
    return found


def block_sequence(rng: np.random.Generator, n_trials: int) -> np.ndarray:
    """Index into P_LEFT of each trial (S,) int64, by the rule of the task (see the module)."""
    block = np.zeros(n_trials, np.int64)
    start, now = FIRST_BLOCK, int(rng.integers(1, 3))
    while start < n_trials:
        length = BLOCK_MAX + 1.0
        while not BLOCK_MIN <= length <= BLOCK_MAX:
            length = rng.exponential(BLOCK_SCALE)
        block[start : start + int(length)] = now
        start, now = start + int(length), 3 - now
    return block


def record(
    world: World,
    shared: Shared,
    units: Units,
    rng: np.random.Generator,
    name: str,
    animal: str,
    block: np.ndarray | None = None,
) -> Recording:
    """One session of these units. block (S,) int64: a real sequence to use instead of a drawn one."""
    if block is None:
        block = block_sequence(rng, world.trials)
    if block.min() < 0 or block.max() > 2:
        raise DataError("a block is none of 0, 1, 2 (p(left) 0.5, 0.2, 0.8); leave the other trials out")
    S, T = len(block), world.trial_bins
    p_left = np.array(P_LEFT)[block]
    side = np.where(rng.random(S) < p_left, 1.0, -1.0)
    logit = 8.0 * side * rng.choice(CONTRASTS, S) + np.log(p_left / (1 - p_left))
    direction = np.where(rng.random(S) < 1 / (1 + np.exp(-logit)), 1.0, -1.0)
    latents = _wander(shared, rng, S, T) + shared.mean + direction[:, None, None] * shared.turn
    log_rate = units.base + np.cumsum(rng.normal(0, world.drift / np.sqrt(S), (S, len(units.ids))), 0)
    eta = log_rate[:, None] + latents @ units.loading.T + (block_code(block)[:, None] * units.block)[:, None]
    counts = rng.poisson(rates(eta)).clip(max=255).astype(np.uint8)
    clean = latents @ shared.readout.T + shared.offset
    traces = clean + world.behaviour_noise * rng.normal(size=clean.shape)
    values: dict[str, np.ndarray] = {
        "wheel_velocity": traces[..., 0].ravel().astype(np.float32),
        "whisker_motion_energy": traces[..., 1].ravel().astype(np.float32),
        "choice": np.repeat((direction < 0).astype(np.int64), T),
        "stimulus_side": np.repeat((side < 0).astype(np.int64), T),
        "block": np.repeat(block, T),
    }
    edges = np.arange(S + 1, dtype=np.int64) * T
    session = Session(
        name=name,
        bin_ns=world.bin_ns,
        units=UnitTable(units.ids, np.array(world.regions)[units.region], units.depth_um),
        counts=counts,
        valid=np.ones(S * T, bool),
        specs=SPECS,
        values=values,
        segments=np.stack([edges[:-1], edges[1:]], axis=1),
        segment_ids=np.arange(S, dtype=np.int64),
        licence="CC0-1.0",
        citation="synthetic: neds_core.data.synthetic",
    )
    return Recording(session, animal, shared, units, log_rate, direction, block, latents)


def rates(eta: np.ndarray) -> np.ndarray:
    """(S * T, U) spikes a bin of log rates (S, T, U), 20 at most."""
    return np.exp(eta.clip(max=np.log(20.0))).reshape(-1, eta.shape[-1])


def block_code(block: np.ndarray) -> np.ndarray:
    """What units of block tuning follow: 0, -1, +1 for p(left) 0.5, 0.2, 0.8."""
    return np.array([0.0, -1.0, 1.0])[block]


def _shared(world: World, rng: np.random.Generator) -> Shared:
    step = np.zeros((N_LATENTS, N_LATENTS))
    for pair, (damping, angle) in enumerate(((0.95, 0.12), (0.9, 0.3))):
        c, s = damping * np.cos(angle), damping * np.sin(angle)
        step[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = [[c, -s], [s, c]]
    bins = np.arange(world.trial_bins) / world.trial_bins  # the stimulus comes at 0.25, movement about 0.5
    after, move = np.exp(-(((bins - 0.55) / 0.2) ** 2)), np.exp(-(((bins - 0.5) / 0.1) ** 2))
    tuning = rng.normal(size=(len(world.regions), N_LATENTS))
    return Shared(
        step=step,
        noise_sd=np.sqrt(1.0 - np.diag(step @ step.T)),
        mean=after[:, None] * np.array([0.3, 0.0, 1.5, 0.0]),
        turn=move[:, None] * np.array([1.5, 0.5, 0.0, 0.0]),
        readout=np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.5]]),
        offset=np.array([0.0, 4.0]),
        tuning=tuning / np.linalg.norm(tuning, axis=1, keepdims=True),
        block=rng.normal(size=len(world.regions)),
        rate=0.4 * rng.normal(size=len(world.regions)),
    )


def _units(world: World, shared: Shared, rng: np.random.Generator, first_id: int) -> Units:
    R = len(world.regions)
    region = np.repeat(np.arange(R), world.units_per_region)
    U = len(region)
    own = rng.normal(size=(U, N_LATENTS)) / np.sqrt(N_LATENTS)
    common, single = np.sqrt(world.region_share), np.sqrt(1 - world.region_share)
    bin_s = world.bin_ns * 1e-9
    return Units(
        ids=first_id + np.arange(U),
        region=region,
        depth_um=rng.uniform(0, 3800, U).astype(np.float32),
        base=np.log(world.rate_hz * bin_s) + shared.rate[region] + 0.5 * rng.normal(size=U),
        loading=world.tuning * (common * shared.tuning[region] + single * own),
        block=world.block_tuning * (common * shared.block[region] + single * rng.normal(size=U)),
    )


def _wander(shared: Shared, rng: np.random.Generator, S: int, T: int) -> np.ndarray:
    """Latents' own movement (S, T, K), each trial from the stationary distribution."""
    K = len(shared.step)
    x = np.empty((S, T, K))
    x[:, 0] = rng.normal(size=(S, K))
    for t in range(1, T):
        x[:, t] = x[:, t - 1] @ shared.step.T + shared.noise_sd * rng.normal(size=(S, K))
    return x
