"""Observed behaviour: its tokens, and the outputs that it replaces.

The live loop observes none. It is for engines that decode beside a measured behaviour, or compute rates from one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import nn

from neds_core.checkpoint import Checkpoint
from neds_core.data import lead
from neds_core.errors import ConfigError
from runtime.engines.layout import layout
from runtime.engines.stream_weights import arrays


@dataclass(frozen=True, slots=True)
class _Behaviour:
    """One behaviour: its place among the outputs, its columns in `Layout`, and its tokens.

    table (C, D): the token of each class; of a trace (1, D), to which slope (D,) times the z-score is added.
    """

    place: int
    column: slice
    table: np.ndarray
    slope: np.ndarray | None
    mean: float
    sd: float

    def possible(self, value: float) -> bool:
        """Whether a class has this index; a trace may have any value."""
        return self.slope is not None or value in range(len(self.table))

    def token(self, value: float, code: np.ndarray, out: np.ndarray) -> None:
        """The token (D,) of a value; a label that does not exist gives NaN, which withholds the bin."""
        if self.slope is not None:
            np.multiply(self.slope, np.float32((value - self.mean) / self.sd), out=out)
            out += self.table[0]
        elif self.possible(value):
            out[:] = self.table[int(value)]
        else:
            out.fill(np.nan)
        out += code

    def write_output(self, value: float, out: np.ndarray) -> None:
        """The observation in place of an estimate: the value, or 1 for its class."""
        if self.slope is not None:
            out[self.column] = value
        elif self.possible(value):
            out[self.column] = 0.0
            out[self.column.start + int(value)] = 1.0


class Observed:
    """The behaviours that an engine takes from a `Token`; it ignores the others."""

    def __init__(self, checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
        known = [spec.name for spec in checkpoint.specs]
        for name in names:
            if name not in known:
                raise ConfigError(f"observed {name!r} is no output of this checkpoint; choose among {', '.join(known)}")
        for name, ms in lead.of(spec for spec in checkpoint.specs if spec.name in names).items():
            raise ConfigError(
                f"observed {name!r} is decoded {ms:g} ms ahead, so its token would hold the future; leave it out"
            )
        model, header, columns = checkpoint.model, checkpoint.header, layout(checkpoint).columns
        self.behaviours: list[_Behaviour] = []
        for place, spec in enumerate(checkpoint.specs):
            if spec.name not in names:
                continue
            tokenizer, slope, mean, sd = model.behaviour[spec.name], None, 0.0, 1.0
            if isinstance(tokenizer, nn.Linear):
                weight, bias = arrays(tokenizer)
                slope, table, mean, sd = weight[:, 0].copy(), bias[None], header.mean[spec.name], header.sd[spec.name]
            else:
                table = cast(nn.Embedding, tokenizer).weight.detach().numpy()
            table = table + model.modality[1 + place].detach().numpy()
            self.behaviours.append(_Behaviour(place, columns[spec.name], table, slope, mean, sd))

    def __len__(self) -> int:
        return len(self.behaviours)

    def write_tokens(self, values: np.ndarray | None, code: np.ndarray, x: np.ndarray) -> int:
        """Tokens of values (M,), NaN = hidden, into the first rows of x (T, >= D); returns how many."""
        n = 0
        if values is None:
            return n
        for behaviour in self.behaviours:
            value = float(values[behaviour.place])
            if not math.isnan(value):
                behaviour.token(value, code, x[n, : len(code)])
                n += 1
        return n

    def write_outputs(self, values: np.ndarray | None, out: np.ndarray) -> None:
        """Values (M,), NaN = hidden, into their columns of out (V,); an out that is not finite stays, to be flagged."""
        if values is None or not np.isfinite(out).all():
            return
        for behaviour in self.behaviours:
            value = float(values[behaviour.place])
            if not math.isnan(value):
                behaviour.write_output(value, out)

    def as_inputs(self, values: np.ndarray, out: np.ndarray) -> None:
        """Values (..., M) as the model takes them: z-scores and class indices, NaN where hidden or not among these."""
        out.fill(np.nan)
        for behaviour in self.behaviours:
            out[..., behaviour.place] = (values[..., behaviour.place] - behaviour.mean) / behaviour.sd

    def possible(self, values: np.ndarray) -> bool:
        """Whether every observed one of values (M,) can be."""
        return all(np.isnan(values[b.place]) or b.possible(float(values[b.place])) for b in self.behaviours)
