"""The Triton kernels without a GPU: interpreted against their specification, and compiled to machine code.

With a GPU the same checks run compiled, on fresh processes either way: Triton decides at import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed; there is none for this platform")

from kernels.gpu.report import CAPABILITIES, STEPS, Resources, launches, resources, step_launches

HERE = Path(__file__).parent
BAND = 100  # 2 s, as the shipped models have


@pytest.mark.timeout(600)  # of its subprocess
@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_are_their_specification(marked: str) -> None:
    """The checks of this folder, interpreted where there is no GPU."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    if not torch.cuda.is_available():
        env["TRITON_INTERPRET"] = "1"
    checks = [str(HERE / name) for name in ("check_window.py", "check_stream.py", "check_block.py", "check_ends.py")]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked, *checks],
        capture_output=True, text=True, env=env, cwd=HERE.parents[2], timeout=600,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-8000:]


def assert_fits(name: str, used: Resources) -> None:
    """Nothing is spilled, and two blocks share a multiprocessor."""
    assert (used.stack, used.local) == (0, 0), f"{name} spills: {used}"
    assert 0 < used.registers <= 255, name
    assert 0 <= used.shared <= 80 * 1024, name  # of the 164 KiB that compute capability 8.0 has


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_shipped_sizes_do_not_spill(capability: int) -> None:
    """Heads of 32 and the published fused step in float32 with a band of 2 s, compiled for A100 and H100."""
    for name, call in chain(launches(32, torch.float32, BAND, some=False), step_launches(*STEPS[-1], torch.float32)):
        assert_fits(name, resources(call, capability))


@pytest.mark.parametrize("some", [False, True])
def test_launches_name_every_argument_once(some: bool) -> None:
    """The interpreter ignores an argument that a kernel does not know; a launch on a GPU does not."""
    for name, call in chain(launches(32, torch.float32, None, some), step_launches(*STEPS[0], torch.float32)):
        assert set(call.arguments) == {parameter.name for parameter in call.kernel.params}, name


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_width", [16, 32, 64, 128])
@pytest.mark.parametrize(("band", "some"), [(BAND, False), (None, False), (None, True)])
def test_no_size_spills(head_width: int, dtype: torch.dtype, band: int | None, some: bool, capability: int) -> None:
    """All heads, dtypes, and both attention patterns, compiled."""
    for name, call in launches(head_width, dtype, band, some):
        assert_fits(name, resources(call, capability))


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_tokens", [2, 3, 7])
@pytest.mark.parametrize("sizes", [*STEPS, (128, 8, 512), (512, 8, 2048)])
def test_no_fused_step_spills(sizes: tuple[int, int, int], n_tokens: int, dtype: torch.dtype, capability: int) -> None:
    """Widths, tokens a bin and weights' dtypes, compiled."""
    for name, call in step_launches(*sizes, dtype, n_tokens):
        assert_fits(name, resources(call, capability))
