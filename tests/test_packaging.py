"""What is installed, and that it runs away from the checkout and beside nobody else's packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import kernels
from neds_core.errors import ConfigError
from runtime.cli.ownership import refuse_foreign_packages

ROOT = Path(__file__).parents[1]
PACKAGES = {"runtime", "kernels", "neds_core", "calibration", "benchmarks"}
DECODERS = {"ensemble.safetensors", "half-a.safetensors", "half-b-before.safetensors"}
DEMO = {"session.npz", "rig.toml", "README.md"} | DECODERS


def call(*command: str | Path, cwd: Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout, with nothing of the checkout on its path."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)


def write_distribution(folder: Path, name: str, package: str, top_level: bool) -> None:
    """An installed distribution called `name` with one package, as pip would leave it."""
    (folder / package).mkdir(parents=True, exist_ok=True)
    (folder / package / "__init__.py").write_text("")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if top_level:
        (info / "top_level.txt").write_text(f"{package}\n")
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = call(*command, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel in it, where other packages come from the one that runs the tests.

    A path in a .pth file is searched last, and the .pth files found there are not read: an editable neds-rt among
    those packages stays out of the way. Returns the folder of its programs.
    """
    done = call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    done = call(*pip, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel and no clash."""
    return install(wheel, tmp_path_factory.mktemp("clean") / "env")


def test_wheel_holds_the_packages_and_the_demo(wheel: Path) -> None:
    """Five packages and the demo; no tests, no studies, no other example, and no other checkpoint."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {Path(info.filename): info.file_size for info in archive.infolist()}
    demo = {p.name: size for p, size in sizes.items() if p.parent == Path("runtime/demo")}
    licences = {name for name in demo if name.startswith("LICENSE")}

    assert {p.parts[0] for p in sizes if not p.parts[0].endswith(".dist-info")} == PACKAGES
    assert not [p for p in sizes if p.is_relative_to("benchmarks/studies")]
    assert Path("benchmarks/accuracy/compare.py") in sizes
    assert set(demo) == DEMO | licences
    assert licences == {p.name for p in (ROOT / "examples" / "ibl-dy016").glob("LICENSE*")}
    assert demo["session.npz"] + sum(demo[name] for name in DECODERS) <= 3_000_000  # small enough to ship


def test_installed_packages_are_the_wheels(programs: Path, tmp_path: Path) -> None:
    """The tests below would prove nothing if they reached the checkout."""
    code = f"import {', '.join(sorted(PACKAGES))}; print(*[m.__file__ for m in ({', '.join(sorted(PACKAGES))})])"

    done = call(programs / "python", "-c", code, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert all(Path(p).is_relative_to(programs.parent) for p in done.stdout.split())


def test_installed_help_answers(programs: Path, tmp_path: Path) -> None:
    """The console script works outside the checkout."""
    done = call(programs / "neds-rt", "--help", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_installed_demo_is_found(programs: Path, tmp_path: Path) -> None:
    """In the package, not in the checkout."""
    done = call(programs / "python", "-c", "from runtime.cli.demo import demo; print(demo())", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(programs.parent)


@pytest.mark.parametrize(  # a study, and a benchmark of the example recordings
    "command", ["transfer", pytest.param("accuracy", marks=pytest.mark.slow)]
)
def test_installed_benchmarks_say_where_they_run(command: str, programs: Path, tmp_path: Path) -> None:
    """One sentence with the remedy, and exit code 2."""
    done = call(programs / "neds-rt", "bench", command, cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert "run it from a checkout of the repository" in sentence


@pytest.mark.serial
@pytest.mark.slow
def test_installed_demo_runs(programs: Path, tmp_path: Path) -> None:
    """An installed `neds-rt run` finds its own recording and checkpoint, and reports one JSON object."""
    done = call(programs / "neds-rt", "run", "--seconds", "5", "--headless", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)


def test_foreign_package_stops_the_command(wheel: Path, tmp_path: Path) -> None:
    """Another distribution's `kernels`, installed over ours, is one sentence and exit code 2."""
    programs = install(wheel, tmp_path / "env")
    (site,) = programs.parent.glob("lib/python*/site-packages")
    write_distribution(site, "kernels", "kernels", top_level=True)

    done = call(programs / "neds-rt", "check", cwd=tmp_path)

    assert done.returncode == 2, done.stderr
    assert "'kernels'" in done.stderr
    assert "virtual environment of its own" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_own_environment_is_accepted() -> None:
    """The environment that runs the tests is neds-rt's own."""
    refuse_foreign_packages()


@pytest.mark.parametrize("top_level", [True, False])  # setuptools writes top_level.txt, newer tools do not
@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_foreign_distribution_is_refused(
    package: str, top_level: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever name it claims, and whether or not it declares it."""
    write_distribution(tmp_path, "somebody-elses", package, top_level)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigError, match=rf"'somebody-elses' also provides the package '{package}'"):
        refuse_foreign_packages()


def test_similar_names_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only whole top-level names count."""
    write_distribution(tmp_path, "kernels-extra", "kernels_extra", top_level=False)
    write_distribution(tmp_path, "nested", "nested/kernels", top_level=False)
    monkeypatch.syspath_prepend(tmp_path)

    refuse_foreign_packages()


def test_unmarked_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `kernels` folder without metadata, found first on the path, is not ours either."""
    monkeypatch.delattr(kernels, "NEDS_RT")

    with pytest.raises(ConfigError, match="'kernels' comes from"):
        refuse_foreign_packages()
