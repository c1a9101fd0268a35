"""Frechet distance between two Gaussians fitted to image features: features -> statistics -> distance.

    d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr (S_a S_b)^(1/2)          (Heusel et al. 2017, arXiv:1706.08500)

Published evaluators take the matrix root of the product with SciPy's `sqrtm`, which loses digits when there are fewer
images than features and needs a 1e-6 nudge when the product is singular. Here the last trace is the sum of the singular
values of A^T B with S_a = A A^T and S_b = B B^T: equal in exact arithmetic, and stable for singular covariances.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

Array = npt.NDArray[Any]

ROWS_AT_A_TIME = 4096
"""Rows cast to float64 at once, so that a memory-mapped feature file is never copied whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """A Gaussian fitted to features."""

    mean: Array
    """(D,) float64, or float32 where a published protocol takes the mean in the dtype of the features."""
    covariance: Array
    """(D, D) float64, divisor N - 1."""
    count: int | None = None
    """Images behind the statistics; None when they came from a file that does not say."""

    def __post_init__(self) -> None:
        width = self.mean.shape[0] if self.mean.ndim == 1 else -1
        if self.covariance.shape != (width, width):
            raise ValueError(
                f"a mean (D,) goes with a covariance (D, D), got {self.mean.shape} and {self.covariance.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("statistics hold a NaN or an infinity; look for broken images or features")


@dataclass(frozen=True, kw_only=True)
class FrechetDistance:
    """The distance and its two parts, which sum to it."""

    mean_term: float
    """|mu_a - mu_b|^2."""
    covariance_term: float
    """tr(S_a) + tr(S_b) - 2 tr (S_a S_b)^(1/2)."""

    @property
    def value(self) -> float:
        return self.mean_term + self.covariance_term


class StatisticsAccumulator:
    """Mean and covariance of a stream of feature batches; the result does not depend on the batch size.

    Batches are merged by the update of Chan, Golub and LeVeque (1979), all of it in float64: the centred scatter is
    never the difference of two large numbers, unlike the running sum of squares.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))

    def add(self, features: Array) -> None:
        """Add a batch (n, D) of any float dtype; n may be 0."""
        if features.ndim != 2:
            raise ValueError(f"features must be (n, D), got shape {features.shape}")
        if self.count == 0:
            self._mean = np.zeros(features.shape[1])
            self._scatter = np.zeros((features.shape[1], features.shape[1]))
        elif features.shape[1] != self._mean.shape[0]:
            raise ValueError(f"features have width {features.shape[1]}, earlier batches had {self._mean.shape[0]}")
        if len(features) == 0:
            return
        batch = features.astype(np.float64)
        batch_mean = batch.mean(axis=0)
        batch -= batch_mean
        step = batch_mean - self._mean
        total = self.count + len(batch)
        self._scatter += batch.T @ batch
        self._scatter += np.outer(step, step) * (self.count * len(batch) / total)
        self._mean += step * (len(batch) / total)
        self.count = total

    def statistics(self) -> Statistics:
        """The statistics of everything added so far. Raises ValueError below two images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}")
        return Statistics(mean=self._mean.copy(), covariance=self._scatter / (self.count - 1), count=self.count)


def statistics_of(batches: Iterable[Array]) -> Statistics:
    """Statistics of a stream of (n, D) batches."""
    accumulator = StatisticsAccumulator()
    for batch in batches:
        accumulator.add(batch)
    return accumulator.statistics()


def statistics(features: Array, *, mean_dtype: npt.DTypeLike = np.float64) -> Statistics:
    """Statistics of (N, D) features, which may be memory-mapped.

    `mean_dtype=np.float32` takes the mean as the ADM, COCO and tokenizer evaluators do (`numpy.mean` of float32 rows);
    the covariance is float64 either way.
    """
    chunks = (features[start : start + ROWS_AT_A_TIME] for start in range(0, len(features), ROWS_AT_A_TIME))
    fitted = statistics_of(chunks)
    if np.dtype(mean_dtype) == np.float64:
        return fitted
    mean = np.mean(features, axis=0, dtype=mean_dtype)
    return Statistics(mean=mean, covariance=fitted.covariance, count=fitted.count)


def frechet_distance(a: Statistics, b: Statistics) -> FrechetDistance:
    """Frechet distance between two fitted Gaussians; never negative beyond rounding, symmetric, 0 for equal ones.

    The difference of the means is taken in their own dtype, so float32 means give the float32 evaluators' value.
    Raises ValueError when the feature widths differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the two sets have features of width {a.mean.shape[0]} and {b.mean.shape[0]}")
    difference = a.mean - b.mean
    root_trace = scipy.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance)).sum()
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * root_trace
    return FrechetDistance(mean_term=float(difference @ difference), covariance_term=float(spread))


def _factor(covariance: Array) -> Array:
    """A (D, r) matrix A with A A^T = covariance, r its numerical rank.

    Dropping the null space matters: its eigenvalues are rounding noise of about 1e-16 of the largest, whose square
    roots (1e-8 each, over some 2,000 directions) would show in the trace.
    """
    values, vectors = scipy.linalg.eigh(covariance)
    noise = np.finfo(np.float64).eps * len(values) * max(float(values[-1]), 0.0)
    kept = values > noise
    if not kept.any():
        return np.zeros((len(values), 1))
    return vectors[:, kept] * np.sqrt(values[kept])
