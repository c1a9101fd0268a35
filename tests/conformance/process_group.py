"""Run a function in a small gloo process group on this machine, one process per argument."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def run_in_process_group(function: Callable[..., T], per_rank: Sequence[Any], *common: Any) -> list[T]:
    """`function(per_rank[rank], *common)` on every rank at the same time; the results in rank order.

    `function` must be importable by name, since the processes do not share this one's memory.
    """
    # Not fork: autograd refuses to run in a fork of a process that used it. The fork server imports torch once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed"])
    size = len(per_rank)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(size, mp_context=context) as pool:
        meeting = (Path(folder) / "store").as_uri()
        jobs = [
            pool.submit(_on_rank, function, meeting, rank, size, value, *common) for rank, value in enumerate(per_rank)
        ]
        return [job.result(timeout=120) for job in jobs]


def _on_rank(function: Callable[..., T], meeting: str, rank: int, size: int, *args: Any) -> T:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        return function(*args)
    finally:
        dist.destroy_process_group()
