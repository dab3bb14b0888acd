"""`neds-rt bench accuracy`: every peer on the same splits and the same information, one resumable row at a time.

Each finished row is one line of a JSON-lines file; a row that is there is not computed again, unless
its recording, configuration or checkpoints have changed since. The test part is read once for each
row, after everything about it was chosen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine, recordings, rows as finished
from benchmarks.accuracy.blocks import BLOCKS, Block
from benchmarks.accuracy.peers import classes, encoders, poyo_plus
from benchmarks.accuracy.peers.classes import FoldTask
from benchmarks.accuracy.peers.task import Fitted, Peer, Setting, Task, targets
from neds_core.scores import bits, bootstrap, r2 as scores
from runtime.core.values import Layout
from runtime.scoring import points
from runtime.scoring.truth import Truth

Row = dict[str, Any]
TIMED_STEPS = 200
ROUNDED = 4  # decimals of a bin's error in a row
VERSION = 4  # of a row's meaning: raise it where peers, splits or scores change, so that older rows are computed again
STATISTICS: dict[str, bootstrap.Statistic] = {
    "decode": scores.r2_of_sums,
    "encode": bits.bits_of_sums,
    "classify": scores.balanced_accuracy_of_sums,
}


def conditions() -> dict[str, Any]:
    """What the seconds were measured on."""
    return machine.describe() | {"threads": torch.get_num_threads(), "load_1_min": round(os.getloadavg()[0], 2)}


KEY = ("recording", "task", "split", "peer", "seed", "quick", "version", "inputs_sha256")


def _sha256(files: tuple[Path, ...]) -> str:
    """Of the files' names and bytes, in order."""
    found = hashlib.sha256()
    for path in files:
        found.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def key(block: Block, peer: Peer, seed: int, quick: bool) -> tuple[Any, ...]:
    """What makes a row the same row, in the order of `KEY`."""
    sha = _sha256((*block.inputs, *(block.checkpoints if peer.loaded else ())))
    return (block.recording, block.task, block.split, peer.name, seed, quick, VERSION, sha)


def read(path: Path) -> dict[tuple[Any, ...], Row]:
    """Finished rows of a JSON-lines file by their keys; a line cut short by a stop is left out."""
    return {tuple(row.get(k) for k in KEY): row for row in finished.read(path)}


def run(
    out: Path, quick: bool, say: Callable[[str], None], blocks: tuple[Block, ...] | None = None, only: str = ""
) -> list[Row]:
    """Compute the rows that `out` lacks, append each as it is done, and return all in the table's order.

    only: a regular expression that some part of "recording task split peer" has to match; other rows are left out.
    """
    chosen = [
        (block, [p for p in block.peers if re.search(only, f"{block.recording} {block.task} {block.split} {p.name}")])
        for block in (BLOCKS if blocks is None else blocks)
    ]
    recordings.refuse_missing(path for block, peers in chosen if peers for path in block.inputs)
    torch.set_num_threads(1)
    done = read(out)
    finished.ready(out)
    rows = []
    for block, peers in chosen:
        make = cache(partial(block.make, quick))  # once, and only where a row lacks
        for peer in peers:
            if peer is poyo_plus.POYO_PLUS and not poyo_plus.installed() and key(block, peer, 0, quick) not in done:
                say(f"{peer.name}: left out, because torch-brain is not installed; pip install 'neds-rt[peers]'")
                continue
            setting: tuple[Setting, str, float] | None = None
            for seed in range(peer.seeds if peer.loaded or not quick else 1):
                name = key(block, peer, seed, quick)
                if name not in done:
                    say(f"{block.recording} {block.task} {block.split}: {peer.name}, seed {seed}")
                    setting = setting or _setting(done, block, peer, make())
                    done[name] = finished.append(out, _row(block, make(), peer, seed, setting))
                rows.append(done[name])
    return rows


def _setting(
    done: dict[tuple[Any, ...], Row], block: Block, peer: Peer, task: Task | FoldTask
) -> tuple[Setting, str, float]:
    """What an earlier seed's row chose, or a search; the words for it and its CPU seconds.

    CPU seconds of one thread, so that other work on the machine does not count.
    """
    for seed in range(peer.seeds):
        row = done.get(key(block, peer, seed, task.quick))
        if row is not None:
            return row["setting"], row["searched"], row["seconds_search"]
    began = time.process_time()
    setting, words = peer.search(task)
    return json.loads(json.dumps(setting)), words, time.process_time() - began


