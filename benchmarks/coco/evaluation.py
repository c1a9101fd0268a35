"""COCO FID from features. Pure: no network, no images, no parquet."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.contract.errors import BadSamples
from harness.metrics.frechet import frechet_distance, statistics

Array = npt.NDArray[Any]


def fid(reference: Array, sample: Array) -> float:
    """Frechet distance of (N, 2048) float32 features; the means are taken in float32, as pytorch-fid does.

    Raises BadSamples below two images.
    """
    if len(sample) < 2:
        raise BadSamples(f"coco needs at least 2 images, but the sample set has {len(sample)}; draw more.")
    fitted = (statistics(features, mean_dtype=np.float32) for features in (reference, sample))
    return frechet_distance(*fitted).value
