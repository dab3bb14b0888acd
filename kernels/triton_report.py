"""What a compiled kernel takes of a GPU, without one: `triton.compile` to machine code, read by its own cuobjdump."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.triton_tiles import Call

TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
CUOBJDUMP = Path(str(triton.__file__)).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Resources(NamedTuple):
    """Of one kernel: registers a thread; bytes of shared memory a block; bytes of stack and local memory a thread.

    Registers that do not fit are spilled to the stack, so 0 there means that nothing is spilled.
    """

    registers: int
    shared: int
    stack: int
    local: int


def source(call: Call) -> ASTSource:
    """A launch as the compiler is given it: types, constants, and which arguments are multiples of 16."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}
    for i, parameter in enumerate(call.kernel.params):
        value = call.arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = f"*{TYPES[value.dtype]}"
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
        wide = isinstance(value, int) and not parameter.do_not_specialize and value % 16 == 0
        if isinstance(value, torch.Tensor) or wide:
            aligned[i,] = [["tt.divisibility", 16]]
    return ASTSource(fn=call.kernel, signature=signature, constexprs=constants, attrs=aligned)


def resources(call: Call, capability: int) -> Resources:
    """Compile a launch for a compute capability (80, 90) and read the machine code's use of resources."""
    compiled = triton.compile(source(call), target=GPUTarget("cuda", capability, 32), options=call.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return Resources(found["REG"], compiled.metadata.shared, found["STACK"], found["LOCAL"])