def _row(block: Block, task: Task | FoldTask, peer: Peer, seed: int, chosen: tuple[Setting, str, float]) -> Row:
    """Fit on training + validation, or on all folds but one in turn; score what was held out once."""
    setting, words, seconds_search = chosen
    began = time.process_time()
    fitted = peer.fit(task, setting, seed)
    seconds = time.process_time() - began
    found = SCORERS[block.task](task, fitted)
    return {
        "peer": peer.name,
        "recording": block.recording,
        "task": block.task,
        "split": block.split,
        "seed": seed,
        "quick": task.quick,
        "version": VERSION,
        "inputs_sha256": key(block, peer, seed, task.quick)[-1],
        "budget": "quick" if task.quick and not peer.loaded else "full",
        "uses": peer.uses,
        "loaded": peer.loaded,
        "scores": {output: _value(block.task, found, output) for output in found.sums}
        | {name: float(np.median(np.concatenate(blocks))) for name, blocks in found.errors.items()},
        "reference": block.peers[0].name,
        "parameters": fitted.parameters,
        "step_ms": step_ms(task, fitted),
        "seconds_train": seconds if fitted.seconds is None else fitted.seconds,
        "seconds_search": seconds_search,
        "searched": words,
        "setting": setting,
        "machine": conditions(),
        "sums": found.sums,
        "sessions": found.sessions,
        "errors": found.errors,
    }


@dataclass(frozen=True, slots=True)
class Scored:
    """Of what was held out, by output: `sums` of trials for the task's statistic.

    `sessions`: a [mouse, session] of each of the trials, where sessions are more than one. `errors`: by score, of
    points and angles, the errors of each trial or block, whose median is the score.
    """

    sums: dict[str, list[list[float]]]
    sessions: dict[str, list[list[int]]] = field(default_factory=dict)
    errors: dict[str, list[list[float]]] = field(default_factory=dict)


def _value(task: str, found: Scored, output: str) -> float:
    """The score of all trials; of many sessions the mean of each session's."""
    sums, statistic = np.array(found.sums[output]), STATISTICS[task]
    if output not in found.sessions:
        return float(statistic(sums.sum(0)))
    session = np.array(found.sessions[output])[:, 1]
    return float(np.mean([statistic(sums[session == s].sum(0)) for s in np.unique(session)]))


def _decoded(task: Task, fitted: Fitted) -> Scored:
    """Sums over trials (or blocks of a continuous recording) of each output; median distance where it is a point."""
    test = task.parts.test
    predicted = fitted.predict(test)
    bins = test.bins()
    segment = test.segment_of(bins)
    trial, y = bootstrap.RULES.groups(segment, test.bin_ns), targets(task, test)
    sums = {}
    for v, spec in enumerate(task.specs):
        known = np.isfinite(y[:, v])
        sums[spec.name] = scores.r2_sums(y[known, v], predicted[known, v], trial[known]).tolist()
    flat = np.ones(len(task.specs), np.float32)
    plan = Layout(task.specs, {s.name: slice(v, v + 1) for v, s in enumerate(task.specs)}, flat, 0 * flat)
    truth = Truth({s.name: y[:, v] for v, s in enumerate(task.specs)}, {})
    errors = {}
    for group, (unit, error, bins_of) in points.errors(plan, {"peer": predicted}, truth, test.bin_ns).items():
        for which, mask in bins_of.items():
            known = mask & np.isfinite(error["peer"])
            blocks = [error["peer"][known & (trial == t)] for t in np.unique(trial[mask])]
            if known.any():  # in short trials it never moves for long enough
                name = f"{group} median error {which}" + (f", {unit}" if unit else "")
                errors[name] = [np.round(b, ROUNDED).tolist() for b in blocks]
    return Scored(sums, errors=errors)


def _encoded(task: Task, fitted: Fitted) -> Scored:
    """Bits above the training mean, and spikes, of each test trial."""
    goal = encoders.goal_of(task.parts.development, task.parts.test)
    return Scored({"bits/spike": goal.sums(goal.of(fitted.predict(task.parts.test))).tolist()})


def _classified(task: Task | FoldTask, fitted: Fitted) -> Scored:
    """Recalls of each held-out trial that has a label."""
    held = classes.held_out(task)
    mice = list(dict.fromkeys(mouse for mouse, _ in held))
    found = Scored({})
    for number, (mouse, part) in enumerate(held):
        guess = fitted.predict(part)
        for q, (name, n_classes) in enumerate(classes.questions(task).items()):
            label = part.values[name][part.segments[:, 1] - 1]
            known = label >= 0
            rows = scores.recall_sums(label[known], guess[known, q], n_classes).tolist()
            found.sums.setdefault(name, []).extend(rows)
            if len(held) > 1:
                found.sessions.setdefault(name, []).extend([[mice.index(mouse), number]] * len(rows))
    return found


SCORERS: dict[str, Callable[[Any, Fitted], Scored]] = {
    "decode": _decoded,
    "encode": _encoded,
    "classify": _classified,
}


def step_ms(task: Task | FoldTask, fitted: Fitted) -> float | None:
    """Median milliseconds of one live bin on one thread, None for a peer that cannot run bin by bin."""
    if fitted.step is None or isinstance(task, FoldTask):
        return None
    bins = task.parts.validation.bins()[:TIMED_STEPS]
    clock, took = task.session.clock(), []
    for t in bins:
        counts = task.session.counts[t].astype(np.uint16)
        began = time.perf_counter()
        fitted.step(counts, int(clock[t]))
        took.append(time.perf_counter() - began)
    return float(np.median(took)) * 1e3
