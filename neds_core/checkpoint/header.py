"""What a checkpoint says beside its tensors, as JSON."""

from __future__ import annotations

from msgspec import Struct

from neds_core.checkpoint.judged import Gate, Verdict
from neds_core.config import TrainConfig
from neds_core.data.session import BehaviourSpec
from neds_core.linear.linear import Bank
from neds_core.linear.state_space import Brought


class LinearHeader(Struct, frozen=True, forbid_unknown_fields=True):
    """The linear decoder of one output, beside its weights."""

    bank: Bank
    penalty: float


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """How a checkpoint came about. `test_looks` counts the scorings of the test part that were recorded as such
    (`neds-rt evaluate --record`), `test_scores` holds the last of them. trunk_sha: SHA-256 of the multi-session NEDS
    that it was fine-tuned from, or empty; interrupted: the best so far of a training that was stopped."""

    created: str
    recording: str
    recording_sha: str
    seed: int
    train_segments: int
    validation_segments: int
    best_step: int
    validation_skill: float
    seconds: float
    versions: dict[str, str]
    test_looks: int = 0
    test_scores: dict[str, dict[str, float]] = {}
    trunk_sha: str = ""
    interrupted: bool = False


class Imported(Struct, frozen=True, forbid_unknown_fields=True):
    """Where weights that were not trained here come from.

    sessions: the source's names of the model's sessions; session_rows: their rows in the source's
    session table; assumed: one sentence for each thing that neither the file nor the user said.
    """

    source: str
    source_sha: str
    epoch: int
    sessions: tuple[str, ...]
    session_rows: tuple[int, ...]
    assumed: tuple[str, ...]


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """One network of an ensemble: the checkpoint that it came in, by name and SHA-256, its own blend and record."""

    name: str
    sha: str
    blend: dict[str, float]
    record: Record


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint says beside its tensors, as JSON. mean, sd: of continuous outputs, in their units; prior: class
    shares in training. Of an ensemble, `blend` is the mean of its members' and `record` the first member's, but for
    `created`, `seconds` (all members') and looks at the test part (the ensemble's)."""

    format: int
    name: str
    bin_ns: int
    config: TrainConfig
    specs: tuple[BehaviourSpec, ...]
    unit_map_sha: str
    mean: dict[str, float]
    sd: dict[str, float]
    prior: dict[str, list[float]]
    linear: dict[str, LinearHeader]
    blend: dict[str, float]  # share of NEDS in the blend, chosen on validation
    record: Record
    longest_silence_bins: int = 0  # in a training segment, no kept unit fired for so long; 0 = never, or not known
    imported: Imported | None = None  # then there is no linear decoder and no blend
    members: tuple[Member, ...] = ()  # of an ensemble; () = one network
    verdicts: dict[str, Verdict] = {}  # of each output; {} = not judged
    gate: Gate | None = None  # of a calibration; None = nothing has checked it on a session of its own
    brought: Brought | None = None  # then it holds a state space alone, and of `config` only the outputs mean something
