"""The door to attention: checks its arguments, refuses in one sentence, and picks the kernel by the device.

CUDA tensors go to Triton, CPU tensors to `kernels.reference`, which is the specification of both.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from kernels import reference
from kernels.reference import Pattern, StreamCache

HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)
MAX_HEAD_WIDTH = 128
MAX_TOKENS = 1 << 15  # keeps every offset within a head below 2^31
MAX_BIN_TOKENS = 64  # the queries of a streaming step are one tile
MAX_SINKS = 64


def refuse(unless: bool, why: str) -> None:
    """ValueError with a reason, unless all is well."""
    if not unless:
        raise ValueError(why)


def check_device(tensors: dict[str, Tensor]) -> None:
    """All on one device that has a kernel."""
    devices = {x.device for x in tensors.values()}
    refuse(len(devices) == 1, f"attention is given tensors on {sorted(map(str, devices))}; move them to one device")
    device = next(iter(devices))
    refuse(device.type in ("cpu", "cuda"), f"attention has no kernel for {device}; move the tensors to cpu or cuda")
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        refuse(found, f"attention on {device} needs triton, which is not installed; install it or use the CPU")


def check_kind(tensors: dict[str, Tensor], name: str) -> None:
    """Floating tensors of one dtype that the device's kernel takes, heads contiguous."""
    kind, device = tensors[name].dtype, tensors[name].device
    allowed = (*HALF_OR_SINGLE, torch.float64) if device.type == "cpu" else HALF_OR_SINGLE
    refuse(kind in allowed, f"{name} is {kind}, attention on {device.type} takes {', '.join(map(str, allowed))}")
    for other, x in tensors.items():
        refuse(x.dtype == kind, f"{other} is {x.dtype} and {name} is {kind}; cast them to one dtype")
        refuse(x.stride(-1) == 1, f"{other} must be contiguous along its last axis; call contiguous()")
    width = tensors[name].shape[-1]
    even = width % 2 == 0 and 2 <= width <= MAX_HEAD_WIDTH
    refuse(even, f"a head is {width} wide, attention takes even widths up to {MAX_HEAD_WIDTH}; change the heads")


def check_shape(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    refuse(x.shape == shape, f"{name} has shape {tuple(x.shape)}, the other arguments ask for {shape}")
    refuse(dtype is None or x.dtype == dtype, f"{name} is {x.dtype}, attention takes {dtype}; cast it")
    refuse(
        x.numel() == 0 or x.stride(-1) == 1 or x.shape[-1] == 1,
        f"{name} must be contiguous along its last axis; call contiguous()",
    )


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    position: Tensor,
    hidden: Tensor,
    band: int | None,
    n_sinks: int,
    rows: Tensor | None = None,
) -> Tensor:
    """Window attention, differentiable in q, k and v: see `kernels.reference` for the meaning.

    q (B, H, R, K), k, v (B, H, N, K) float32, float16 or bfloat16 (on the CPU also float64), K
    even and at most 128; the rest as in `Pattern`. Each of rows has to be below N, which is not
    checked on a GPU, where looking would wait for it. Can be passed to
    `NEDS.forward(attend=...)`. Raises ValueError.
    """
    given = {"q": q, "k": k, "v": v, "position": position, "hidden": hidden}
    if rows is not None:
        given["rows"] = rows
    check_device(given)
    refuse(q.ndim == 4 and k.ndim == 4, f"q has {q.ndim} and k {k.ndim} axes; give both as (B, H, N, K)")
    n_batch, heads, n_rows, head_width = q.shape
    n = k.shape[2]
    refuse(min(*q.shape, n) > 0 and n <= MAX_TOKENS, f"a window of {n} tokens; attention takes 1 to {MAX_TOKENS}")
    check_shape("k", k, (n_batch, heads, n, head_width))
    check_shape("v", v, (n_batch, heads, n, head_width))
    check_kind({"q": q, "k": k, "v": v}, "q")
    check_shape("position", position, (n,), torch.int64)
    check_shape("hidden", hidden, (n_batch, n), torch.bool)
    refuse(rows is not None or n_rows == n, f"q holds {n_rows} of {n} tokens; say which in rows")
    if rows is not None:
        check_shape("rows", rows, (n_rows,), torch.int64)
    refuse(band is None or band >= 1, f"a band of {band} bins meets nothing; give at least 1, or None for every bin")
    refuse(0 <= n_sinks <= n, f"{n_sinks} sinks in a window of {n} tokens; give 0 to {n}")
    pattern = Pattern(position, hidden, band, n_sinks, rows)
    if q.device.type == "cpu":
        return reference.attention(q, k, v, pattern)
    from kernels.gpu.gradient import WindowAttention

    with torch.cuda.device(q.device):
        return WindowAttention.apply(q, k, v, pattern)


