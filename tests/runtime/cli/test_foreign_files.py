"""Files that are none of ours, damaged or of something else: one sentence, exit code 2, nothing written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neds_core.checkpoint.tensors import read_tensors
from neds_core.data import session_file
from neds_core.data.session import Session

MakeRig = Callable[..., Path]
Fails = Callable[..., str]


# --- checkpoints ---


def pickled(good: Path, bad: Path) -> None:
    bad.write_bytes(pickle.dumps({"model": [1, 2, 3]}))


def torch_saved(good: Path, bad: Path) -> None:
    torch.save({"model": torch.zeros(3)}, bad)


def cut_short(good: Path, bad: Path) -> None:
    bad.write_bytes(good.read_bytes()[:-100])


def empty(good: Path, bad: Path) -> None:
    bad.write_bytes(b"")


def foreign(good: Path, bad: Path) -> None:
    save_file({"weight": torch.zeros(3)}, bad, metadata={"format": "pt"})


def other_header(good: Path, bad: Path) -> None:
    save_file({"weight": torch.zeros(3)}, bad, metadata={"neds_rt": '{"format": 1}'})


def not_json(good: Path, bad: Path) -> None:
    save_file({"weight": torch.zeros(3)}, bad, metadata={"neds_rt": "{"})


def tampered_units(good: Path, bad: Path) -> None:
    tensors, metadata = read_tensors(good)
    save_file(tensors | {"units/ids": tensors["units/ids"] + 1}, bad, metadata=metadata)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (pickled, "is not a safetensors file or is cut short; copy or train it again"),
        (torch_saved, "is not a safetensors file or is cut short"),
        (cut_short, "is not a safetensors file or is cut short"),
        (empty, "is not a safetensors file or is cut short"),
        (foreign, "was not written by neds-rt (no neds_rt header); train one with `neds-rt train`"),
        (other_header, "header and tensors do not fit this version"),
        (not_json, "header and tensors do not fit this version"),
        (tampered_units, "unit table does not match its own SHA-256"),
    ],
)
def test_a_checkpoint_that_is_none(
    fails: Fails, make_rig: MakeRig, rig_home: Path, tmp_path: Path, spoil: Callable[[Path, Path], None], says: str
) -> None:
    bad = tmp_path / "bad.safetensors"
    spoil(rig_home / "tiny.safetensors", bad)
    assert says in fails("run", make_rig(), "--checkpoint", bad)
    assert says in fails("check", make_rig(checkpoint=bad))
    assert says in fails("evaluate", rig_home / "session.npz", bad, "--record")


def test_a_checkpoint_of_other_units(fails: Fails, unbroken: Session, rig_home: Path, tmp_path: Path) -> None:
    session_file.save(unbroken, tmp_path / "other.npz")
    sentence = fails("evaluate", tmp_path / "other.npz", rig_home / "tiny.safetensors", "--record")
    assert "was trained on other units than 'unbroken' has" in sentence


# --- recordings ---


def recording(session: Session, path: Path, **arrays: np.ndarray) -> None:
    """The session with some of its arrays replaced, whatever they hold."""
    session_file.save(session, path)
    with np.load(path) as bundle:
        kept = {name: bundle[name] for name in bundle.files}
    np.savez_compressed(path, **(kept | arrays))  # pyright: ignore[reportArgumentType]


def test_a_recording_with_nan_or_decreasing_times(fails: Fails, unbroken: Session, tmp_path: Path) -> None:
    assert unbroken.events is not None
    t_ns, unit = unbroken.events
    for k, times in enumerate([np.where(np.arange(len(t_ns)) == 5, np.nan, t_ns), t_ns[::-1].copy()]):
        path = tmp_path / f"{k}.npz"
        recording(unbroken, path, event_t_ns=times, event_unit=unit)
        assert "spike times are NaN or decrease; sort and clean them first" in fails("play", path)


def test_an_empty_recording(fails: Fails, session: Session, rig_home: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.npz"
    recording(session, silent, counts=np.zeros_like(session.counts))
    assert "the recording is empty (no bins, segments or spikes); give another" in fails("play", silent)
    assert "is empty" in fails("evaluate", silent, rig_home / "tiny.safetensors")

    no_segments = tmp_path / "no-segments.npz"
    recording(session, no_segments, segments=np.zeros((0, 2), np.int64), segment_ids=np.zeros(0, np.int64))
    assert "is empty" in fails("play", no_segments)


def test_a_recording_that_is_none(fails: Fails, session: Session, rig_home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("not a zip")
    assert "is not a readable Session.npz; convert the recording again" in fails("play", text)
    assert "not a readable Session.npz" in fails("play", rig_home / "tiny.safetensors")
    objects = tmp_path / "pickle.npz"
    np.savez(objects, header=np.array([{"a": 1}], object))  # a pickle inside
    assert "is not a readable Session.npz" in fails("play", objects)
    lacking = tmp_path / "lacking.npz"
    np.savez(lacking, header=np.zeros(3, np.uint8))
    assert "convert" in fails("play", lacking)


def test_a_recording_too_short_to_split(fails: Fails, short: Session, rig_home: Path, tmp_path: Path) -> None:
    two = replace(short, segments=short.segments[:2], segment_ids=short.segment_ids[:2])
    session_file.save(two, tmp_path / "2.npz")
    assert "is too short to be split" in fails("play", tmp_path / "2.npz", "--split", "test")
    assert "is too short to be split" in fails("evaluate", tmp_path / "2.npz", rig_home / "tiny.safetensors")


def test_play_says_which_spikes_it_does_not_send(
    call: Callable[..., int], unbroken: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unbroken.events is not None
    t_ns, unit = unbroken.events
    path = tmp_path / "more.npz"
    session_file.save(replace(unbroken, events=(np.r_[-7, -1, t_ns, 8 * 10**9], np.r_[0, 0, unit, 0])), path)

    assert call("play", path, "--wait", "0.1") == 2  # nobody listens

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "spikes of unbroken that are not sent: 2 before its start, 1 after its end (8 s)"
