"""Average gradients over processes while the backward pass that computes them is still running.

Why not DistributedDataParallel: it ties one backward pass to one forward pass of one wrapped module. A GEAR step calls
parts of models (a tap, an encoder), freezes and unfreezes them, runs three backward passes and gives each optimizer its
own gradients. So the averaging belongs to the optimizer: it happens in the backward pass that completes an update,
never while gradients only accumulate, and whichever modules were called before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gear.training.processes.distributed import world


class Bucket:
    """Neighbouring parameters whose gradients are sent together."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.waiting_for = 0
        self.flat: Tensor | None = None
        self.work: dist.Work | None = None

    def send(self, processes: int) -> None:
        """Start the sum over processes. A parameter without a gradient contributes zeros."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(processes)
        self.work = dist.all_reduce(self.flat, async_op=True)

    def receive(self) -> None:
        """Wait for the sum; gradients become views of it. Unused parameters stay without a gradient."""
        assert self.work is not None and self.flat is not None
        self.work.wait()
        pieces = self.flat.split([p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            if parameter.grad is not None:
                parameter.grad = piece.view_as(parameter)
        self.flat = self.work = None


class GradientReducer:
    """Averages the gradients of some parameters over all processes; does nothing where there is only one.

    A bucket is sent as soon as its gradients are complete, and always after the bucket before it, so that all processes
    send in the same order. Buckets run from the last parameter to the first, which is roughly the order in
    which a backward pass completes them.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_bytes: int = 25 << 20) -> None:
        self._processes = world().size
        self._buckets: list[Bucket] = []
        self._sent = 0
        self._active = False
        if self._processes == 1:
            return
        self._buckets = [Bucket(group) for group in _grouped(list(parameters)[::-1], bucket_bytes)]
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._ready, bucket))

    @contextmanager
    def averaging(self) -> Iterator[None]:
        """The backward pass in this block completes an update: after the block, all gradients are averages."""
        self._active, self._sent = True, 0
        for bucket in self._buckets:
            bucket.waiting_for = len(bucket.parameters)
        try:
            yield
        finally:
            self._active = False
        for bucket in self._buckets[self._sent :]:  # those with a parameter that this pass did not reach
            bucket.send(self._processes)
        for bucket in self._buckets:
            bucket.receive()

    def _ready(self, bucket: Bucket, parameter: Tensor) -> None:
        if not self._active:
            return
        bucket.waiting_for -= 1
        while self._sent < len(self._buckets) and self._buckets[self._sent].waiting_for == 0:
            self._buckets[self._sent].send(self._processes)
            self._sent += 1


def _grouped(parameters: list[nn.Parameter], bucket_bytes: int) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one dtype, about `bucket_bytes` each."""
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if group and (size >= bucket_bytes or parameter.dtype != group[0].dtype):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += parameter.numel() * parameter.element_size()
    if group:
        yield group
