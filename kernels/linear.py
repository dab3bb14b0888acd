"""The door to a linear layer with what stands around it: the norm before, GELU or the residual after.

Checks what it is given, refuses in one sentence, and picks by the device, as `kernels.attention`. No gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import reference
from kernels.attention import HALF_OR_SINGLE, check_device, check_shape, refuse

MAX_NORM_WIDTH = 1024  # a normed row is held in registers


def linear(
    x: Tensor, weight: Tensor, bias: Tensor, *, norm: tuple[Tensor, Tensor] | None = None, gelu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """LayerNorm of x by norm's scale and shift (K,), times weight (N, K) plus bias (N,), exact GELU, plus residual.

    x (M, K), residual (M, N), all of one dtype: float32, float16 or bfloat16; sums in float32. float32 on a GPU:
    products of three TF32 parts, which is as exact as float32 to a few units of its last place, or TF32 alone where
    `torch.set_float32_matmul_precision` allows it. Returns (M, N). Raises ValueError.
    """
    scale, shift = norm or (None, None)
    given = {"x": x, "weight": weight, "bias": bias, "scale": scale, "shift": shift, "residual": residual}
    tensors = {name: t for name, t in given.items() if t is not None}
    check_device(tensors)
    refuse(x.ndim == 2 and weight.ndim == 2, f"x has {x.ndim} and weight {weight.ndim} axes; give (M, K) and (N, K)")
    (n_rows, width), n_outputs = x.shape, weight.shape[0]
    refuse(
        min(n_rows, width, n_outputs) > 0, f"{n_rows} rows of {width} to {n_outputs} outputs: there is nothing to do"
    )
    refuse(weight.dtype in HALF_OR_SINGLE, f"weight is {weight.dtype}; a layer takes float32, float16 or bfloat16")
    refuse(norm is None or width <= MAX_NORM_WIDTH, f"rows {width} wide; a normed one has at most {MAX_NORM_WIDTH}")
    shapes = {
        "weight": (n_outputs, width), "bias": (n_outputs,), "scale": (width,), "shift": (width,),
        "residual": (n_rows, n_outputs),
    }  # fmt: skip
    for name in shapes.keys() & tensors.keys():
        check_shape(name, tensors[name], shapes[name], weight.dtype)
    check_shape("x", x, (n_rows, width), weight.dtype)
    refuse(weight.is_contiguous(), "weight is not contiguous; make it so once")
    asks = torch.is_grad_enabled() and any(t.requires_grad for t in tensors.values())
    refuse(not asks, "a fused layer has no gradient; call it under torch.no_grad")
    if x.device.type == "cpu":
        return reference.linear(x, weight, bias, norm=norm, gelu=gelu, residual=residual)
    from kernels.triton_linear import launch_linear

    with torch.cuda.device(x.device):
        return launch_linear(x, weight, bias, norm=norm, gelu=gelu, residual=residual)
