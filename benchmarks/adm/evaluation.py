"""The ADM evaluator's five numbers from Inception features. Pure: no TensorFlow, no images.

The only inputs are the files that the scorer's two feature stages write, so

    evaluate(Features.read(REFERENCE, SAMPLES), Options(**score["options"]))

computes the recorded numbers again, on a machine with NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adm.interface import Options
from harness.contract.errors import BadSamples
from harness.metrics.distances import Distance, half_precision_squared_distances
from harness.metrics.frechet import Statistics, frechet_distances, statistics
from harness.metrics.inception_score import class_probabilities, inception_score
from harness.metrics.prdc import adm_precision_recall, exact_precision_recall
from harness.scoring.features import read_features

Array = npt.NDArray[Any]

POOL_FILE = "pool.npy"
STATISTICS_FILE = "statistics.npz"
RADII_FILE = "radii.npy"
EVALUATOR_MEAN = np.float32
"""The evaluator takes the mean in the dtype of the features; the covariance is float64 regardless."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Everything the metrics are computed from. Arrays may be memory-mapped."""

    sample_pool: Array
    """(N, D) float32, `pool_3` of the samples in request order."""
    sample_spatial: Array
    """(N, S) float32, the first 7 channels of `mixed_6/conv`, flattened (y, x, channel)."""
    reference_pool: Array | None
    """(M, D) float32, of the reference's images; for precision and recall, even where statistics are stored. None: the
    reference holds statistics only."""
    reference_pool_statistics: Statistics
    reference_spatial_statistics: Statistics | None
    """None: the reference has none, although it has others."""
    classifier: Array
    """(D, C) float32, weights of the last layer, which has no bias."""
    reference_radii: Array | None = None
    """(M,) squared radii of the reference's balls, if already known."""

    @classmethod
    def read(cls, reference: Path, samples: Path) -> Features:
        """Read the folders of the two feature stages; the per-image arrays stay on disk until they are needed."""
        with np.load(reference / STATISTICS_FILE, allow_pickle=False) as archive:
            pool = Statistics(mean=archive["mu"], covariance=archive["sigma"])
            has_spatial = "mu_s" in archive
            spatial = Statistics(mean=archive["mu_s"], covariance=archive["sigma_s"]) if has_spatial else None
        radii, images = reference / RADII_FILE, reference / POOL_FILE
        return cls(
            sample_pool=read_features(samples / POOL_FILE),
            sample_spatial=read_features(samples / "spatial.npy"),
            reference_pool=read_features(images) if images.exists() else None,
            reference_pool_statistics=pool,
            reference_spatial_statistics=spatial,
            classifier=read_features(samples / "classifier.npy"),
            reference_radii=np.load(radii, allow_pickle=False) if radii.exists() else None,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The metrics, and for each sample whether it lies in the reference manifold.

    What the reference does not allow is None; against statistics only, that is all but the distances.
    """

    gfid: float
    sfid: float | None
    inception_score: float | None = None
    precision: float | None = None
    recall: float | None = None
    precision_exact: float | None = None
    recall_exact: float | None = None
    in_reference_manifold: Array | None = None
    """(N,) bool; its mean is the precision."""


def write_statistics(folder: Path, pool: Statistics, spatial: Statistics | None) -> None:
    """Write the reference's statistics under the keys that reference archives use."""
    arrays: dict[str, Any] = {"mu": pool.mean, "sigma": pool.covariance}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    np.savez(folder / STATISTICS_FILE, **arrays)


def evaluator_statistics(features: Array) -> Statistics:
    """Statistics as the evaluator takes them: the mean in float32, the covariance in float64."""
    return statistics(features, mean_dtype=EVALUATOR_MEAN)


def evaluate(features: Features, options: Options, distance: Distance | None = None) -> Evaluation:
    """All metrics. `distance` replaces the float16 arithmetic of precision and recall (by TensorFlow's own).

    Raises BadSamples when there are too few images for a covariance or a neighbourhood.
    """
    count, needed = len(features.sample_pool), options.manifold_k + 1
    if count < needed:
        raise BadSamples(f"adm needs at least {needed} images, but the sample set has {count}; draw more with --limit.")
    gfid, sfid = distances(features)
    if features.reference_pool is None:
        return Evaluation(gfid=gfid, sfid=sfid)
    reference, sample, k = features.reference_pool, features.sample_pool, options.manifold_k
    inside = adm_precision_recall(
        reference,
        sample,
        k=k,
        distance=distance or half_precision_squared_distances,
        reference_radii=features.reference_radii,
    )
    exact = exact_precision_recall(reference, sample, k=k) if options.exact else None
    return Evaluation(
        gfid=gfid,
        sfid=sfid,
        inception_score=inception_score(
            class_probabilities(sample, features.classifier), split_size=options.is_split_size
        ),
        precision=inside.precision,
        recall=inside.recall,
        precision_exact=None if exact is None else exact.precision,
        recall_exact=None if exact is None else exact.recall,
        in_reference_manifold=inside.reference_balls > 0,
    )


def distances(features: Features) -> tuple[float, float | None]:
    """gFID, and sFID where the reference has spatial statistics."""
    pairs = [(features.reference_pool_statistics, features.sample_pool)]
    if features.reference_spatial_statistics is not None:
        pairs.append((features.reference_spatial_statistics, features.sample_spatial))
    gfid, *sfid = frechet_distances(pairs, mean_dtype=EVALUATOR_MEAN)
    return gfid.value, sfid[0].value if sfid else None
