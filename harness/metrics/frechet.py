"""Frechet distance between two Gaussians fitted to image features: features -> statistics -> distance.

    d = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr (S_a S_b)^(1/2)          (Heusel et al. 2017, arXiv:1706.08500)

Published evaluators take the matrix root of the product with SciPy's `sqrtm`, which loses digits when there are fewer
images than features and needs a 1e-6 nudge when the product is singular. With S_a = A A^T and S_b = B B^T the last
trace is the sum of the singular values of A^T B, or of the roots of the eigenvalues of the symmetric B^T S_a B: equal
in exact arithmetic, many times faster, and in the first form stable for singular covariances. `root_trace` chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.cores import usable_cores

Array = npt.NDArray[Any]

ROUNDING = 1e-12
"""Share of what a distance is a difference of (squared means and traces) that rounding leaves of a zero: float32 means
leave up to 4e-13, float64 ones and the traces 1e-15."""
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
    """Images behind the statistics; None when they came from a file that does not state it."""

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
        self._rows: Array = np.empty((0, 0))
        """Reused from batch to batch: allocating memory costs more than the work in it."""

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
        count, total = len(features), self.count + len(features)
        batch_mean = features.mean(axis=0, dtype=np.float64)
        step = batch_mean - self._mean
        # The change of the mean adds one more row to the scatter: no further pass over a (D, D) matrix.
        if len(self._rows) <= count:
            self._rows = np.empty((count + 1, features.shape[1]))
        rows = self._rows[: count + 1]
        np.subtract(features, batch_mean, out=rows[:count])
        np.multiply(step, np.sqrt(self.count * count / total), out=rows[count])
        self._scatter += rows.T @ rows
        self._mean += step * (count / total)
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
    """Frechet distance between two fitted Gaussians; symmetric, and exactly 0 for equal ones.

    The difference of the means is taken in their own dtype, so float32 means give the float32 evaluators' value. A part
    that is zero up to rounding is 0.
    Raises ValueError when the feature widths differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the two sets have features of width {a.mean.shape[0]} and {b.mean.shape[0]}")
    difference = a.mean - b.mean
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    spread = traces - 2.0 * root_trace(a.covariance, b.covariance)
    lengths = sum(float(np.square(one.mean, dtype=np.float64).sum()) for one in (a, b))
    zero = ROUNDING * (traces + lengths)
    terms = {"mean_term": float(difference @ difference), "covariance_term": float(spread)}
    return FrechetDistance(**{name: 0.0 if abs(value) <= zero else value for name, value in terms.items()})


def frechet_distances(
    pairs: Sequence[tuple[Statistics | Array, Statistics | Array]], *, mean_dtype: npt.DTypeLike = np.float64
) -> list[FrechetDistance]:
    """The distance of each pair of statistics, or of features (N, D), from which they are computed as by `statistics`.

    With no more cores than pairs, each pair has its own core: half the work of finding eigenvalues is a few thousand
    products with one vector, and the threads of BLAS wait for one another at each. With more cores the pairs are
    computed one after another, each on all cores.
    """
    from threadpoolctl import threadpool_limits  # needed only here: not in every scorer's environment

    def distance(pair: tuple[Statistics | Array, Statistics | Array]) -> FrechetDistance:
        a, b = (given if isinstance(given, Statistics) else statistics(given, mean_dtype=mean_dtype) for given in pair)
        return frechet_distance(a, b)

    cores = usable_cores()
    if cores > len(pairs):
        return [distance(pair) for pair in pairs]
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        return list(pool.map(distance, pairs))


def root_trace(covariance_a: Array, covariance_b: Array) -> float:
    """tr (S_a S_b)^(1/2) of two covariances (D, D)."""
    from scipy.linalg.lapack import dsygst

    factor_b = _cholesky(covariance_b)
    if factor_b is None:
        factor_b = _factor(covariance_b)
    else:
        # B^T S_a B, of which half is computed. LAPACK expects columns; a symmetric matrix is its own transpose.
        between, _ = dsygst(covariance_a.T, np.asfortranarray(factor_b), itype=2, lower=1)
        values = np.linalg.eigvalsh(between, UPLO="L")
        if _is_accurate(values):
            return float(np.sqrt(values).sum())
    factor_a = _cholesky(covariance_a)
    if factor_a is None:
        factor_a = _factor(covariance_a)
    return float(np.linalg.svd(factor_a.T @ factor_b, compute_uv=False).sum())


def _cholesky(covariance: Array) -> Array | None:
    """The lower triangular factor, or None where the covariance is singular to rounding."""
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    noise = np.finfo(np.float64).eps * len(covariance) * float(covariance.diagonal().max())
    return factor if float(factor.diagonal().min()) ** 2 > noise else None


def _is_accurate(values: Array) -> bool:
    """Whether the sum of the roots of these eigenvalues (ascending) is accurate to eight digits in the worst case.

    Each has an error of at most a few eps times the largest; in its root, that error is divided by twice the root. The
    errors differ in sign: where the bound is 3e-9 of the sum, the actual error of the sum is 1e-15.
    """
    if values[0] <= 0.0:
        return False
    error = np.finfo(np.float64).eps * values[-1] * float((0.5 / np.sqrt(values)).sum())
    return error < 1e-8 * float(np.sqrt(values).sum())


def _factor(covariance: Array) -> Array:
    """A (D, r) matrix A with A A^T = covariance, r its numerical rank.

    Dropping the null space matters: its eigenvalues are rounding noise of about 1e-16 of the largest, whose square
    roots (1e-8 each, over some 2,000 directions) would show in the trace.
    """
    values, vectors = np.linalg.eigh(covariance)
    noise = np.finfo(np.float64).eps * len(values) * max(float(values[-1]), 0.0)
    kept = values > noise
    if not kept.any():
        return np.zeros((len(values), 1))
    factor: Array = vectors[:, kept] * np.sqrt(values[kept])
    return factor
