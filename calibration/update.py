"""A recalibration through the day: from the decoder of a run that is going on, and beside it on the judging part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from calibration import judge
from calibration.fitting.config import CalibrateConfig
from neds_core.checkpoint import Checkpoint
from neds_core.checkpoint.judged import Measure, Score
from neds_core.data.session import Session
from neds_core.errors import CheckpointError, ConfigError
from neds_core.files import sha256
from neds_core.scores import bootstrap
from neds_core.train import validation
from neds_core.train.validation import Both
from runtime.core.engine import RECOMMENDED
from runtime.engines import create
from runtime.engines.layout import layout
from runtime.io.control import State, ask


class Compared(Struct, frozen=True):
    """One output on the judging part, as both would publish it: scores, and proposed minus running (95 %, paired)."""

    measure: Measure
    n: int
    running: float
    proposed: float
    gain: Score


@dataclass(frozen=True, slots=True)
class Running:
    """What a run decodes with; decoder: its engine.decoder."""

    path: Path
    model: str
    sha: str
    decoder: str


def running_of(address: str, wait_s: float = 60.0) -> Running:
    """The decoder of the run at a control address.

    Raises `StreamError` where no run answers, `ConfigError` where it takes no other decoder, `CheckpointError` where
    the file of its decoder is not what it was.
    """
    found = ask(address, State(), wait_s).running
    if found is None:
        raise ConfigError(f"the run at {address} does not say what it decodes with; start it again with this version")
    if found.frozen:
        raise ConfigError("the run is frozen: an update would not be taken; `neds-rt freeze RIG.toml --off` allows it")
    path = Path(found.path)
    try:
        own = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}, which the run decodes with, cannot be read ({error.strerror})") from None
    if own != found.model_sha:
        raise CheckpointError(
            f"{path} is no longer the file that the run decodes with ({own[:12]}, not {found.model_sha[:12]}); put "
            "that one back, or calibrate without --update"
        )
    return Running(path, found.model, found.model_sha, found.setting or found.decoder)


def refuse_changed(address: str, was: Running, wait_s: float = 60.0) -> None:
    """Raise `ConfigError` where the run decodes with another one by now; `StreamError` where no run answers."""
    found = ask(address, State(), wait_s).running
    if found is None or found.model_sha != was.sha:
        other = f"{found.model} ({found.model_sha[:12]})" if found else "another decoder"
        raise ConfigError(
            f"the run decodes with {other} by now, not with {was.model} ({was.sha[:12]}), which this is an update of; "
            "nothing is swapped: start the update again"
        )


def of_rows(config: CalibrateConfig) -> CalibrateConfig:
    """The same for an update: units keep their rows, and the trunk is frozen."""
    everything = msgspec.structs.replace(config.everything, steps=0)
    return msgspec.structs.replace(config, keep_rows=True, everything=everything)


def compare(
    running: Checkpoint, proposed: Checkpoint, part: Session, decoder: str = RECOMMENDED
) -> dict[str, Compared]:  # fmt: skip
    """Both checkpoints, each as a run publishes it, on a part that neither was fitted to; outputs that both have.

    decoder: the run's engine.decoder. Nothing where their units differ: the running one could not decode the session.
    Raises `ConfigError` where one of them cannot publish that.
    """
    if running.header.unit_map_sha != proposed.header.unit_map_sha:
        return {}
    specs = tuple(s for s in proposed.specs if s in running.specs and s.labels == "measured")
    ours, theirs = _published(proposed, part, decoder), _published(running, part, decoder)
    said = validation.evidence({s.name: Both(ours[s.name], theirs[s.name]) for s in specs}, specs, part)
    found = {}
    for spec in specs:
        case = judge.case(proposed, spec, said, {"neds": said.neds[spec.name][0], "ridge": said.linear[spec.name]})
        if not case.sums:
            continue
        drawn = bootstrap.together(case.sums, case.statistic)
        gain = drawn["neds"].minus(drawn["ridge"]).interval()
        limits = (gain.low, gain.high) if np.isfinite([gain.low, gain.high]).all() else ()
        found[spec.name] = Compared(
            case.measure, len(case.sums["ridge"]), drawn["ridge"].value, drawn["neds"].value, Score(gain.value, *limits)
        )
    return found


def _published(made: Checkpoint, part: Session, decoder: str) -> dict[str, np.ndarray]:
    """Output -> what a run would publish on the part's bins: values (n,), or probabilities (n, C)."""
    bins = part.bins()
    cold = np.isin(bins, part.segments[:, 0])
    engine = create.create(made, decoder)
    values = engine.offline(part.counts[bins].astype(np.uint16), part.valid[bins], part.clock()[bins], cold)
    columns = layout(made).columns
    return {
        s.name: values[:, columns[s.name].start] if s.kind == "continuous" else values[:, columns[s.name]]
        for s in made.specs
    }


def worse(found: Mapping[str, Compared]) -> list[str]:
    """Outputs of which what is proposed is surely worse: the interval lies below 0."""
    return [name for name, one in found.items() if one.gain.high is not None and one.gain.high < 0]


def unknown(found: Mapping[str, Compared] | None, judged: Iterable[str]) -> list[str]:
    """Judged outputs of which nobody can tell whether they are worse: not compared, or without an interval."""
    return [name for name in judged if (one := (found or {}).get(name)) is None or one.gain.low is None]


def lines(found: Mapping[str, Compared]) -> Iterator[str]:
    """As text."""
    if not found:
        yield "the running decoder has other units, so it cannot be compared"
    for name, one in found.items():
        limits = f" [{one.gain.low:+.3f}, {one.gain.high:+.3f}]" if one.gain.low is not None else ""
        yield (
            f"{name}: running {one.running:.3f}, proposed {one.proposed:.3f} ({one.measure} of {one.n} judging "
            f"segments or blocks), difference {one.gain.value:+.3f}{limits}"
        )
