"""Encoders that know when in the session a trial was: each unit's rate follows what it fired in the trials near it.

Sorted units come and go over a session, and no behaviour says so. The factor of a unit and trial is
its spikes over its predicted spikes in the known trials around it, weighted by exp(-distance /
width). On a chronological split the nearest known trials are the last ones of training; on a random
split they lie on both sides. The same for every encoder, so none is favoured.
"""

from __future__ import annotations

import numpy as np

from benchmarks.accuracy.peers import encoders, neds_encoding
from benchmarks.accuracy.peers.encoders import average_of, by_clock, goal_of, skill
from benchmarks.accuracy.peers.task import Fitted, Peer, Predict, Setting, Task
from neds_core.data.session import Session

WIDTHS_TRIALS = (5.0, 10.0, 20.0, 40.0, 80.0)
PRIOR_TRIALS = 1.0  # of predicted spikes that pull the factor towards 1, so that no unit is silenced
LOWEST = 1e-12  # of predicted spikes: a unit that never fires has none to follow


def by_trial(session: Session, values: np.ndarray) -> np.ndarray:
    """Sums (S, U) over each segment of values (n, U), bins with faults left out."""
    bins = session.bins()
    seen = session.valid[bins]
    total = np.zeros((len(session.segments), values.shape[1]))
    np.add.at(total, session.segment_of(bins)[seen], values[seen])
    return total


def drifting(before: Session, predict: Predict, width_trials: float) -> Predict:
    """The same rates times the factor of each unit and trial, known from `before`."""
    spikes, expected = by_trial(before, before.counts[before.bins()]), by_trial(before, predict(before))
    prior = PRIOR_TRIALS * expected.mean(0)

    def scaled(session: Session) -> np.ndarray:
        distance = np.abs(np.subtract.outer(session.segment_ids, before.segment_ids)).astype(np.float64)
        weight = np.exp(-(distance - distance.min(1, keepdims=True)) / width_trials)
        factor = (weight @ spikes + prior) / np.maximum(weight @ expected + prior, LOWEST)
        return predict(session) * factor[session.segment_of(session.bins())]

    return scaled


def width_for(task: Task) -> float:
    """The width that serves the trial average best on the folds: it belongs to the recording, not to an encoder."""
    found = np.zeros(len(WIDTHS_TRIALS))
    for before, after in task.folds:
        goal, average = goal_of(before, after), by_clock(average_of(before))
        found += [skill(goal, drifting(before, average, width)(after)) for width in WIDTHS_TRIALS]
    return WIDTHS_TRIALS[int(found.argmax())]


def with_twin(peer: Peer) -> tuple[Peer, Peer]:
    """The encoder as it is, and with drift; what one call has searched and fitted for one serves the other too."""
    settings, fits = dict[int, tuple[Setting, str]](), dict[tuple[int, int], Fitted]()

    def search(task: Task) -> tuple[Setting, str]:
        if id(task) not in settings:
            settings[id(task)] = peer.search(task)
        return settings[id(task)]

    def fit(task: Task, setting: Setting, seed: int) -> Fitted:
        if (id(task), seed) not in fits:
            fits[id(task), seed] = peer.fit(task, setting, seed)
        return fits[id(task), seed]

    def search_drift(task: Task) -> tuple[Setting, str]:
        setting, words = search(task)
        words += f"; {len(WIDTHS_TRIALS)} widths of drift, by the trial average on the folds"
        return {**setting, "width_trials": width_for(task)}, words

    def fit_drift(task: Task, setting: Setting, seed: int) -> Fitted:
        plain = {name: value for name, value in setting.items() if name != "width_trials"}
        made, part = fit(task, plain, seed), task.parts.development
        predict = drifting(part, made.predict, setting["width_trials"])
        return Fitted(predict, made.parameters + part.counts.shape[1] * len(part.segments), None, made.seconds)

    twin = Peer(f"{peer.name}, drift", search_drift, fit_drift, f"{peer.uses}, trial", peer.seeds, peer.loaded)
    return Peer(peer.name, search, fit, peer.uses, peer.seeds, peer.loaded), twin


GLM, GLM_DRIFT = with_twin(encoders.GLM)
AVERAGE, AVERAGE_DRIFT = with_twin(encoders.AVERAGE)
ENCODING_ONLY, ENCODING_ONLY_DRIFT = with_twin(neds_encoding.ENCODING_ONLY)
MULTI, MULTI_DRIFT = with_twin(neds_encoding.MULTI)
