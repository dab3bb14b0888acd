"""`neds_core` has its calls at the top, and loads nothing until one is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import neds_core
from neds_core.data import session_file
from neds_core.data.session import Session
from neds_core.errors import ConfigError, DataError

ROOT = Path(__file__).parents[3]
LOADED = "\nprint('LOADED', *[name for name in {absent!r} if name in sys.modules])"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import neds_core", ("torch", "numpy", "msgspec", "neds_core.errors")),
        ("import neds_core; neds_core.Session", ("torch", "safetensors")),
        ("from neds_core import load; load({path!r})", ("torch", "pynwb", "h5py", "pandas")),
        ("from neds_core import fit, decode, score", ("matplotlib", "pandas", "pynwb", "runtime", "kernels")),
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, absent: tuple[str, ...]) -> None:
    """In a process of its own."""
    path = str(ROOT / "examples" / "rat-linear-track" / "session.npz")
    run = "import sys\n" + code.format(path=path) + LOADED.format(absent=absent)

    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_the_names_are_offered_and_no_others() -> None:
    """As completion and `from neds_core import *` see them; a name that is none is an AttributeError."""
    assert set(neds_core.__all__) <= set(dir(neds_core))
    assert neds_core.Session is Session
    assert all(getattr(neds_core, name).__doc__ for name in neds_core.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'train_everything'"):
        _ = neds_core.train_everything  # pyright: ignore[reportAttributeAccessIssue]


def test_an_array_in_the_place_of_a_path_is_one_sentence() -> None:
    """Whose text has several lines."""
    with pytest.raises(
        DataError, match=r"load: given ndarray array\(\[\[0., 0.\], \[0., 0.\]\]\); give the path"
    ) as found:
        neds_core.load(np.zeros((2, 2)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(found.value)


def test_a_session_of_ours_is_loaded(session: Session, tmp_path: Path) -> None:
    """By a path or its text; with options of an import it is refused, and so is what is not there."""
    path = tmp_path / "session.npz"
    session_file.save(session, path)

    for given in (path, str(path)):
        assert neds_core.load(given).units.sha256 == session.units.sha256
    with pytest.raises(ConfigError, match=r"load: bin_ms is for formats that are imported, and .*session.npz is a"):
        neds_core.load(path, bin_ms=10)
    for name in ("gone.npz", "gone.nwb"):
        with pytest.raises(DataError, match=f"{name} does not exist; check the path"):
            neds_core.load(tmp_path / name)


def test_a_table_is_imported(tmp_path: Path) -> None:
    """Spikes of a CSV, in bins of a width of its own."""
    pytest.importorskip("pandas")
    path = tmp_path / "spikes.csv"
    path.write_text("time,unit\n" + "".join(f"{0.1 * k:.1f},{k % 3}\n" for k in range(100)))

    made = neds_core.load(path, bin_ms=50, outputs=["none"])

    assert (len(made.units), made.bin_ns, int(made.counts.sum())) == (3, 50_000_000, 100)
