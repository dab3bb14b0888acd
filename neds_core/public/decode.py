"""`neds_core.decode`: a recording decoded offline, in units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Name
from neds_core.data import session as sessions
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import CheckpointError, ConfigError, DataError
from neds_core.linear import baseline
from neds_core.model import offline
from neds_core.model.directions import spans_of
from neds_core.public.given import checkpoint_of, session_of
from neds_core.scores import judging, r2 as scores, tasks

Part = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Decoded:
    """What every decoder of a checkpoint says of a recording of T bins.

    part: which bins were decoded; inside (T,) bool: those bins. t_s (T,) float64: the right edge of each bin in s from
    the start of bin 0, when its value is known. said: decoder ("neds", "ridge", "blend") -> output -> (T,) float32 of a
    trace in its unit, or (T, C) float32 probabilities of a class; NaN outside the part, and where a model of full
    attention knows no bin so late in its segment. A value of an output with a lead is of its bin, and speaks of
    `lead_ms` later. content: `neds_core.data.session.content` of the recording.
    """

    checkpoint: Checkpoint
    recording: str
    part: Part
    inside: np.ndarray
    t_s: np.ndarray
    said: dict[Name, dict[str, np.ndarray]]
    content: str

    @property
    def recommended(self) -> dict[str, Name]:
        """Output -> the decoder that a run publishes unless another is named; NEDS where no verdict was made."""
        verdicts = self.checkpoint.header.verdicts
        return {s.name: verdicts[s.name].recommended if s.name in verdicts else "neds" for s in self.checkpoint.specs}

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Output -> (T,) as a run publishes it (`recommended`): see `of`."""
        return {name: self._value(decoder, name) for name, decoder in self.recommended.items()}

    @property
    def probs(self) -> dict[str, np.ndarray]:
        """Class output -> (T, C) float32 probabilities as a run publishes them, NaN where nothing was decoded."""
        each = self.recommended
        return {s.name: self.said[each[s.name]][s.name] for s in self.checkpoint.specs if s.kind == "class"}

    @property
    def ridge(self) -> dict[str, np.ndarray]:
        """Output -> (T,) of the causal linear decoder beside NEDS (ridge; of a class, logistic): see `of`."""
        return self.of("ridge")

    def of(self, decoder: Name) -> dict[str, np.ndarray]:
        """Output -> (T,) of one decoder: float32 in the output's unit, NaN where nothing was decoded; of a class its
        index in `spec.classes` as int64, -1 where nothing was decoded. Raises `ConfigError` for another decoder.

        The class is the one that the spikes speak for most: probabilities are divided by the class shares in
        training, as they are where they are scored, so that the frequent class does not win by being frequent.
        """
        if decoder not in self.said:
            raise ConfigError(f"decoder {decoder!r} is not there; choose {', '.join(self.said)}")
        return {spec.name: self._value(decoder, spec.name) for spec in self.checkpoint.specs}

    def spec(self, name: str) -> BehaviourSpec:
        """What an output is. Raises `ConfigError` for a name that is none."""
        for spec in self.checkpoint.specs:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.checkpoint.specs)
        raise ConfigError(f"{name!r} was not decoded; the outputs are {known}")

    def _value(self, decoder: Name, name: str) -> np.ndarray:
        said = self.said[decoder][name]
        if said.ndim == 1:
            return said
        return scores.guess(said, self.checkpoint.scalers.prior[name])

    def __repr__(self) -> str:
        return (
            f"<Decoded {', '.join(self.recommended)} of {self.recording!r}, {self.part} part, "
            f"{int(self.inside.sum())} of {len(self.t_s)} bins>"
        )


def decode(checkpoint: Checkpoint | str | Path, session: Session | str | Path, *, part: Part = "test") -> Decoded:
    """Decode behaviour from the spikes of one part of a recording: "train", "validation", "test" or "all".

    The values are those that a run on the same spikes publishes, computed at once: each segment from a cold start, no
    bin after the one that is decoded, behaviour hidden, bins with a known fault as they are. The difference from
    streaming is the rounding of float32: below 1e-5 in z-scores and probabilities.

    checkpoint: what `fit` returns, or the path of its file; an ensemble is the mean of its networks. session: a
    `Session`, or the path of a `Session.npz`, of the units that the checkpoint was trained on. Raises `DataError` for
    another recording's units, `CheckpointError` for a checkpoint without network or linear decoder, `ConfigError` for
    another part.
    """
    made, whole = checkpoint_of(checkpoint), session_of(session)
    _refuse(made, whole)
    chosen = part_of(whole, part)
    bins = chosen.bins()
    inside = np.zeros(whole.n_bins, bool)
    inside[bins] = True
    live = replace(chosen, valid=np.ones(whole.n_bins, bool))  # as it was sent: a rig does not know of the fault
    said: dict[Name, dict[str, np.ndarray]] = {name: {} for name in judging.DECODERS}
    each = [_network(made.alone(m), live) for m in range(len(made.networks))]
    for spec in made.specs:
        linear = baseline.predict(made.linear[spec.name], live, made.scalers.kept, spec.kind)
        networks = np.stack([one[spec.name] for one in each]).astype(np.float64)
        shares = judging.shares_of(made, spec.name)
        for name, values in judging.mixed(networks, linear.astype(np.float64), shares).items():
            said[name][spec.name] = np.full((whole.n_bins, *values.shape[1:]), np.nan, np.float32)
            said[name][spec.name][bins] = values
    t_s = np.arange(1, whole.n_bins + 1) * (whole.bin_ns * 1e-9)
    return Decoded(made, whole.name, part, inside, t_s, said, sessions.content(whole))


def part_of(session: Session, part: Part) -> Session:
    """A part of a recording. Raises `ConfigError` for another name, `DataError` where the recording is too short."""
    if part not in get_args(Part):
        raise ConfigError(f"part {part!r} is not known; choose train, validation, test or all")
    return session if part == "all" else getattr(sessions.split(session), part)


def _refuse(made: Checkpoint, session: Session) -> None:
    """Raise an error for a checkpoint that cannot decode a recording."""
    tasks.refuse_other_units(made, session)
    if made.header.bin_ns != session.bin_ns:
        raise DataError(
            f"recording {session.name!r} has bins of {session.bin_ns * 1e-6:g} ms and checkpoint {made.header.name!r} "
            f"decodes bins of {made.header.bin_ns * 1e-6:g} ms; import the recording with bins of that width"
        )
    if not made.linear:
        raise CheckpointError(
            f"checkpoint {made.header.name!r} holds no linear decoder beside a network; give one that fit, neds-rt "
            "train or neds-rt calibrate made"
        )


def _network(made: Checkpoint, live: Session) -> dict[str, np.ndarray]:
    """What one network says of the bins (n,) of a part's segments: output -> (n,) in its unit or (n, C)."""
    run = offline.decode if made.header.config.model.attention == "causal" else offline.decode_prefixes
    found = run(made.model, live.counts, live.valid, live.clock(), spans_of(live))
    for name, sd in made.header.sd.items():
        found[name] = found[name] * sd + made.header.mean[name]
    return found
