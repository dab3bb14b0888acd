"""The resources that compiled kernels use, without a GPU: machine code from `triton.compile`, read by cuobjdump.

`python -m kernels.gpu.report` prints the table for the sizes that the shipped models have.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.gpu.block import block_calls
from kernels.gpu.ends import read_call, token_call
from kernels.gpu.gradient import gradient_calls
from kernels.gpu.stream import step_call
from kernels.gpu.tiles import Call
from kernels.gpu.window import common, forward_call
from kernels.reference import BlockWeights, Pattern, ReadOut, TokenTables, make_cache

TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
CAPABILITIES = (80, 90)  # A100, H100
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


def launches(head_width: int, dtype: torch.dtype, band: int | None, some: bool) -> Iterator[tuple[str, Call]]:
    """Every launch of a layer with 8 heads and 2 s of three tokens a bin, by name.

    band None = every bin; some: the window computes 7 of its rows.
    """
    heads, n, n_sinks, n_tokens = 8, 302, 2, 3

    def room(rows: int) -> torch.Tensor:
        return torch.empty(1, rows, heads, head_width, dtype=dtype).transpose(1, 2)

    n_rows = 7 if some else n
    q, k, v, sums = room(n_rows), room(n), room(n), torch.empty(1, heads, n_rows)
    position, hidden = torch.zeros(n, dtype=torch.int64), torch.zeros(1, n, dtype=torch.bool)
    rows = torch.zeros(n_rows, dtype=torch.int64) if some else None
    shared = common(q, k, v, Pattern(position, hidden, band, n_sinks, rows))
    yield "window forward", forward_call(shared, q, sums)
    to_queries, to_keys = gradient_calls(shared, q, sums, sums, q, k, v)
    yield "window query gradient", to_queries
    yield "window key gradient", to_keys
    x, sinks = room(n_tokens)[0], room(n_sinks)[0].contiguous()
    cache = make_cache(sinks, sinks, 100, n_tokens)
    yield "stream step", step_call(x, x, x, cache, position=position[:1], hidden=hidden[0, :n_tokens], out=x)


def step_launches(
    width: int, heads: int, mlp: int, dtype: torch.dtype, n_tokens: int = 3
) -> Iterator[tuple[str, Call]]:
    """The launches of a fused step by name: 449 units to tokens, a layer with 2 s in its cache, the read-out."""
    shapes = ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
              (mlp, width), (mlp,), (mlp, width), (width,))  # fmt: skip
    weights = BlockWeights._make(torch.empty(shape, dtype=dtype) for shape in shapes)
    sinks = torch.empty(heads, 3, width // heads, dtype=dtype)
    where, hidden = torch.zeros(3, dtype=torch.int64), torch.zeros(n_tokens, dtype=torch.bool)
    n_seen, n_units = n_tokens - 1, 449
    index, rows = torch.zeros(n_seen, dtype=torch.int64), [torch.empty(n, width) for n in (n_units, n_tokens, n_tokens)]
    tables = TokenTables._make([*rows, torch.empty(n_seen, width), index, index, torch.empty(48, width)])
    cache = make_cache(sinks, sinks, 100, n_tokens)
    call, parts = token_call(torch.empty(n_units), torch.empty(n_seen), where, tables, spikes=True, hidden=hidden)
    yield f"bin to tokens, D {width}", call
    calls, parts = block_calls(parts, weights, cache, position=where[:1], hidden=hidden)
    for name, call in zip(("norm + qkv", "attention + out", "norm + mlp"), calls, strict=True):
        yield f"{name}, D {width}", call
    norm = torch.empty(width)
    head = ReadOut(norm, norm, torch.empty(n_seen, width), torch.empty(n_seen), index, index)
    yield f"norm + read-out, D {width}", read_call(parts, head, rates=False, out=torch.empty(n_seen))


STEPS = ((32, 4, 64), (64, 4, 128), (256, 8, 512))  # D, heads and hidden units: the shipped models', the published


def table() -> Iterator[str]:
    """Lines of the report for heads of 32 and a band of 2 s, and for the fused steps of `STEPS`."""
    yield f"{'kernel':28}{'dtype':>10}{'sm':>5}{'registers':>11}{'shared B':>10}{'stack B':>9}{'local B':>9}"
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        fused = (step_launches(*sizes, dtype) for sizes in STEPS)
        for name, call in chain(launches(32, dtype, 100, some=False), *fused):
            for capability in CAPABILITIES:
                used = resources(call, capability)
                yield (
                    f"{name:28}{TYPES[dtype]:>10}{capability:>5}"
                    f"{used.registers:>11}{used.shared:>10}{used.stack:>9}{used.local:>9}"
                )


if __name__ == "__main__":
    for line in table():
        print(line)
