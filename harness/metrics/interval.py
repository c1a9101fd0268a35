"""The uncertainty of a number: of a share, of a mean over images, and over several sample sets.

A Frechet distance has no bootstrap interval here: images drawn with replacement repeat, which raises the distance by
more than it varies. Its spread is measured with sample sets of different seeds (`spread_of`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal."""


def wilson_interval(hits: int, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """95 % confidence interval of a share of `hits` in `count` (Wilson 1927), within [0, 1], valid near 0 and 1 too.

    Raises ValueError unless 0 <= hits <= count and count >= 1.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"a share needs 0 <= hits <= count and count >= 1, got {hits} of {count}")
    share, weight = hits / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    margin = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    # Rounding must not leave the share itself outside, especially at 0 and 1.
    return max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin))


def bootstrap_interval(
    values: Array, *, num_resamples: int = 1_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean of per-image values (N,), over images; None below two images.

    Deterministic: the resamples are drawn from `seed`. Only for metrics that are a mean over images.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return None
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(num_resamples)]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One metric over several sample sets of the same model."""

    mean: float
    std: float
    """Sample standard deviation (divisor n - 1) of one score."""
    n: int
    interval: tuple[float, float]
    """95 % interval of the mean, by Student's t."""

    @property
    def next_within(self) -> float:
        """How far from the mean one more score lies with 95 % probability: it varies like the others, and so does the
        mean."""
        return (self.interval[1] - self.mean) * math.sqrt(self.n + 1)


def spread_of(values: Sequence[float]) -> Spread:
    """How much a score varies from seed to seed. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError(f"a spread needs at least 2 scores, got {len(values)}")
    from scipy.special import stdtrit  # not scipy.stats, which takes most of a second to import

    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    margin = float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values))
    return Spread(mean=mean, std=std, n=len(values), interval=(mean - margin, mean + margin))
