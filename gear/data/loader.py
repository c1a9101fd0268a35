"""From a source and an order to batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gear.data.base import ImageSource
from gear.data.order import BatchOrder


@dataclass(frozen=True)
class Batch:
    """images_u8 (B, 3, H, W) uint8; labels (B,) int64; ids (B,) int64, the samples' indices in the data set.

    captions: one text per image, empty strings where the data set has none.
    """

    images_u8: Tensor
    labels: Tensor
    ids: Tensor
    captions: tuple[str, ...] = ()

    @property
    def pixels(self) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of the default floating type: x / 127.5 - 1."""
        return self.images_u8.to(torch.get_default_dtype()) / 127.5 - 1.0

    def to(self, device: torch.device) -> Batch:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(move(self.images_u8), move(self.labels), move(self.ids), self.captions)


class _OrderedBatches(Dataset[Batch]):
    """Item n is global batch n, so that a loader may start anywhere."""

    def __init__(self, source: ImageSource, order: BatchOrder) -> None:
        self.source, self.order = source, order

    def __getitem__(self, number: int) -> Batch:
        indices = self.order.indices(number)
        samples = [self.source.item(int(index), self.order.rng(number, int(index))) for index in indices]
        images = torch.from_numpy(np.stack([sample.image_u8 for sample in samples]))
        labels = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
        captions = tuple(sample.caption for sample in samples)
        return Batch(images, labels, torch.from_numpy(indices.copy()), captions)


def batches(
    source: ImageSource, order: BatchOrder, *, start: int, stop: int, num_workers: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Batches `start` .. `stop - 1` of the order, in order.

    The loader has a generator of its own: fetching data must not move the random state that dropout draws from,
    or a resumed run would differ from an uninterrupted one.
    """
    loader = DataLoader(
        _OrderedBatches(source, order),
        sampler=range(start, stop),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
        persistent_workers=False,
    )
    return iter(loader)
