"""Configuration of a model and its training: one tree of frozen structs (see `neds_core.toml` for how it is read)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Rate = Annotated[float, Meta(gt=0.0)]
Lead = Annotated[float, Meta(gt=0.0, le=1000.0)]  # ms


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of one NEDS. `band` is W, the bins one layer looks back over, its own bin included.

    attention "full" is the published pattern: whole segments of at most `window_bins`, both
    directions, learned absolute positions; `band`, `registers`, `clock_bins` and the training's
    own window_bins are for "causal" alone. tokenizer "stitcher" brings the published tokenizers and read-outs with it.
    filter_taus_ms: time constants of causal filters of each unit that a spike token holds beside the counts of its bin.
    """

    attention: Literal["causal", "full"] = "causal"
    tokenizer: Literal["rows", "stitcher"] = "rows"
    without: tuple[Literal["modality", "temporal", "session"], ...] = ()  # embeddings left out: zero and frozen
    width: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    mlp_ratio: Positive = 2
    mlp_width: Count = 0  # 0: mlp_ratio * width
    stitcher_width: Count = 0  # 0: twice the units
    band: Positive = 100
    window_bins: Positive = 100
    registers: Count = 2
    clock_bins: Count = 0  # 0: phase-free; else an embedding of bins since the segment's marker
    filter_taus_ms: tuple[Rate, ...] = ()  # causal attention only
    dropout: Ratio = 0.3
    attention_dropout: Ratio = 0.0  # full attention only; on a CPU it makes attention ten times slower
    embed_dropout: Ratio = 0.2
    unit_dropout: Ratio = 0.3

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not an even multiple of {self.heads} heads")
        if self.tokenizer == "stitcher" and self.attention == "causal":
            raise ValueError("tokenizer 'stitcher' reads classes from the whole window, so it needs attention 'full'")
        if self.clock_bins and self.attention == "full":
            raise ValueError("clock_bins is for attention 'causal'; 'full' has a position of each bin of the window")
        if self.filter_taus_ms and self.attention == "full":
            raise ValueError("filter_taus_ms is for attention 'causal'; 'full' sees every bin of the window; remove it")

    @property
    def receptive_field(self) -> int:
        """Bins whose tokens can reach one output: L(W-1)+1, or the whole window in both directions."""
        return self.window_bins if self.attention == "full" else self.layers * (self.band - 1) + 1

    @property
    def mlp(self) -> int:
        """Hidden units of a block's MLP."""
        return self.mlp_width or self.mlp_ratio * self.width

    @property
    def aligned(self) -> bool:
        """Whether windows start where segments start, because the model knows the time in them."""
        return self.attention == "full" or self.clock_bins > 0


class MaskConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How often each mask family is drawn (relative weights, 0 = never), and how much the random ones hide.

    `ratio` is the share of bins, `span_bins` the shortest and longest stretch of `spans`.
    `modality_dropout` hides whole modalities on top of any family, each with this probability; they are not asked.
    `prefix` is the share of windows that end at a random bin, as a stream sees them (full attention only); any above
    0 has validation judge each bin from the bins before it.
    `pause` is the share of windows that go on from another segment over a gap of `pause_bins`, shortest and longest,
    as a stream without markers does (causal and phase-free only).
    """

    encoding: Annotated[float, Meta(ge=0.0)] = 1.0
    decoding: Annotated[float, Meta(ge=0.0)] = 1.0
    within_spikes: Annotated[float, Meta(ge=0.0)] = 1.0
    within_behaviour: Annotated[float, Meta(ge=0.0)] = 1.0
    cross_modal: Annotated[float, Meta(ge=0.0)] = 1.0
    ratio: Ratio = 0.3
    single_behaviour: Annotated[float, Meta(ge=0.0)] = 0.0
    causal_suffix: Annotated[float, Meta(ge=0.0)] = 0.0
    spans: Annotated[float, Meta(ge=0.0)] = 0.0
    span_bins: tuple[Positive, Positive] = (5, 25)
    modality_dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    prefix: Ratio = 0.0
    pause: Ratio = 0.0
    pause_bins: tuple[Positive, Positive] = (1, 40)

    def __post_init__(self) -> None:
        by_bin = self.within_spikes or self.within_behaviour or self.cross_modal or self.spans
        if not (by_bin or self.hides_without_ratio):
            raise ValueError("every family has weight 0")
        for name, (shortest, longest) in (("span_bins", self.span_bins), ("pause_bins", self.pause_bins)):
            if shortest > longest:
                raise ValueError(f"{name}: the shortest, {shortest}, is above the longest, {longest}; exchange them")

    @property
    def hides_without_ratio(self) -> bool:
        """Whether a family is left that hides tokens even at ratio 0."""
        return bool(self.encoding or self.decoding or self.single_behaviour or self.causal_suffix)


class FitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Optimisation. `refit` (of a single recording) repeats the chosen number of steps on training + validation.

    `batch` is the global batch: samples that one step of the optimiser learns from, whatever the number
    of processes and of forward passes. `sessions_per_step` splits it into groups of one session each;
    `micro_batch` bounds the samples of one forward pass (0: no bound), and gradients accumulate over the
    passes. `learning_rate` is the peak of a one-cycle schedule and belongs to the global batch: neither
    changes with the number of processes. For another batch, scale it with the square root of the batch's
    ratio (the rule for Adam: Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms). `save_every` is the steps between two training states, where such are written.
    """

    steps: Positive = 400
    batch: Positive = 32
    window_bins: Positive = 100
    learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.1
    clip_norm: Rate = 1.0
    ema_decay: Ratio = 0.98
    check_every: Positive = 20
    patience: Positive = 8
    refit: bool = True
    loss_weights: dict[str, Annotated[float, Meta(ge=0.0)]] = {}  # "spikes" or an output; 1 where not named
    threads: Positive = 1  # more stand still where others share the cores: they wait for one another
    sessions_per_step: Positive = 1
    micro_batch: Count = 0
    save_every: Positive = 200
    device: Literal["cpu", "cuda"] = "cpu"
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.sessions_per_step > self.batch:
            raise ValueError(f"{self.sessions_per_step} sessions do not fit into a batch of {self.batch}")
        if self.device == "cpu" and (self.bf16 or self.compile):
            raise ValueError("bf16 and compile need device 'cuda'")


class StageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of training: a one-cycle schedule of its own, and what it trains.

    units: unit rows and rate read-outs of the session, and with tokenizer "stitcher" its behaviour tokenizers and
    read-outs; session: its embedding; heads: behaviour read-outs that sessions share; trunk: everything else.
    """

    steps: Positive
    learning_rate: Rate
    trains: tuple[Literal["units", "session", "heads", "trunk"], ...] = ("units", "session", "heads", "trunk")

    def __post_init__(self) -> None:
        if not self.trains:
            raise ValueError("trains: it has to name at least one of units, session, heads and trunk")


class FinetuneConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Start from the trunk of a multi-session training (a path from the configuration's folder).

    Without stages of your own: a fifth of `fit.steps` for the new unit rows and session embedding
    with the trunk frozen, then everything at a quarter of `fit.learning_rate`.
    """

    trunk: str = ""
    stages: tuple[StageConfig, ...] = ()


class LinearConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The search space of the linear decoder that stands beside NEDS: ridge for traces, logistic for classes.

    lags: bins of a lag bank; filter_taus_ms: time constants of a filter bank, in ms; penalties: weights of the squared
    norm; folds: contiguous blocks of the training part that judge them.
    """

    lags: tuple[Positive, ...] = (1, 10, 20)
    filter_taus_ms: tuple[tuple[Rate, ...], ...] = ((40.0, 120.0, 300.0),)
    penalties: tuple[Rate, ...] = (100.0, 1e3, 3e3, 1e4, 3e4, 1e5)
    folds: Annotated[int, Meta(ge=2)] = 5


class EnsembleConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Several networks, one for each of `seeds`, joined in one checkpoint; none = one network.

    linear_share: of the linear decoder in the blend of every output; unset, that of each network chosen on validation.
    """

    seeds: tuple[Count, ...] = ()
    linear_share: Ratio | None = None

    def __post_init__(self) -> None:
        if len(self.seeds) == 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("ensemble.seeds: it has to name two seeds or more, and each once")
        if self.linear_share is not None and not self.seeds:
            raise ValueError("ensemble.linear_share is for an ensemble; name its seeds in ensemble.seeds")


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`neds-rt train CONFIG.toml`. lead_ms: name of an output -> how much later the behaviour is that it says."""

    recording: str
    outputs: tuple[str, ...]
    select: tuple[str, ...] = ()  # outputs whose validation skill stops training; empty: all
    lead_ms: dict[str, Lead] = {}
    min_rate_hz: Annotated[float, Meta(ge=0.0)] = 0.05
    model: ModelConfig = ModelConfig()
    masks: MaskConfig = MaskConfig()
    fit: FitConfig = FitConfig()
    linear: LinearConfig = LinearConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    ensemble: EnsembleConfig = EnsembleConfig()

    def __post_init__(self) -> None:
        _check_recipe(self)
        refuse_lead(self.lead_ms, self.model)

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """What is trained when: the fine-tuning stages where there is a trunk, else everything at once."""
        fit = self.fit
        if not self.finetune.trunk:
            return (StageConfig(fit.steps, fit.learning_rate),)
        if self.finetune.stages:
            return self.finetune.stages
        first = max(1, fit.steps // 5)
        new = StageConfig(first, fit.learning_rate, ("units", "session"))
        return new, StageConfig(max(1, fit.steps - first), fit.learning_rate / 4)


class PretrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`python -m neds_core.train CONFIG.toml`: one NEDS for many recordings.

    Paths start from the configuration's folder. `store` is the folder of the recordings' memory-mapped
    copies, written once. The first 70 % of each recording train, the next 10 % stop; the rest is not read.
    """

    recordings: tuple[str, ...]
    outputs: tuple[str, ...]
    select: tuple[str, ...] = ()
    min_rate_hz: Annotated[float, Meta(ge=0.0)] = 0.05
    seed: Count = 0
    store: str = "store"
    model: ModelConfig = ModelConfig()
    masks: MaskConfig = MaskConfig()
    fit: FitConfig = FitConfig()

    def __post_init__(self) -> None:
        if not self.recordings or len(set(self.recordings)) < len(self.recordings):
            raise ValueError("recordings: it has to name at least one file, and each once")
        _check_recipe(self)

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """Everything at once."""
        return (StageConfig(self.fit.steps, self.fit.learning_rate),)


def refuse_lead(lead_ms: dict[str, Lead], model: ModelConfig) -> None:
    """Raise `ValueError` for a lead of a model that sees the bins that it would look ahead to."""
    if lead_ms and model.attention == "full":
        raise ValueError(
            "lead_ms is for attention 'causal'; 'full' sees the bins that it would look ahead to; remove it"
        )


def _check_recipe(config: TrainConfig | PretrainConfig) -> None:
    """Faults between the parts of a training configuration."""
    if not config.outputs or len(set(config.outputs)) < len(config.outputs):
        raise ValueError("outputs: it has to name at least one behaviour, and each once")
    for key, names, known in (
        ("select", config.select, config.outputs),
        ("fit.loss_weights", config.fit.loss_weights, (*config.outputs, "spikes")),
        ("lead_ms", config.lead_ms if isinstance(config, TrainConfig) else (), config.outputs),
    ):
        for name in set(names) - set(known):
            raise ValueError(f"{key}: {name!r} is none of {', '.join(known)}")
    if not (config.masks.ratio or config.masks.hides_without_ratio):
        raise ValueError("masks: ratio 0 hides nothing, and no family is left that hides tokens without it")
    if config.masks.pause and config.model.aligned:
        raise ValueError(
            f"masks.pause: {config.masks.pause:g} is for a decoder that does not know the time in a segment; set it to "
            "0, or set model.attention = 'causal' and model.clock_bins = 0"
        )
