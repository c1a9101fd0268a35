"""Kernel distance: squared maximum mean discrepancy with a cubic polynomial kernel, over random subsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def polynomial_mmd(
    reference: Array,
    sample: Array,
    *,
    generator: np.random.RandomState,
    num_subsets: int = 100,
    subset_size: int = 1_000,
) -> float:
    """Mean squared MMD over subsets drawn without replacement, maybe negative; (N_reference, D), (N_sample, D).

    The kernel is (x.y / D + 1)^3. As in dgm-eval, the cross term includes its diagonal (divisor m^2, where an unbiased
    estimate of unpaired sets would too), the others do not; per subset the reference is drawn first. The legacy
    generator makes the draws of the published evaluator, which leaves it unseeded: seed it and record the seed.
    """
    if reference.shape[1] != sample.shape[1]:
        raise ValueError(f"the two sets have features of width {reference.shape[1]} and {sample.shape[1]}")
    size = min(subset_size, len(reference), len(sample))
    if size < 2:
        raise ValueError(f"a kernel distance needs at least 2 images on both sides, got {size}")
    values = []
    for _ in range(num_subsets):
        x = reference[generator.choice(len(reference), size, replace=False)]
        y = sample[generator.choice(len(sample), size, replace=False)]
        values.append(mmd_of(x, y))
    return float(np.mean(values))


def mmd_of(x: Array, y: Array) -> float:
    """Squared MMD of two equally large sets (m, D), the whole of each."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    m = len(x)
    kernel_xx, kernel_yy, kernel_xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = kernel_xx.sum() - np.trace(kernel_xx) + kernel_yy.sum() - np.trace(kernel_yy)
    return float(within / (m * (m - 1)) - 2.0 * kernel_xy.sum() / m**2)


def _kernel(x: Array, y: Array) -> Array:
    return (x @ y.T / x.shape[1] + 1.0) ** 3
