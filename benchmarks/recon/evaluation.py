"""Reconstruction metrics from per-image values and features. Pure: no network, no images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.recon.interface import Options
from harness.contract.errors import BadSamples
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.image import mean_of_batch_means

Array = npt.NDArray[Any]

IMAGE_METRICS = ("psnr", "ssim", "l1")
"""Metrics that are means over images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Everything the metrics are computed from, one row per pair."""

    l1: Array
    psnr: Array
    ssim: Array
    originals: Array
    """(N, 2048) float32 Inception features."""
    reconstructions: Array


def evaluate(measured: Measured, options: Options) -> dict[str, float]:
    """L1 and PSNR as means of batch means (a short last batch weighs as much as a full one, as published), SSIM as the
    plain mean, rFID of the features with float32 means. Raises BadSamples below two pairs."""
    if len(measured.l1) < 2:
        raise BadSamples(f"recon needs at least 2 pairs, there are {len(measured.l1)}; reconstruct more images.")
    fitted = (
        statistics(features, mean_dtype=np.float32) for features in (measured.originals, measured.reconstructions)
    )
    each = {name: getattr(measured, name) for name in IMAGE_METRICS}
    return {"rfid": frechet_distance(*fitted).value, **image_means(each, options.mean_batch)}


def image_means(each: Mapping[str, Array], batch: int) -> dict[str, float]:
    """Name -> mean of the values per image (N,): of batch means for L1 and PSNR, plain for SSIM."""
    return {
        "psnr": mean_of_batch_means(each["psnr"], batch),
        "ssim": float(each["ssim"].mean()),
        "l1": mean_of_batch_means(each["l1"], batch),
    }


def batch_means_interval(values: Array, batch: int, *, num_resamples: int = 1_000) -> tuple[float, float]:
    """95 % percentile bootstrap of `mean_of_batch_means`, around that value.

    Images (N,) are resampled together with the weight that each has in it, 1 / (size of its batch), and their weighted
    mean is taken; for the original images this is the value itself. Where all batches are full, it is the plain mean.
    """
    starts = np.arange(len(values)) // batch * batch
    weights = 1.0 / np.minimum(batch, len(values) - starts)
    generator = np.random.default_rng(0)
    draws = (generator.integers(len(values), size=len(values)) for _ in range(num_resamples))
    low, high = np.quantile([np.average(values[rows], weights=weights[rows]) for rows in draws], [0.025, 0.975])
    return float(low), float(high)