def check_bin(cache: StreamCache, heads: int, n_tokens: int, head_width: int, position: Tensor, hidden: Tensor) -> None:
    """A cache for T tokens a bin of such heads, and where and what this bin's are."""
    n, n_sinks = cache.k.shape[1], cache.sink_k.shape[1]
    for name, x, slots in (
        ("cache.k", cache.k, n), ("cache.v", cache.v, n), ("cache.sink_k", cache.sink_k, n_sinks),
        ("cache.sink_v", cache.sink_v, n_sinks),
    ):  # fmt: skip
        check_shape(name, x, (heads, slots, head_width))
        refuse(x.is_contiguous(), f"{name} is not contiguous; make it so once")
    rest = {"cache.v": cache.v, "cache.sink_k": cache.sink_k, "cache.sink_v": cache.sink_v}
    check_kind({"cache.k": cache.k} | rest, "cache.k")
    kind = cache.k.dtype
    refuse(kind in HALF_OR_SINGLE, f"cache.k is {kind}; a streaming step takes float32, float16 or bfloat16")
    refuse(0 < n_tokens <= MAX_BIN_TOKENS, f"{n_tokens} tokens in a bin; a streaming step takes 1 to {MAX_BIN_TOKENS}")
    refuse(n >= n_tokens and n % n_tokens == 0, f"a cache of {n} slots holds no whole bins of {n_tokens} tokens")
    refuse(n_sinks <= MAX_SINKS, f"{n_sinks} sinks; a streaming step takes at most {MAX_SINKS}")
    check_shape("cache.hidden", cache.hidden, (n,), torch.bool)
    check_shape("position", position, (1,), torch.int64)
    check_shape("hidden", hidden, (n_tokens,), torch.bool)


def named(cache: StreamCache) -> dict[str, Tensor]:
    """The cache's tensors by the names that errors use."""
    return {f"cache.{name}": x for name, x in cache._asdict().items()}


def stream_attention(
    q: Tensor, k: Tensor, v: Tensor, cache: StreamCache, *, position: Tensor, hidden: Tensor, out: Tensor
) -> Tensor:
    """One streaming step of a layer: see `kernels.reference.stream_attention` for the meaning.

    q, k, v, out (H, T, K) of one dtype, as is the cache; position (1,) int64, not negative;
    hidden (T,) bool. On a GPU it is one launch that a CUDA graph can capture, after one call
    outside the graph has compiled it; position and hidden are read on the device. No gradient.
    Raises ValueError.
    """
    check_device({"q": q, "k": k, "v": v, "position": position, "hidden": hidden, "out": out} | named(cache))
    refuse(q.ndim == 3, f"q has {q.ndim} axes; give it as (H, T, K)")
    heads, n_tokens, head_width = q.shape
    for name, x in (("k", k), ("v", v), ("out", out)):
        check_shape(name, x, (heads, n_tokens, head_width))
    check_kind({"q": q, "k": k, "v": v, "out": out, "cache.k": cache.k}, "q")
    check_bin(cache, heads, n_tokens, head_width, position, hidden)
    asks = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    refuse(not asks, "a streaming step has no gradient; call it under torch.no_grad")
    if q.device.type == "cpu":
        return reference.stream_attention(q, k, v, cache, position=position, hidden=hidden, out=out)
    from kernels.gpu.stream import step_call

    with torch.cuda.device(q.device):
        step_call(q, k, v, cache, position=position, hidden=hidden, out=out).launch()
    return out
