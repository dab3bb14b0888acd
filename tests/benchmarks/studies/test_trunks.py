"""Trunks of many sessions: what is permuted, and when a kept one is used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.accuracy.mice import steinmetz, trunks
from benchmarks.accuracy.mice.steinmetz import Bundle
from benchmarks.studies.trunks import kept, permuted_parts
from neds_core.train import loop, many
from tests.benchmarks.studies.tiny import FIT, TINY, TRIALS


def test_a_shuffled_trunk_saw_permuted_labels(mice: list[Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """In training parts alone: the same labels in all, dealt to other trials, a trial's own kept together."""
    seen: dict[bool, tuple[Any, ...]] = {}
    config = trunks.config_of(mice, TINY.model, TINY.masks, FIT, seed=3)
    fit = loop.fit
    for shuffled in (False, True):

        def spied(plan: loop.Plan, shuffled: bool = shuffled) -> loop.Fit:
            seen[shuffled] = plan.sources
            return fit(plan)

        monkeypatch.setattr(loop, "fit", spied)
        trunks.make(mice, config, permuted_parts(mice, config.seed) if shuffled else None)

    for one, plain, dealt in zip(mice, seen[False], seen[True], strict=True):
        starts = plain.train.segments[:, 0]
        assert plain.train.values is one.session.values
        true, false = (
            np.stack([source.train.values[name][starts] for name in steinmetz.OUTPUTS], 1) for source in (plain, dealt)
        )
        assert (true != false).any(1).mean() > 0.2
        assert sorted(map(tuple, true)) == sorted(map(tuple, false))
        after = slice(int(plain.train.segments[-1, 1]), None)
        for name in steinmetz.OUTPUTS:
            by_trial = dealt.train.values[name].reshape(TRIALS, -1)
            assert (by_trial == by_trial[:, :1]).all()
            np.testing.assert_array_equal(dealt.train.values[name][after], one.session.values[name][after])
        assert dealt.train.counts is one.session.counts


def test_a_kept_trunk_is_used_again_unless_its_configuration_changed(mice: list[Bundle], tmp_path: Path) -> None:
    """The same configuration reads the file; another seed trains and replaces it."""
    config = trunks.config_of(mice, TINY.model, TINY.masks, FIT, seed=0)
    path = tmp_path / "x.safetensors"

    first = kept(path, mice, config).header
    again = kept(path, mice, config).header
    other = kept(path, mice, msgspec.structs.replace(config, seed=1)).header

    assert again == first  # its seconds, too
    assert [row.name for row in first.sessions] == [one.session.name for one in mice]
    assert other.config.seed == 1
    assert many.load(path).header == other
