"""The masks of multi-task training: what a sample hides is what it is asked.

Zhang et al. 2025, sec. 3.4, has four families: neural (`encoding` and `single_behaviour`),
behaviour (`decoding`), within-modality (`within_spikes` and `within_behaviour`) and
`cross_modal`; the published code draws five, evenly, and leaves `single_behaviour` out.
`causal_suffix` and `spans` are ours, for streams.

defined (T, M) bool, column 0 = spikes, True = live data or a known value. hidden (T, M) bool,
True = the encoder may not see the token. asked (T, M) bool, True = the loss reads the token.
Draws are per sample and independent between modalities. Undefined tokens are always hidden
and never asked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neds_core.config import MaskConfig

Mask = tuple[np.ndarray, np.ndarray]  # hidden and asked
Draw = Callable[[np.random.Generator, np.ndarray, MaskConfig], Mask]


def _random(rng: np.random.Generator, n_bins: int, ratio: float) -> np.ndarray:
    return rng.random(n_bins) < ratio


def encoding(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Spikes from behaviour: every spike token hidden, every behaviour shown."""
    hidden = np.zeros(defined.shape, bool)
    hidden[:, 0] = True
    return hidden, hidden.copy()


def single_behaviour(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Spikes from one behaviour, any that is known somewhere: all others hidden and not asked."""
    hidden = np.ones(defined.shape, bool)
    known = 1 + np.flatnonzero(defined[:, 1:].any(0))
    if len(known):
        hidden[:, rng.choice(known)] = False
    asked = np.zeros_like(hidden)
    asked[:, 0] = True
    return hidden, asked


def decoding(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Behaviour from spikes: every behaviour hidden, every spike token shown."""
    hidden = np.ones(defined.shape, bool)
    hidden[:, 0] = False
    return hidden, hidden.copy()


def within_spikes(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Spikes from spikes: random spike tokens hidden, all behaviour hidden and not asked."""
    hidden = np.ones(defined.shape, bool)
    hidden[:, 0] = _random(rng, len(defined), config.ratio)
    asked = np.zeros_like(hidden)
    asked[:, 0] = hidden[:, 0]
    return hidden, asked


def within_behaviour(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Behaviour from behaviour: each behaviour hides its own random bins, all spikes hidden and not asked."""
    hidden = np.ones(defined.shape, bool)
    for m in range(1, defined.shape[1]):
        hidden[:, m] = _random(rng, len(defined), config.ratio)
    asked = hidden.copy()
    asked[:, 0] = False
    return hidden, asked


def cross_modal(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Anything from anything: every modality hides its own random bins, all hidden tokens asked."""
    hidden = np.stack([_random(rng, len(defined), config.ratio) for _ in range(defined.shape[1])], axis=1)
    return hidden, hidden.copy()


def causal_suffix(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """The present from the past: every modality hides its own newest bins, from one of them to all."""
    n_live = int(np.flatnonzero(defined.any(1)).max(initial=0)) + 1  # windows are padded at their end
    first = n_live - rng.integers(1, n_live + 1, defined.shape[1])
    hidden = np.arange(len(defined))[:, None] >= first
    return hidden, hidden.copy()


def spans(rng: np.random.Generator, defined: np.ndarray, config: MaskConfig) -> Mask:
    """Gaps from what surrounds them: every modality hides stretches of one length, drawn from `span_bins`.

    Stretches start at random, also before the window, and may overlap; each starts with
    probability 1 - (1 - ratio)^(1 / length), so that every bin is hidden with probability `ratio`.
    """
    hidden = np.zeros(defined.shape, bool)
    shortest, longest = config.span_bins
    for m in range(defined.shape[1]):
        length = int(rng.integers(shortest, longest + 1))
        starts = _random(rng, len(defined) + length - 1, 1.0 - (1.0 - config.ratio) ** (1.0 / length))
        hidden[:, m] = np.lib.stride_tricks.sliding_window_view(starts, length).any(1)
    return hidden, hidden.copy()


# A family of weight 0 leaves the random stream of the others as it is, as long as new ones come last.
FAMILIES: dict[str, Draw] = {
    "encoding": encoding,
    "decoding": decoding,
    "within_spikes": within_spikes,
    "within_behaviour": within_behaviour,
    "cross_modal": cross_modal,
    "single_behaviour": single_behaviour,
    "causal_suffix": causal_suffix,
    "spans": spans,
}


def drop_modalities(rng: np.random.Generator, hidden: np.ndarray, asked: np.ndarray, share: float) -> Mask:
    """Hide whole modalities, each with probability `share`, and ask nothing for it; one always stays.

    Where nothing would be asked any more, one that is asked stays too. Unit dropout is the same for
    units (`Windows.sample`). Returns hidden and asked (T, M).
    """
    shown = np.flatnonzero(~hidden.all(0))
    gone = rng.random(len(shown)) < share
    if len(shown) and gone.all():
        gone[rng.integers(len(shown))] = False
    dropped = np.zeros(hidden.shape[1], bool)
    dropped[shown[gone]] = True
    if asked[:, dropped].any() and not asked[:, ~dropped].any():
        dropped[rng.choice(np.flatnonzero(dropped & asked.any(0)))] = False
    return hidden | dropped, asked & ~dropped


WHOLE = (slice(None),)


def draw(
    rng: np.random.Generator,
    config: MaskConfig,
    defined: np.ndarray,
    constant: np.ndarray,
    parts: tuple[slice, ...] = WHOLE,
) -> Mask:
    """One sample's mask.

    defined (T, M) bool: valid spike bins and known behaviour values. constant (M,) bool: a
    class with one label in the whole segment; it is hidden all or none, because a partly
    visible label teaches copying. A sample with bins of several segments gives the bins of each
    as parts, and constant (P, M). Returns hidden and asked (T, M); asked lies inside both
    hidden and defined.
    """
    weight = np.array([getattr(config, name) for name in FAMILIES])
    name = list(FAMILIES)[rng.choice(len(weight), p=weight / weight.sum())]
    hidden, asked = FAMILIES[name](rng, defined, config)
    for rows, unchanging in zip(parts, np.atleast_2d(constant), strict=True):
        for m in np.flatnonzero(unchanging):
            partly = hidden[rows, m].any() and not hidden[rows, m].all()
            if partly:
                hidden[rows, m] = rng.random() < config.ratio
                asked[rows, m] = hidden[rows, m]
    hidden, asked = hidden | ~defined, asked & defined
    if config.modality_dropout:
        return drop_modalities(rng, hidden, asked, config.modality_dropout)
    return hidden, asked
