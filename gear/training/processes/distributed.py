"""The processes of one training run: their ranks, and their communication.

torchrun starts the processes; `process_group` joins them. Without torchrun there is one process and everything here is
a no-op, so the rest of the code has one path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from harness.contract.errors import UserError

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others: the main one may be writing a large checkpoint or drawing samples."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """The process that writes logs, pictures and checkpoints."""
        return self.rank == 0


def world() -> World:
    """The processes of this run; one if no group was joined."""
    if dist.is_available() and dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size())
    return World()


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, and leave them at the end. Yields this process's device.

    Tensors on a GPU are sent by NCCL, those on the CPU by gloo. GPUs are assigned by local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def mean_over_processes(values: Tensor) -> Tensor:
    """The element-wise mean; a NaN in one process is a NaN in all. Called by all processes."""
    size = world().size
    if size == 1:
        return values
    total = values.detach() / size
    dist.all_reduce(total)
    return total


def all_gather(values: Tensor) -> Tensor:
    """Every process's tensor, of equal shapes, one after the other along the first dimension."""
    size = world().size
    if size == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(size)]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def broadcast_object(value: T) -> T:
    """The main process's value, in all processes. Small plain objects only."""
    if world().size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def decided_by_main(action: Callable[[], T]) -> T:
    """Run `action` in the main process only; its result, or its UserError, reaches all processes."""
    if world().size == 1:
        return action()
    outcome: tuple[T | None, UserError | None] = (None, None)
    if world().is_main:
        try:
            outcome = (action(), None)
        except UserError as error:
            outcome = (None, error)
    result, problem = broadcast_object(outcome)
    if problem is not None:
        raise problem
    return cast("T", result)


def gather_objects(value: T) -> list[T]:
    """Every process's value in the order of ranks, in all processes. Pickled: for plain objects and small arrays."""
    if world().size == 1:
        return [value]
    values: list[T] = [value] * world().size
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """(n, D) CPU tensors of all processes, concatenated in the order of ranks; n may differ."""
    if world().size == 1:
        return rows
    counts = gather_objects(len(rows))
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def barrier() -> None:
    """Returns when every process has called it."""
    if world().size > 1:
        dist.barrier()
