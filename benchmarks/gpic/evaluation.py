"""FD, MMD and PRDC of GPIC from DINOv2 features. Pure: no network, no images.

The order of the random draws is the published evaluator's (subsets of the MMD first, then PRDC's), which leaves its
generator unseeded; here it is seeded, and the record has the seed among its options.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpic.interface import Options
from harness.contract.errors import BadSamples, MissingAsset
from harness.contract.npz import npz_names, read_npz_array
from harness.metrics.frechet import FrechetDistance, Statistics, frechet_distance, statistics
from harness.metrics.mmd import polynomial_mmd
from harness.metrics.prdc import PRDC, Containment, draw_rows, prdc_with_counts

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """The published statistics of GPIC's test set."""

    statistics: Statistics
    embeddings: Array | None
    """(M, D) float32, for PRDC and MMD; None where the file has none."""

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read `test_stats.npz`: `dino_mu` (D,), `dino_sigma` (D, D), and perhaps `dino_embeddings` (M, D).

        Raises MissingAsset when it is not that file.
        """
        try:
            fitted = Statistics(
                mean=read_npz_array(path, "dino_mu", error=MissingAsset),
                covariance=read_npz_array(path, "dino_sigma", error=MissingAsset),
            )
        except ValueError as error:
            raise MissingAsset(f"{path}: {error}; fetch it again: harness assets pull gpic-reference") from error
        if "dino_embeddings" not in npz_names(path, error=MissingAsset):
            return cls(statistics=fitted, embeddings=None)
        embeddings = read_npz_array(path, "dino_embeddings", error=MissingAsset)
        if embeddings.ndim != 2 or embeddings.shape[1:] != fitted.mean.shape or not np.isfinite(embeddings).all():
            raise MissingAsset(
                f"{path}: dino_embeddings {embeddings.shape} are not finite vectors of {len(fitted.mean)} values; "
                "fetch it again: harness assets pull gpic-reference"
            )
        return cls(statistics=fitted, embeddings=embeddings)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The metrics; what needs embeddings is None without."""

    fd: FrechetDistance
    mmd: float | None = None
    prdc: PRDC | None = None
    inside: Containment | None = None
    """The counts behind `prdc`, of the images that PRDC used."""


def evaluate(sample: Array, reference: Reference, options: Options) -> Evaluation:
    """All metrics of (N, D) sample features.

    Raises BadSamples when there are too few images or the features are of another network.
    """
    width = len(reference.statistics.mean)
    if sample.ndim != 2 or sample.shape[1] != width:
        raise BadSamples(
            f"the samples' features are {sample.shape[1:]} wide, the reference's {width}; they must be of one network "
            "(gpic: DINOv2 ViT-L/14, 1,024 values)."
        )
    if len(sample) <= options.prdc_k:
        raise BadSamples(
            f"gpic needs more than {options.prdc_k} images, but the sample set has {len(sample)}; draw more."
        )
    fd = frechet_distance(reference.statistics, statistics(sample))
    if reference.embeddings is None:
        return Evaluation(fd=fd)
    generator = np.random.RandomState(options.seed)
    embeddings, sample = reference.embeddings, np.asarray(sample)
    mmd = polynomial_mmd(
        embeddings,
        sample,
        generator=generator,
        num_subsets=options.mmd_subsets,
        subset_size=options.mmd_subset_size,
    )
    # The same size for both sets: a larger, denser set would have smaller balls.
    size = min(options.prdc_cap, len(embeddings), len(sample))
    drawn = [draw_rows(features, size, generator) for features in (embeddings, sample)]
    manifold, inside = prdc_with_counts(*drawn, k=options.prdc_k)
    return Evaluation(fd=fd, mmd=mmd, prdc=manifold, inside=inside)
