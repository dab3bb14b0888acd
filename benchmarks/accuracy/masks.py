"""Masks of a NEDS that is trained on one task alone: spikes to behaviour, or behaviour to spikes."""

from __future__ import annotations

from neds_core.config import MaskConfig

DECODING = MaskConfig(decoding=1.0, encoding=0.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
ENCODING = MaskConfig(decoding=0.0, encoding=1.0, within_spikes=0.0, within_behaviour=0.0, cross_modal=0.0)
