"""The sessions of a training, and a fresh NEDS for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from neds_core.config import PretrainConfig, TrainConfig
from neds_core.data import scalers as scaling
from neds_core.data.scalers import Scalers
from neds_core.data.session import BehaviourSpec, Session
from neds_core.errors import DataError
from neds_core.model.embed import UnitTokenizer
from neds_core.model.model import NEDS


@dataclass(frozen=True, slots=True)
class Source:
    """One session as training sees it; its place among the others is its row in the session table."""

    train: Session
    validation: Session | None
    scale: Scalers

    @property
    def sha256(self) -> str:
        """Identity of what is trained and validated on, wherever it is stored. Reads all of it."""
        parts = (self.train,) if self.validation is None else (self.train, self.validation)
        arrays = [a for p in parts for a in (p.segments, p.counts, p.valid, *(p.values[s.name] for s in p.specs))]
        found = hashlib.sha256(self.train.units.sha256.encode())
        for array in {id(a): a for a in arrays}.values():  # the parts of a split share all but their segments
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def shared_specs(sources: tuple[Source, ...], names: tuple[str, ...]) -> tuple[BehaviourSpec, ...]:
    """The outputs' specs. Refuses sessions that mean different things by a name or have other bins."""
    first = sources[0].train
    specs = tuple(first.spec(name) for name in names)
    for session in (source.train for source in sources):
        if session.bin_ns != first.bin_ns:
            raise DataError(f"recordings {first.name!r} and {session.name!r} have different bins; train them apart")
        for spec in specs:
            other = session.spec(spec.name)
            if (other.kind, other.classes, other.unit, other.sign) != (spec.kind, spec.classes, spec.unit, spec.sign):
                raise DataError(
                    f"{spec.name} of {session.name!r} is not that of {first.name!r} (kind, classes, unit or sign); "
                    "name them apart"
                )
    return specs


def build(config: TrainConfig | PretrainConfig, sources: tuple[Source, ...], seed: int) -> NEDS:
    """A fresh seeded model with the scalers of its training parts and rates that start at the mean."""
    specs = shared_specs(sources, config.outputs)
    torch.manual_seed(seed)
    model = NEDS(config.model, tuple(len(source.train.units) for source in sources), specs)
    for s, source in enumerate(sources):
        adopt(model, s, source)
    with torch.no_grad():
        for spec in specs:
            if spec.kind == "class":
                priors = [source.scale.prior[spec.name] for source in sources]
                for s, own in enumerate(priors):
                    prior = own if config.model.tokenizer == "stitcher" else np.mean(priors, axis=0)
                    model.head(spec.name, s).bias.copy_(torch.from_numpy(np.log(prior)))
    return model


@torch.no_grad()
def adopt(model: NEDS, session: int, source: Source) -> None:
    """Scalers and mean rates of a session into its row of the model."""
    tokenizer = model.tokenizer(session)
    tokenizer.mean.copy_(torch.from_numpy(source.scale.spike_mean))
    tokenizer.gain.copy_(torch.from_numpy(source.scale.spike_gain))
    found = source.scale.filters
    if (0 if found is None else len(found.keep)) != len(model.config.filter_taus_ms):
        raise ValueError("the scalers were not fitted with the filter_taus_ms of this model; give them to scalers.fit")
    if found is not None and isinstance(tokenizer, UnitTokenizer):
        tokenizer.adopt(found)
    mean_count = source.train.counts[scaling.inside(source.train)].mean(0).astype(np.float32)
    model.rate_head(session).bias.copy_(torch.from_numpy(np.log(np.maximum(mean_count, 1e-4))))
