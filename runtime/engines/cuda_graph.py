"""Static buffers and one CUDA graph for a step, shared by the GPU engines. On the CPU: the same without a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CUDA = torch.device("cuda")


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


class Replayed:
    """A step over static buffers as one launch; a call returns when the results are on the host."""

    def __init__(self, step: Callable[[], None], device: torch.device, graph: bool = True) -> None:
        """graph: capture the step; without, as on the CPU, its operations are launched one by one."""
        self.device, self.launch = device, step
        if device.type == "cuda" and graph:
            self.graph = self._captured(step)
            self.launch = self.graph.replay

    def __call__(self) -> None:
        self.launch()
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _captured(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):  # kernels compile and libraries allocate before the capture
                step()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph
