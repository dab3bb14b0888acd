"""Made-up animals for `neds-rt bench transfer --made-up`: all share their latents, so a trunk has something to know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from benchmarks.accuracy.mice.steinmetz import Bundle
from neds_core.data import synthetic
from neds_core.data.synthetic import Recording, World

# Sizes of the study of mice, with fewer units and sessions: trials of 20 bins, as many as a session of theirs has.
WORLD = World(animals=4, sessions=2, trials=290, trial_bins=20, units_per_region=25)


@dataclass(frozen=True, slots=True)
class MadeUp(Bundle):
    """A bundle whose making is known."""

    recording: Recording


def bundles(world: World, outputs: tuple[str, ...], seed: int = 0) -> list[Bundle]:
    """Every session of every animal, with the behaviours `outputs` alone."""
    found: list[Bundle] = []
    for one in synthetic.recordings(world, seed):
        specs = tuple(one.session.spec(name) for name in outputs)
        session = replace(one.session, specs=specs, values={name: one.session.values[name] for name in outputs})
        sha = hashlib.sha256(msgspec.json.encode((world, seed, session.name))).hexdigest()
        found.append(MadeUp(session, one.animal, np.zeros((len(one.block), 2)), sha, one))
    return found
