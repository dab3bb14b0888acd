"""Data-parallel training: one process alone, or many under `torchrun`, on one machine or several.

Sums are all-reduced by hand rather than by DistributedDataParallel: a step then sends the trunk and
its own sessions' rows, not the rows of every session there is, and a parameter that no process used
stays without a gradient, as it does in one process.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed as dist, nn

from neds_core.errors import ConfigError, NedsError
from neds_core.stopping import TOGETHER_S

T = TypeVar("T")


class StopError(NedsError):
    """A training was asked to stop before it had anything to save."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among `size`, where its model lives, and the attention that trains there; None = torch's own."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    attend: Callable[..., Tensor] | None = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, which alone calls it; a `NedsError` is raised in every process."""
        if self.size == 1:
            return make()
        sent: list[T | NedsError | None] = [None]
        if self.rank == 0:
            try:
                sent = [make()]
            except NedsError as error:
                sent = [error]
        dist.broadcast_object_list(sent, src=0, device=self.device)
        if isinstance(sent[0], NedsError):
            raise sent[0]
        return cast(T, sent[0])

    def sum_gradients(self, parameters: list[nn.Parameter], more: Tensor) -> Tensor:
        """Sum the gradients of `parameters` in place, in one message with `more` (n,) float32, whose sum is returned.

        Every process passes the same parameters in the same order. One that no process has a
        gradient for is left without; one that only some have counts as 0 in the others.
        """
        if self.size == 1:
            return more
        owned = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        rows = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        message = torch.cat([more, owned, *rows])
        dist.all_reduce(message)
        head, owned, gradient = message.split([len(more), len(owned), len(message) - len(more) - len(owned)])
        for p, own, row in zip(
            parameters, owned.tolist(), gradient.split([p.numel() for p in parameters]), strict=True
        ):
            p.grad = row.view_as(p) if own else None
        return head


@contextmanager
def world(device: str, attend: Callable[..., Tensor] | None = None) -> Iterator[World]:
    """This process's place, from the environment that `torchrun` sets; alone without it.

    gloo between CPUs, nccl between GPUs. attend: what attends on GPUs. Raises `ConfigError` where `device` is not
    there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("fit.device is 'cuda', but torch finds no GPU here; set it to 'cpu' or run on one")
    here = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device(device)
    attend = attend if device == "cuda" else None
    if "WORLD_SIZE" not in os.environ:
        yield World(device=here, attend=attend)
        return
    if device == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), here, attend)
        dist.barrier()  # one that leaves while another is still at work may abort
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM, Ctrl-C or a closed terminal sets, so that a step is finished and saved first.

    A later second one ends at once. SIGHUP stays ignored where it is (nohup).
    """
    asked, first_s = threading.Event(), 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first_s
        if not asked.is_set():
            asked.set()
            first_s = time.monotonic()
        elif time.monotonic() - first_s > TOGETHER_S:
            give_back()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        give_back()
