"""Which digit is it? A kernel classifier fitted on real digits in closed form, in seconds and without randomness.

Ridge regression of one-hot targets with a Gaussian kernel on ink maps. On 1,000 held-out digits in two colours each it
is right in about 97 of 100; the scorers of the demo measure that again in every run and report it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SHARPNESS = 4.0
"""The kernel is exp(-SHARPNESS |a - b|^2) of ink maps of length 1."""
RIDGE = 0.1
MAX_TRAINING_IMAGES = 4_000
"""With more, the fit takes four times as long and is no better."""


class DigitClassifier:
    """Fitted on training digits; `predict` gives a class per image."""

    def __init__(self, images_u8: Array, labels: Array) -> None:
        """images_u8 (N, H, W, 3) uint8, labels (N,) from 0; the first MAX_TRAINING_IMAGES are used."""
        from scipy.linalg import solve

        self._training = ink_maps(images_u8[:MAX_TRAINING_IMAGES])
        labels = labels[:MAX_TRAINING_IMAGES]
        targets = 2.0 * np.eye(int(labels.max()) + 1, dtype=np.float32)[labels] - 1.0
        kernel = _kernel(self._training, self._training)
        kernel[np.diag_indices_from(kernel)] += RIDGE
        self._weights: Array = solve(kernel, targets, assume_a="pos", overwrite_a=True)

    def predict(self, images_u8: Array) -> Array:
        """(N, H, W, 3) uint8 -> (N,) int64 classes."""
        return (_kernel(ink_maps(images_u8), self._training) @ self._weights).argmax(axis=1)


def ink_maps(images_u8: Array) -> Array:
    """Where there is ink, whatever its colour: (N, H, W, 3) uint8 on white -> (N, H W) float32 of length 1 (or 0).

    A saturated colour has some channel near 0, so the smallest channel tells ink from paper.
    """
    ink = 255.0 - images_u8.min(axis=3).reshape(len(images_u8), -1).astype(np.float32)
    lengths = np.linalg.norm(ink, axis=1, keepdims=True)
    return np.divide(ink, lengths, out=np.zeros_like(ink), where=lengths > 0)


def _kernel(a: Array, b: Array) -> Array:
    squared_distances = 2.0 - 2.0 * (a @ b.T)
    return np.exp(-SHARPNESS * squared_distances)
