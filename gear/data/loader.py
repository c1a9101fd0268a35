"""From a source and an order to batches of tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gear.data import workers
from gear.data.base import BadSample, ImageSource, Sample
from gear.data.order import BatchOrder
from harness.contract.errors import BadSamples, UserError

_MOST_IN_A_ROW = 100
"""Consecutive unusable samples beyond which the data set itself must be wrong."""


@dataclass(frozen=True)
class Batch:
    """images_u8 (B, 3, H, W) uint8; labels (B,) int64; ids (B,) int64, the samples' indices in the data set.

    labels: 0 where the data set has none.
    captions: one text per image, None where the data set has none.
    null_draws: (B,) float32 uniform in [0, 1), one per sample: a condition is dropped (for classifier-free guidance)
        where the draw is below the dropout probability. None in a batch made by hand: the model then draws itself.
    bad: why samples of the order are missing; others replace them.
    """

    images_u8: Tensor
    labels: Tensor
    ids: Tensor
    captions: tuple[str | None, ...] = ()
    null_draws: Tensor | None = None
    bad: tuple[str, ...] = ()

    @property
    def pixels(self) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of the default floating type: x / 127.5 - 1."""
        return self.images_u8.to(torch.get_default_dtype()) / 127.5 - 1.0

    def dropped(self, probability: float) -> Tensor | None:
        """(B,) bool: whose condition is dropped; None leaves the draw to the model."""
        return None if self.null_draws is None else self.null_draws < probability

    def to(self, device: torch.device) -> Batch:
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by the DataLoader, so that the copies to a GPU need not be waited for."""
        return self._mapped(Tensor.pin_memory)

    def shared(self) -> Batch:
        """In shared memory, where another process can use it."""
        with workers.sharing():
            return self._mapped(Tensor.share_memory_)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class BatchSplit:
    """What one process works on: each global batch is split into `parts` micro-batches, of which `rank` has a piece."""

    rank: int = 0
    world_size: int = 1
    parts: int = 1


class _OrderedBatches(Dataset[Batch | UserError]):
    """Item n is this process's piece of micro-batch n, so that a loader may start anywhere.

    An error that the user has to fix is returned: raised in a worker, it would reach the user as a traceback.
    """

    def __init__(self, source: ImageSource, order: BatchOrder, split: BatchSplit) -> None:
        self.source, self.order, self.split = source, order, split

    def __getitem__(self, number: int) -> Batch | UserError:
        try:
            batch = self._batch(number)
            return batch if get_worker_info() is None else batch.shared()
        except UserError as problem:
            return problem

    def _batch(self, number: int) -> Batch:
        split = self.split
        batch, part = divmod(number, split.parts)
        piece = part * split.world_size + split.rank
        wanted = self.order.indices(batch, piece, split.parts * split.world_size)
        bad: list[str] = []
        found = [self._usable(batch, int(index), bad) for index in wanted]
        draws = [self.order.null_draw(batch, index) for index, _ in found]
        return Batch(
            torch.from_numpy(np.stack([sample.image_u8 for _, sample in found])),
            torch.tensor([sample.label or 0 for _, sample in found], dtype=torch.int64),
            torch.tensor([index for index, _ in found], dtype=torch.int64),
            tuple(sample.caption for _, sample in found),
            torch.tensor(draws, dtype=torch.float32),
            tuple(bad),
        )

    def _usable(self, batch: int, index: int, bad: list[str]) -> tuple[int, Sample]:
        """Sample `index`, or the next one in the data set that can be used: the same choice in every process."""
        for _ in range(_MOST_IN_A_ROW):
            try:
                return index, self.source.item(index, self.order.rng(batch, index))
            except BadSample as problem:
                bad.append(str(problem))
                index = (index + 1) % len(self.source)
        raise BadSamples(
            f"{_MOST_IN_A_ROW} samples in a row cannot be used, the last because: {bad[-1]}; check the data set."
        )


def batches(
    source: ImageSource,
    order: BatchOrder,
    *,
    start: int,
    stop: int,
    split: BatchSplit | None = None,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """This process's pieces of micro-batches `start` .. `stop - 1` of the order, in order.

    The loader has its own generator: fetching data must not advance the random state that dropout draws from,
    or a resumed run would differ from an uninterrupted one.

    Raises UserError at once where a batch cannot be split into that many pieces, BadSamples where many samples in a row
    cannot be used, EnvironmentFailure where workers cannot be started or lack shared memory.
    """
    split = split or BatchSplit()
    order.check_pieces(split.parts * split.world_size)
    loader = DataLoader(
        _OrderedBatches(source, order, split),
        sampler=range(start, stop),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
        worker_init_fn=partial(workers.obey_only, os.getpid()),
        persistent_workers=False,
    )
    return _raising(loader)


def _raising(loader: DataLoader[Batch | UserError]) -> Iterator[Batch]:
    for item in workers.start(loader):
        if isinstance(item, UserError):
            raise item
        yield item
