"""Feature arrays as files: written batch by batch, read back memory-mapped, so that images are never all in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness.contract.errors import EnvironmentFailure, UserError

T = TypeVar("T")

_AHEAD = 2


def read_ahead(batches: Iterable[T]) -> Iterator[T]:
    """The batches in order, the next two read while one is worked on: a network need not wait for the disk."""
    iterator, end = iter(batches), object()
    with ThreadPoolExecutor(1) as reader:  # one: a generator cannot be read from two threads
        take: Any = lambda: reader.submit(next, iterator, end)  # noqa: E731
        waiting = deque(take() for _ in range(_AHEAD))
        while (batch := waiting.popleft().result()) is not end:
            waiting.append(take())
            yield batch


class FeatureFile:
    """A `.npy` file (count, D) float32 that grows by batches; the width is that of the first.

    pool = FeatureFile(folder / "pool.npy", count=len(samples))
    for images_u8 in samples.batches(64):
        pool.append(network(images_u8))
    features = pool.finish()                       # memory-mapped, read-only
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._written = 0
        self._array: np.memmap | None = None

    def append(self, features: np.ndarray) -> None:
        """Write a batch (n, D) after the previous one.

        Raises:
            EnvironmentFailure: a value is not finite, which images of uint8 cannot cause.
        """
        self.put(range(self._written, self._written + len(features)), features)

    def put(self, rows: Sequence[int], features: np.ndarray) -> None:
        """Write a batch (n, D) at the given rows; each row is written once."""
        if not np.isfinite(features).all():
            raise EnvironmentFailure(
                f"{self.path.name}: the network gave NaN or infinity for image {rows[0]} or one soon after; look at "
                "its weights (harness assets verify) and at the device."
            )
        if self._array is None:
            shape = (self.count, features.shape[1])
            self._array = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float32, shape=shape)
        self._array[list(rows)] = features
        self._written += len(features)

    def finish(self) -> np.ndarray:
        """The whole array, on disk; ValueError when batches are missing."""
        if self._array is None or self._written != self.count:
            raise ValueError(f"{self.path} was announced with {self.count} rows; {self._written} were appended")
        self._array.flush()
        self._array = None
        return read_features(self.path)


def read_features(path: Path) -> np.ndarray:
    """Features that a `FeatureFile` wrote, memory-mapped.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as features ({error}); run the same command again with --force."
        ) from error
    return array
