"""Static buffers and one CUDA graph for a step: what the GPU engines share. On the CPU, the same without a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Pair:
    """A buffer on the device and its twin on the host, pinned where the device is a GPU."""

    def __init__(self, n: int, dtype: torch.dtype, device: torch.device) -> None:
        self.on_device = torch.zeros(n, dtype=dtype, device=device)
        self.on_host = torch.zeros(n, dtype=dtype, pin_memory=device.type == "cuda")
        self.host = self.on_host.numpy()  # the same memory

    def up(self) -> None:
        """Host to device."""
        self.on_device.copy_(self.on_host, non_blocking=True)

    def down(self, values: Tensor) -> None:
        """Device to host."""
        self.on_host.copy_(values, non_blocking=True)


def replayed(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A step over static buffers as one launch that ends with its results on the host; on the CPU, the step itself."""
    if device.type == "cpu":
        return step
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles the kernels, and lets libraries take their memory, before the capture
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay() -> None:
        graph.replay()
        torch.cuda.current_stream(device).synchronize()

    return replay
