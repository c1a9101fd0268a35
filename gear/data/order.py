"""The order in which training sees its samples: a pure function of (seed, step), the same for any number of processes.

An epoch is one permutation of the data set, drawn from (seed, epoch). A global batch is a consecutive slice of it;
what is left over at the end of an epoch is dropped. A process takes its contiguous share of each global batch.
So a run resumed at step n, or started with another number of workers, sees exactly the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.contract.errors import UserError

_AUGMENTATION_STREAM = 1
_ORDER_STREAM = 0


@dataclass(frozen=True)
class BatchOrder:
    """Which samples make up which batch.

    num_items: samples in the data set. batch_size: images of one global batch. seed: of the run.
    """

    num_items: int
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; it must be at least 1.")
        if self.num_items < self.batch_size:
            raise UserError(
                f"the data set holds {self.num_items} images, fewer than one batch of {self.batch_size}; "
                "lower batch_size or add images."
            )

    @property
    def batches_per_epoch(self) -> int:
        return self.num_items // self.batch_size

    def epoch_of(self, batch: int) -> int:
        return batch // self.batches_per_epoch

    def indices(self, batch: int, rank: int = 0, world_size: int = 1) -> npt.NDArray[np.int64]:
        """Sample indices of global batch number `batch` (from 0) that process `rank` works on, int64 (batch/world,)."""
        if self.batch_size % world_size:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared by {world_size} processes; make it a multiple of them."
            )
        epoch, position = divmod(batch, self.batches_per_epoch)
        start, share = position * self.batch_size, self.batch_size // world_size
        return _permutation(self.num_items, self.seed, epoch)[start + rank * share : start + (rank + 1) * share]

    def rng(self, batch: int, index: int) -> np.random.Generator:
        """The generator that augments sample `index` in `batch`: fresh each epoch, the same in every process."""
        return np.random.default_rng((self.seed, _AUGMENTATION_STREAM, self.epoch_of(batch), index))


@lru_cache(maxsize=2)
def _permutation(num_items: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, _ORDER_STREAM, epoch)).permutation(num_items)
