"""`calibrate.toml`: how a session is calibrated on (docs/calibration.md has every key)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from neds_core.config import Count, Lead, LinearConfig, MaskConfig, ModelConfig, Positive, Rate, Ratio, refuse_lead


class Stage(Struct, frozen=True, forbid_unknown_fields=True):
    """Steps of a stage, 0 = it is left out, and the peak of its one-cycle learning rate."""

    steps: Count = 0
    learning_rate: Rate = 3e-3


class Readouts(Stage, frozen=True, forbid_unknown_fields=True):
    """Rows, session embedding and read-outs."""

    steps: Count = 120


class Everything(Stage, frozen=True, forbid_unknown_fields=True):
    """All weights of a base."""

    steps: Count = 100
    learning_rate: Rate = 5e-4


class Scratch(Stage, frozen=True, forbid_unknown_fields=True):
    """All weights of a first day."""

    steps: Count = 300
    learning_rate: Rate = 2e-3


class Masks(MaskConfig, frozen=True, forbid_unknown_fields=True):
    """Of a first day: made for decoding, as those of the shipped decoders."""

    decoding: Annotated[float, Meta(ge=0.0)] = 3.0


class Linear(LinearConfig, frozen=True, forbid_unknown_fields=True):
    """Without the longest bank, which takes most of the time of a search."""

    lags: tuple[Positive, ...] = (1, 10)


class FitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What all stages share. Skill on the selecting part is measured every `check_every` steps."""

    batch: Positive = 16
    window_bins: Positive = 100
    ema_decay: Ratio = 0.95
    check_every: Positive = 10
    patience: Positive = 5


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What a session may not be beyond: share of an output's bins without a value, and ms between spikes and it."""

    unknown_share: Ratio = 0.3
    lag_ms: Rate = 400.0


class CalibrateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Without a base `outputs` names the behaviours and `scratch` trains them; `model` and `masks` are then its own.

    spikes: masked spike modelling of the new rows alone; readouts: rows, session embedding and read-outs, the trunk
    frozen; everything: all of it. keep_rows: units of the base with the same id and region keep their rows. lead_ms: of
    a first day, name of an output -> how much later the behaviour is that it says.
    """

    outputs: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    min_rate_hz: Annotated[float, Meta(ge=0.0)] = 0.05
    seed: Count = 0
    lead_ms: dict[str, Lead] = {}
    keep_rows: bool = False
    ridge_start: bool = False
    spikes: Stage = Stage()
    readouts: Readouts = Readouts()
    everything: Everything = Everything()
    scratch: Scratch = Scratch()
    fit: FitConfig = FitConfig()
    limits: LimitsConfig = LimitsConfig()
    model: ModelConfig = ModelConfig()
    masks: Masks = Masks()
    linear: Linear = Linear()

    def __post_init__(self) -> None:
        for name in set(self.select) - set(self.outputs or self.select):
            raise ValueError(f"select: {name!r} is none of {', '.join(self.outputs)}")
        for name in set(self.lead_ms) - set(self.outputs or self.lead_ms):
            raise ValueError(f"lead_ms: {name!r} is none of {', '.join(self.outputs)}")
        refuse_lead(self.lead_ms, self.model)
