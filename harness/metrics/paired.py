"""Two models on the same items: the interval of the difference, and whether verdicts tell the models apart.

Pairing takes out what both share, which items are hard, so it shows differences that two intervals side by side hide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MOST_DRAWN = 4_000_000
"""Counts in memory at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stratum:
    """The differences within one group of items, such as a task, summed up by prompt."""

    sums: Array
    """(P,) sum of the differences of each prompt's items."""
    counts: Array
    """(P,) number of its items."""
    weight: float = 1.0
    """Of the group's mean in the metric."""


def difference(strata: Sequence[Stratum]) -> float:
    """The weighted mean over the groups of the mean difference. Raises ValueError without any item."""
    total = sum(stratum.weight for stratum in strata)
    if not strata or not total:
        raise ValueError("there are no pairs to take the difference of")
    return sum(stratum.weight * float(stratum.sums.sum() / stratum.counts.sum()) for stratum in strata) / total


def paired_interval(
    strata: Sequence[Stratum], *, num_resamples: int = 2_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap of `difference`, over prompts within each group, with all items of a prompt together.

    Deterministic: the resamples are drawn from `seed`. None where a group has fewer than two prompts: how much it
    varies is then unknown.
    """
    if not strata or min(len(stratum.sums) for stratum in strata) < 2:
        return None
    generator = np.random.default_rng(seed)
    total = sum(stratum.weight for stratum in strata)
    drawn = sum(stratum.weight / total * _resampled(stratum, num_resamples, generator) for stratum in strata)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return float(low), float(high)


def _resampled(stratum: Stratum, num_resamples: int, generator: np.random.Generator) -> Array:
    """(num_resamples,) mean differences of prompts drawn with replacement."""
    prompts = len(stratum.sums)
    at_once = max(1, _MOST_DRAWN // prompts)
    means = []
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        times = generator.multinomial(prompts, np.full(prompts, 1.0 / prompts), size=size)
        means.append((times @ stratum.sums) / (times @ stratum.counts))
    return np.concatenate(means)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test: whether flips go in both directions alike.

    Args:
        gained: items that only the second model gets right.
        lost: items that only the first one gets right.
    """
    flips = gained + lost
    if not flips:
        return 1.0
    fewer = sum(math.comb(flips, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * fewer / 2**flips)  # whole numbers, which Python divides without overflow


def welch_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """95 % interval of mean(after) - mean(before), for scores of several sample sets of each model (Welch 1947).

    Raises ValueError for fewer than two scores of either.
    """
    if min(len(before), len(after)) < 2:
        raise ValueError("the spread of a model needs at least 2 scores")
    from scipy.special import stdtrit  # not scipy.stats, which takes most of a second to import

    errors = [float(np.var(values, ddof=1)) / len(values) for values in (before, after)]
    middle, error = float(np.mean(after) - np.mean(before)), sum(errors)
    if not error:
        return middle, middle
    freedom = error**2 / sum(e**2 / (len(v) - 1) for e, v in zip(errors, (before, after), strict=True))
    margin = float(stdtrit(freedom, 0.975)) * math.sqrt(error)
    return middle - margin, middle + margin
