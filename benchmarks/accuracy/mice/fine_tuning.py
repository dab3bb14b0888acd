"""How a network is trained on one session: from scratch, on a trunk of other mice, or on a random trunk that stays."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.accuracy.mice.trunks import MIN_RATE_HZ
from neds_core.config import FinetuneConfig, FitConfig, MaskConfig, ModelConfig, StageConfig, TrainConfig
from neds_core.model.model import NEDS
from neds_core.train import many
from neds_core.train.many import Pretrained
from neds_core.train.sources import Source, build

EVERYTHING = ("units", "session", "heads", "trunk")


class Schedule(Struct, frozen=True):
    """Steps and rates; on a trunk that knows something, new unit rows are trained first and then everything."""

    steps: int
    new_steps: int = 16  # of them, those that train new unit rows
    batch: int = 8
    window_bins: int = 20
    learning_rate: float = 3e-3
    tuning_rate: float = 1.5e-3  # of everything, on a trunk that knows something

    def stages(self, condition: str) -> tuple[StageConfig, ...]:
        """What is trained for how long: "scratch", "random trunk", or any other name for a trained trunk."""
        if condition == "scratch":
            return (StageConfig(self.steps, self.learning_rate, EVERYTHING),)
        if condition == "random trunk":
            return (StageConfig(self.steps, self.learning_rate, ("units", "session", "heads")),)
        new = StageConfig(self.new_steps, self.learning_rate, ("units", "session"))
        return (new, StageConfig(self.steps - self.new_steps, self.tuning_rate, EVERYTHING))


def recipe(
    condition: str, outputs: tuple[str, ...], model: ModelConfig, masks: MaskConfig, schedule: Schedule
) -> TrainConfig:
    """A condition's configuration: the same network, masks, steps and batches in all of them."""
    return TrainConfig(
        recording=condition,
        outputs=outputs,
        min_rate_hz=MIN_RATE_HZ,
        model=model,
        masks=masks,
        fit=FitConfig(
            steps=schedule.steps, batch=schedule.batch, window_bins=schedule.window_bins, ema_decay=0.9, threads=1
        ),
        finetune=FinetuneConfig(condition, schedule.stages(condition)),
    )


def start_of(config: TrainConfig, source: Source, trunk: Pretrained | None, seed: int) -> NEDS:
    """The network before its first step."""
    if trunk is None:
        return build(config, (source,), seed)
    return many.graft(trunk, config, source, seed)
