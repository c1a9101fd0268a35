"""The order in which training sees its samples: a pure function of (seed, step), the same for any number of processes.

An epoch is one permutation of the data set, drawn from (seed, epoch). A global batch is a consecutive slice of it;
an incomplete batch at the end of an epoch is dropped. A process takes its contiguous share of each global batch, and
whatever is random about a sample (its augmentation, whether its condition is dropped) is drawn from (seed, epoch,
sample). So a run resumed at step n, or started with another number of processes, workers or micro-batches, sees
exactly the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gear.data.permutation import permuted
from harness.contract.errors import UserError

_ORDER_STREAM, _AUGMENTATION_STREAM, _NULL_STREAM = 0, 1, 2


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

    def indices(self, batch: int, piece: int = 0, pieces: int = 1) -> npt.NDArray[np.int64]:
        """Sample indices of piece `piece` of global batch number `batch` (both from 0), (batch_size/pieces,) int64."""
        self.check_pieces(pieces)
        epoch, position = divmod(batch, self.batches_per_epoch)
        length = self.batch_size // pieces
        start = position * self.batch_size + piece * length
        return permuted(np.arange(start, start + length), self.num_items, (self.seed, _ORDER_STREAM, epoch))

    def check_pieces(self, pieces: int) -> None:
        """Raise UserError where a global batch cannot be split into that many equal pieces."""
        if self.batch_size % pieces:
            raise UserError(
                f"batch_size {self.batch_size} cannot be split into {pieces} equal pieces (processes times "
                f"micro-batches); make it a multiple of {pieces}."
            )

    def rng(self, batch: int, index: int) -> np.random.Generator:
        """The generator that augments sample `index` in `batch`: fresh each epoch, the same in every process."""
        return np.random.default_rng((self.seed, _AUGMENTATION_STREAM, self.epoch_of(batch), index))

    def null_draw(self, batch: int, index: int) -> float:
        """A uniform number in [0, 1) that decides whether sample `index` loses its condition in `batch`."""
        return float(np.random.default_rng((self.seed, _NULL_STREAM, self.epoch_of(batch), index)).random())
