"""What training needs of a data set: any of its samples, by index. Batches and their order are defined elsewhere."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Sample(NamedTuple):
    """One training sample."""

    image_u8: npt.NDArray[np.uint8]
    """(3, H, W) uint8, resized and cropped."""
    label: int | None = None
    """Class; None where the data set has none."""
    caption: str | None = None
    """Text; None where the data set has none."""


class ImageSource(Protocol):
    """A data set that can be asked for any of its samples."""

    def __len__(self) -> int: ...

    def item(self, index: int, rng: np.random.Generator) -> Sample:
        """Sample `index`; `rng` decides the augmentation and nothing else does.

        Raises BadSample when it cannot be used.
        """


class BadSample(Exception):
    """A single sample cannot be used; the message says which and why. The run continues without it, up to a limit."""
