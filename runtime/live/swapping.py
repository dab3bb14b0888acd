"""The other thread's side of an exchange: load, check, warm up and prime a decoder, hand it over, keep the chain."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from neds_core.checkpoint import Checkpoint
from neds_core.errors import CheckpointError, ConfigError
from runtime.config import RigConfig
from runtime.core.engine import Decoder
from runtime.core.exchange import RECENT_S, Recent, Successor, prime
from runtime.core.handover import Handover, Probation
from runtime.core.pipeline import Pipeline
from runtime.engines import create as engines, prepare
from runtime.io.chain import Chain, Link, now
from runtime.io.control import Answer, Control, Freeze, Request, Rollback, Running, Swap, Waiting
from runtime.live.incoming import fetch, known, refuse_other

SWITCH_S = 2e-4  # so long the loop waits for this thread's Python to let it on; by default 5 ms, each time
TRIES, TAKEN_S, LOOK_S = 5, 2.0, 0.005  # to hand over a primed decoder; how long the loop has for it; between looks


class Swapper:
    """Answers the requests of one run, in the thread of its control socket. It never touches what the loop is using."""

    def __init__(
        self, config: RigConfig, checkpoint: Checkpoint, decoder: Decoder, handover: Handover, chain: Chain
    ) -> None:
        """checkpoint, decoder: what the run begins with, of the units that its stream sends."""
        self.config, self.units, self.handover, self.chain = config, checkpoint.units, handover, chain
        self.pipeline, self.markers = handover.pipeline, handover.pipeline.rules.markers
        self._known = {id(decoder): known(decoder, checkpoint, str(Path(config.checkpoint).resolve()))}
        self._line = [decoder]  # the decoders of this run, in order, as far as the chain says
        self._kept = self._declined = 0
        self._frozen = False

    # --- requests ---

    def answer(self, request: Request) -> Answer:
        """Do what was asked. Raises a `NedsError` where it is refused."""
        self.look()
        if isinstance(request, Swap):
            found = self._swap(request)
        elif isinstance(request, Rollback):
            found = self._roll_back()
        elif isinstance(request, Freeze):
            found = self._freeze(request.on)
        else:
            found = Answer(True, f"{self.pipeline.decoder.model} decodes")
        self.look()
        return msgspec.structs.replace(found, running=self._running())

    def _running(self) -> Running:
        turns, decoder = list(self.pipeline.exchanges), self.pipeline.decoder
        previous, waits = self.handover.previous, self._waiting()
        newest = turns[-1] if turns else None
        return Running(
            rig=self.config.rig, decoder=decoder.name, model=decoder.model, model_sha=decoder.model_sha,
            since=newest.token if newest else 0, why=newest.successor.why if newest else "", gated=decoder.gated,
            exchanges=len(turns), previous=previous.model_sha if previous else "", probation=self.handover.left,
            chain=str(self.chain.path),
            waiting=Waiting(waits.why, waits.decoder.model, waits.decoder.model_sha) if waits else None,
            path=self._known[id(decoder)].path, frozen=self._frozen, setting=self.config.engine.decoder,
        )  # fmt: skip

    def _swap(self, request: Swap) -> Answer:
        running, engine = self.pipeline.decoder, self.config.engine
        self._refuse_busy()
        if request.force and self.config.certificate:
            raise ConfigError(
                f"swap: force is set, and this run demanded the certificate {self.config.certificate}: it takes only a "
                "decoder whose gate has passed; swap without --force, or start a run that demands none"
            )
        if request.expect not in ("", running.model_sha):
            raise ConfigError(
                f"{_named(running)} decodes, not {request.expect[:12]}, which the swap expects; nothing is swapped: "
                "look at what decodes, and ask again"
            )
        path = Path(request.path)
        made = fetch(path, request.sha256)
        refuse_other(made, self.units, running)
        if made.sha == running.model_sha:
            raise CheckpointError(f"{made.header.name} ({made.sha[:12]}) decodes already; swap in another one")
        why_not = engines.ungated(made, engine.decoder)
        if why_not and not request.force:
            return Answer(False, f"{made.header.name} is not swapped in: {why_not}; calibrate again, or force it", True)
        decoder = engines.decoder(made, engine.decoder, engine.weights, engine.device)
        if not self.markers:
            prepare.refuse_endless(decoder)
        step_ms = prepare.warm_up(decoder.engine, decoder.n_units)
        if slow := prepare.too_slow(decoder.engine, step_ms, decoder.bin_ns):
            raise ConfigError(slow)
        self._known[id(decoder)] = known(decoder, made, str(path))
        gate = f"forced: {why_not}" if why_not else "its gate has passed"
        return self._hand_over(
            Successor(
                decoder, "swap", request.swap_at or self.config.control.swap_at, path=str(path), forced=bool(why_not),
                health=self.pipeline.health_of(decoder),
                said=f"{_named(decoder)} decodes, in place of {_named(running)}; {gate}", expect=running.model_sha,
            )
        )  # fmt: skip

    def _roll_back(self) -> Answer:
        if (waits := self._waiting()) is not None and waits.why == "fallback":
            return Answer(True, f"{waits.decoder.model} takes over already: the run goes back to it by itself")
        if waits is not None and (left := self._take_back()) is not None:
            self._write(left, "dropped")
            return Answer(True, f"{_named(left.decoder)} no longer waits to take over; it has not decoded")
        running, previous = self.pipeline.decoder, self.handover.previous
        if previous is None:
            raise ConfigError("there is no decoder to go back to: only a swap can be rolled back, and once; swap again")
        said = f"{_named(previous)} decodes again, in place of {_named(running)}; it was rolled back"
        return self._hand_over(
            Successor(
                previous, "rollback", self.config.control.swap_at, path=self._known[id(previous)].path,
                health=self.pipeline.health_of(previous), said=said,
            )
        )  # fmt: skip

    def _freeze(self, on: bool) -> Answer:
        """Refuse swaps from here on, or no longer."""
        if on and (waits := self._waiting()) is not None:
            raise ConfigError(_waits(waits))
        decoder = self.pipeline.decoder
        said = f"{_named(decoder)} {'stays: no swap is taken' if on else 'decodes; swaps are taken again'}"
        if on is not self._frozen:
            self._frozen = on
            sha, about = decoder.model_sha, self._known[id(decoder)]
            why = "freeze" if on else "thaw"
            self.chain.add(Link(now(), self.config.rig, why, "taken", sha, sha, decoder.model, said, path=about.path))
        return Answer(True, said)

    def _refuse_busy(self) -> None:
        """One exchange at a time, and none from a decoder that may still be unfit."""
        if self._frozen:
            raise ConfigError("the run is frozen: no swap is taken; `neds-rt freeze RIG.toml --off` allows them again")
        if waits := self._waiting():
            raise ConfigError(_waits(waits))
        if self.pipeline.unfit:
            raise ConfigError(f"{self.pipeline.unfit}; wait until it has")
        if left := self.handover.left:
            seconds = left * self.pipeline.decoder.bin_ns * 1e-9
            raise ConfigError(
                f"{_named(self.pipeline.decoder)} is on probation for another {seconds:.0f} s; wait, or roll it back"
            )

    # --- to the loop ---

    def _hand_over(self, successor: Successor) -> Answer:
        self._write(successor, "accepted")
        if self.markers:
            self.pipeline.successors.append(successor)
            where = "the next segment starts" if successor.at == "iti" else "no segment is open"
            return Answer(True, f"{_named(successor.decoder)} takes over as soon as {where}")
        declined = len(self.handover.declined)
        if self._prime_and_give(successor):
            note = "; this run has no segments, so iti is now" if successor.at == "iti" else ""
            return Answer(True, f"{_named(successor.decoder)} decodes{note}")
        if len(self.handover.declined) > declined:
            raise ConfigError(self.handover.declined[-1][1])
        self._write(successor, "dropped")
        raise ConfigError(
            f"{_named(successor.decoder)} could not be primed as fast as bins close, or the loop stands; ask again"
        )

    def _prime_and_give(self, successor: Successor) -> bool:
        """Hand over a decoder that has taken in the newest bins; whether the loop has taken it."""
        pipeline, n_bins = self.pipeline, self._known[id(successor.decoder)].n_bins
        for _ in range(TRIES):
            before = self._moves(successor.decoder)
            assert pipeline.recent is not None  # a run without markers keeps them
            primed, upto = prime(successor.decoder.engine, pipeline.recent, n_bins)
            pipeline.successors.append(replace(successor, primed=primed, upto=upto))
            if not self._settled(successor.decoder, before) and self._take_back() is not None:
                return False  # the loop stands
            self._settled(successor.decoder, before)  # what it is just taking over is its own: not to be primed again
            turns, declined, behind = self._moves(successor.decoder)
            if turns > before[0] or declined > before[1] or behind == before[2]:
                return turns > before[0]
        return False

    def _moves(self, decoder: Decoder) -> tuple[int, int, int]:
        """How often the loop has taken a decoder over, and found of what waits that it may not, or comes too late."""
        taken = sum(turn.successor.decoder is decoder for turn in list(self.pipeline.exchanges))
        return taken, len(self.handover.declined), self.handover.behind

    def _settled(self, decoder: Decoder, before: tuple[int, int, int]) -> bool:
        """Wait until the loop has taken over or handed back what waits; whether it has."""
        deadline = time.monotonic() + TAKEN_S
        while same := self._moves(decoder) == before:
            if time.monotonic() >= deadline:
                break
            time.sleep(LOOK_S)
        return not same

    def _waiting(self) -> Successor | None:
        """What waits to take over."""
        return next(iter(self.pipeline.successors.copy()), None)

    def _take_back(self) -> Successor | None:
        """What waits to take over, and no longer does."""
        try:
            return self.pipeline.successors.pop()
        except IndexError:
            return None

    # --- between requests ---

    def look(self) -> None:
        """Write down what the loop has done, and prime the decoder that it has to go back to."""
        turns = list(self.pipeline.exchanges)
        while len(self._line) <= len(turns):
            turn = turns[len(self._line) - 1]
            self._write(turn.successor, "taken", turn.token)
            self._line.append(turn.successor.decoder)
        for successor, said in self.handover.declined[self._declined :]:
            self._declined += 1
            self._write(replace(successor, said=said), "dropped")
        if self.handover.kept > self._kept:
            self._kept = self.handover.kept
            self._write(turns[-1].successor, "kept", turns[-1].token, self._line[-2])
        said, previous = self.handover.wanted, self.handover.previous
        if said and previous is not None and not self.pipeline.successors:
            back = Successor(previous, "fallback", health=self.pipeline.health_of(previous), said=said)
            self._prime_and_give(back)

    def close(self) -> None:
        """The run is over: what still waits has not decoded."""
        self.look()
        if (left := self._take_back()) is not None:
            self._write(left, "dropped")

    def _write(self, successor: Successor, outcome: str, token: int = -1, before: Decoder | None = None) -> None:
        """before: what decoded before it, None = what decodes as far as the chain says."""
        decoder, about = successor.decoder, self._known[id(successor.decoder)]
        link = Link(
            time=now(), rig=self.config.rig, why=successor.why, outcome=outcome, model=decoder.model,
            from_sha=(before or self._line[-1]).model_sha, to_sha=decoder.model_sha, said=successor.said, token=token,
            path=about.path, session=about.session, gate=dict(about.gate), parents=about.parents,
            forced=successor.forced,
        )  # fmt: skip
        self.chain.add(link)


def _named(decoder: Decoder) -> str:
    return f"{decoder.model} ({decoder.model_sha[:12]})"


def _waits(successor: Successor) -> str:
    return f"{_named(successor.decoder)} waits to take over; wait until it has, or roll it back"


class Exchanges:
    """The control socket of a run at work, opened with `with` once `of` has been called."""

    def __init__(
        self, config: RigConfig, checkpoint: Checkpoint, decoder: Decoder, control: Control, chain: Chain
    ) -> None:
        self._begun = config, checkpoint, decoder
        self._control, self._chain = control, chain

    def of(self, pipeline: Pipeline) -> Handover:
        """The loop's side of it."""
        config, checkpoint, decoder = self._begun
        control, bin_ns = config.control, decoder.bin_ns
        if not pipeline.rules.markers:
            pipeline.recent = Recent(decoder.n_units, round(RECENT_S * 1e9 / bin_ns))
        rule = Probation(
            round(control.probation_s * 1e9 / bin_ns), control.probation_misses, int(config.output.budget_ms * 1e6)
        )
        handover = Handover(pipeline, rule)
        self._swapper = Swapper(config, checkpoint, decoder, handover, self._chain)
        return handover

    def __enter__(self) -> Self:
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._control.serve(self._swapper.answer, self._swapper.look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setswitchinterval(self._switch_s)
        if self._control.close():
            self._swapper.close()
