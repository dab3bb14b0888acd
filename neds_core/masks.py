"""The masks of multi-task training (Zhang et al. 2025, sec. 3.4): what a sample hides is what it is asked.

hidden (T, M) bool, column 0 = spikes, True = the encoder may not see the token. Draws are per
sample and independent between modalities. Undefined tokens are always hidden and never asked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neds_core.config import MaskConfig

Draw = Callable[[np.random.Generator, int, int, float], tuple[np.ndarray, np.ndarray]]


def _random(rng: np.random.Generator, n_bins: int, ratio: float) -> np.ndarray:
    return rng.random(n_bins) < ratio


def encoding(rng: np.random.Generator, n_bins: int, n_modalities: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Spikes from behaviour: every spike token hidden, every behaviour shown."""
    hidden = np.zeros((n_bins, n_modalities), bool)
    hidden[:, 0] = True
    return hidden, hidden.copy()


def decoding(rng: np.random.Generator, n_bins: int, n_modalities: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour from spikes: every behaviour hidden, every spike token shown."""
    hidden = np.ones((n_bins, n_modalities), bool)
    hidden[:, 0] = False
    return hidden, hidden.copy()


def within_spikes(
    rng: np.random.Generator, n_bins: int, n_modalities: int, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes from spikes: random spike tokens hidden, all behaviour hidden and not asked."""
    hidden = np.ones((n_bins, n_modalities), bool)
    hidden[:, 0] = _random(rng, n_bins, ratio)
    asked = np.zeros_like(hidden)
    asked[:, 0] = hidden[:, 0]
    return hidden, asked


def within_behaviour(
    rng: np.random.Generator, n_bins: int, n_modalities: int, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour from behaviour: each behaviour hides its own random bins, all spikes hidden and not asked."""
    hidden = np.ones((n_bins, n_modalities), bool)
    for m in range(1, n_modalities):
        hidden[:, m] = _random(rng, n_bins, ratio)
    asked = hidden.copy()
    asked[:, 0] = False
    return hidden, asked


def cross_modal(
    rng: np.random.Generator, n_bins: int, n_modalities: int, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Anything from anything: every modality hides its own random bins, all hidden tokens asked."""
    hidden = np.stack([_random(rng, n_bins, ratio) for _ in range(n_modalities)], axis=1)
    return hidden, hidden.copy()


FAMILIES: dict[str, Draw] = {
    "encoding": encoding,
    "decoding": decoding,
    "within_spikes": within_spikes,
    "within_behaviour": within_behaviour,
    "cross_modal": cross_modal,
}


def draw(
    rng: np.random.Generator, config: MaskConfig, defined: np.ndarray, constant: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One sample's mask.

    defined (T, M) bool: valid spike bins and known behaviour values. constant (M,) bool: a
    class with one label in the whole segment; it is hidden all or none, because a partly
    visible label teaches copying. Returns hidden and asked (T, M); asked lies inside both
    hidden and defined.
    """
    weight = np.array([getattr(config, name) for name in FAMILIES])
    name = list(FAMILIES)[rng.choice(len(weight), p=weight / weight.sum())]
    hidden, asked = FAMILIES[name](rng, defined.shape[0], defined.shape[1], config.ratio)
    for m in np.flatnonzero(constant):
        partly = hidden[:, m].any() and not hidden[:, m].all()
        if partly:
            hidden[:, m] = rng.random() < config.ratio
            asked[:, m] = hidden[:, m]
    hidden |= ~defined
    return hidden, asked & defined
