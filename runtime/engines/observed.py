"""Behaviour that an engine is shown: the tokens it becomes, and what is then said of it.

The live loop shows none. It is for engines that are asked what follows from a measured behaviour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import nn

from neds_core.checkpoint import Checkpoint
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
        """Whether a class has this index; any number may be of a trace."""
        return self.slope is not None or value in range(len(self.table))

    def token(self, value: float, code: np.ndarray, out: np.ndarray) -> None:
        """The token (D,) of a value; a label that there is not gives NaN, so that nothing is said of the bin."""
        if self.slope is not None:
            np.multiply(self.slope, np.float32((value - self.mean) / self.sd), out=out)
            out += self.table[0]
        elif self.possible(value):
            out[:] = self.table[int(value)]
        else:
            out.fill(np.nan)
        out += code

    def say(self, value: float, out: np.ndarray) -> None:
        """What was observed, in place of an estimate: the value, or 1 for its class."""
        if self.slope is not None:
            out[self.column] = value
        elif self.possible(value):
            out[self.column] = 0.0
            out[self.column.start + int(value)] = 1.0


class Observed:
    """The behaviours that a bin may show; those of a `Token` that are not among them are not looked at."""

    def __init__(self, checkpoint: Checkpoint, names: tuple[str, ...]) -> None:
        known = [spec.name for spec in checkpoint.specs]
        for name in names:
            if name not in known:
                raise ConfigError(f"observed {name!r} is no output of this checkpoint; choose among {', '.join(known)}")
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

    def write(self, values: np.ndarray | None, code: np.ndarray, x: np.ndarray) -> int:
        """Tokens of what values (M,) show, NaN = hidden, into the first rows of x (T, >= D); returns how many."""
        n = 0
        if values is None:
            return n
        for behaviour in self.behaviours:
            value = float(values[behaviour.place])
            if not math.isnan(value):
                behaviour.token(value, code, x[n, : len(code)])
                n += 1
        return n

    def say(self, values: np.ndarray | None, out: np.ndarray) -> None:
        """What is observed in values (M,) into its columns of out (V,); a poisoned out stays as it is, to be seen."""
        if values is None or not np.isfinite(out).all():
            return
        for behaviour in self.behaviours:
            value = float(values[behaviour.place])
            if not math.isnan(value):
                behaviour.say(value, out)

    def as_seen(self, values: np.ndarray, out: np.ndarray) -> None:
        """Of values (..., M) what these behaviours show, as the model takes it: z-scores, class indices, else NaN."""
        out.fill(np.nan)
        for behaviour in self.behaviours:
            out[..., behaviour.place] = (values[..., behaviour.place] - behaviour.mean) / behaviour.sd

    def possible(self, values: np.ndarray) -> bool:
        """Whether all that is observed in values (M,) can be."""
        return all(np.isnan(values[b.place]) or b.possible(float(values[b.place])) for b in self.behaviours)
