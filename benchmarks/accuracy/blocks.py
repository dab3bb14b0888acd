"""What `neds-rt bench accuracy` compares: peers on one split of one recording, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.mice.steinmetz import FOLDER
from benchmarks.accuracy.peers import (
    classes,
    drift,
    heading,
    kalman,
    maze,
    ndt2,
    neds,
    neds_classes,
    neds_encoding,
    neds_full,
    place,
    poyo_plus,
    recurrent,
    reduced_rank,
    regression,
    targets,
)
from benchmarks.accuracy.peers.classes import FoldTask
from benchmarks.accuracy.peers.task import Peer, Task, at_random, chronological
from benchmarks.recordings import EXAMPLES


@dataclass(frozen=True, slots=True)
class Block:
    """Peers on one split of one recording; the first of them is what the others are compared with.

    `inputs` are the recording and its configuration, `checkpoints` what loaded peers read beside them.
    """

    recording: str
    task: str  # decode | encode | classify
    split: str
    make: Callable[[bool], Task | FoldTask]
    peers: tuple[Peer, ...]
    inputs: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()


def _block(
    recording: str,
    task: str,
    split: str,
    cut: Callable[[Path, str, bool], Task],
    config: str,
    peers: tuple[Peer, ...],
) -> Block:
    folder = EXAMPLES / recording
    files = (folder / "session.npz", folder / config)
    made = tuple(sorted(folder.glob("*.safetensors")))
    return Block(recording, task, split, lambda quick: cut(folder, config, quick), peers, files, made)


def _decode(recording: str, *peers: Peer) -> Block:
    return _block(recording, "decode", "chronological", chronological, "train.toml", peers)


def _mice(*peers: Peer) -> Block:
    sessions = tuple(sorted(FOLDER.glob("*.npz"))) or (FOLDER / "*.npz",)  # a path that is missing, where all are
    return Block("steinmetz2019", "classify", "five folds", classes.read, peers, sessions)


def _encode(split: str, cut: Callable[[Path, str, bool], Task], *shipped: Peer) -> Block:
    peers = (
        drift.GLM,
        drift.GLM_DRIFT,
        drift.AVERAGE,
        drift.AVERAGE_DRIFT,
        drift.ENCODING_ONLY,
        drift.ENCODING_ONLY_DRIFT,
        drift.MULTI,
        drift.MULTI_DRIFT,
        *shipped,
    )
    return _block("ibl-dy016", "encode", split, cut, "train-clocked.toml", peers)


BLOCKS = (
    _decode(
        "ibl-dy016",
        regression.CAUSAL_RIDGE,
        regression.CONSTANT,
        regression.TRIAL_AVERAGE,
        regression.CLOCKED_RIDGE,
        reduced_rank.REDUCED_RANK,
        kalman.KALMAN,
        recurrent.GRU,
        ndt2.NDT2,
        neds.UNIMODAL,
        neds.MULTI,
        neds.MULTI_CLOCKED,
        neds.FULL_LIVE,
        neds.BLEND,
        neds.BLEND_CLOCKED,
        neds.ENSEMBLE,
        neds.ENSEMBLE_BLEND,
        regression.ACAUSAL_RIDGE,
        regression.ACAUSAL_CLOCKED_RIDGE,
        poyo_plus.POYO_PLUS,
        neds_full.UNIMODAL,
        neds_full.MULTI,
    ),
    _encode("chronological", chronological, neds_encoding.SHIPPED),
    _decode(
        "rat-linear-track",
        regression.CAUSAL_RIDGE,
        regression.CONSTANT,
        kalman.KALMAN,
        recurrent.GRU,
        place.BAYES,
        neds.MULTI,
        neds.BLEND,
        neds.ENSEMBLE,
        neds.ENSEMBLE_BLEND,
    ),
    _decode(
        "rat-w-maze",
        regression.CAUSAL_RIDGE,
        regression.CONSTANT,
        recurrent.GRU,
        maze.BAYES,
        neds.ENSEMBLE,
        neds.ENSEMBLE_BLEND,
    ),
    _decode(
        "bci-monkey-20160325",
        regression.CAUSAL_RIDGE,
        regression.CONSTANT,
        kalman.KALMAN,
        recurrent.GRU,
        neds.ENSEMBLE,
        neds.ENSEMBLE_BLEND,
    ),
    _decode(
        "mouse-head-direction",
        regression.CAUSAL_RIDGE,
        regression.CONSTANT,
        recurrent.GRU,
        heading.BAYES,
        neds.MEMBERS_DECODING,
        neds.MEMBERS_BLEND,
        neds.ENSEMBLE,
        neds.ENSEMBLE_BLEND,
    ),
    _encode("random", at_random),
    _mice(
        classes.LOGISTIC,
        classes.CONSTANT,
        classes.CONTRASTS,
        classes.LOGISTIC_BOTH,
        neds_classes.NEDS_ONLY,
        neds_classes.NEDS_SINGLE,
        neds_classes.BLEND,
        neds_classes.NEDS_TUNED,
    ),
    _block(
        "bci-monkey-20131218",
        "classify",
        "chronological",
        chronological,
        "train.toml",
        (
            targets.LDA_FIVE,
            classes.CONSTANT,
            targets.LDA,
            targets.LDA_CLOCKED,
            targets.LOGISTIC,
            targets.NEDS,
            targets.BLEND,
        ),
    ),
)
