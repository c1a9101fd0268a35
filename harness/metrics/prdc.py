"""Improved precision and recall, density and coverage: the share of images in the other set's manifold.

A set's manifold is the union of balls around its points, each reaching to the point's k-th nearest neighbour
(Kynkaanniemi et al. 2019, arXiv:1904.06991; density and coverage: Naeem et al. 2020, arXiv:2002.09797). Two published
conventions are built here from the same two passes over blocks of distances, `neighbour_radii` and `containment`:

* `prdc`: k = 5, Euclidean distance, a ball is open (`<`);
* `adm_precision_recall`: k = 3, squared distance in float16, a ball is closed (`<=`). `exact_precision_recall` is the
  same without the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.distances import (
    Distance,
    euclidean_distances,
    half_precision_squared_distances,
    squared_distances,
)

Array = npt.NDArray[Any]

ADM_BLOCK = 10_000
"""Side of the ADM evaluator's distance blocks; each block chooses its float16 or float32 path on its own."""
SQUARE_BLOCK = 1_000
"""Side of the blocks where the result does not depend on it: large for a fast matrix product, small for the cache."""


@dataclass(frozen=True, kw_only=True)
class PRDC:
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Containment:
    """Which points lie in which balls."""

    reference_balls: Array
    """(N_sample,) int64: reference balls that contain each sample."""
    sample_balls: Array
    """(N_reference,) int64: sample balls that contain each reference."""
    nearest_sample: Array
    """(N_reference,) distance from each reference to the sample nearest to it."""

    @property
    def precision(self) -> float:
        return float(np.mean(self.reference_balls > 0))

    @property
    def recall(self) -> float:
        return float(np.mean(self.sample_balls > 0))


# --- the two passes --------------------------------------------------------------------------------------------------


def neighbour_radii(
    features: Array,
    k: int,
    *,
    distance: Distance = euclidean_distances,
    row_block: int = SQUARE_BLOCK,
    column_block: int = SQUARE_BLOCK,
    symmetric: bool = False,
) -> Array:
    """Distance from each point to its k-th nearest other point: (N, D) -> (N,).

    A point counts as its own nearest neighbour, so this is the (k + 1)-th smallest entry of its row; of two equal
    points, one is the other's neighbour at distance 0. `symmetric` computes each pair once, where the distance is the
    same in both directions. Raises ValueError when there are not k other points.
    """
    _enough(features, k)
    if symmetric and row_block != column_block:
        raise ValueError(f"a symmetric pass needs square blocks, got {row_block} x {column_block}")
    nearest = np.full((len(features), k + 1), np.inf)
    for rows in _blocks(len(features), row_block):
        for columns in _blocks(len(features), column_block):
            if symmetric and columns.start < rows.start:
                continue
            block = distance(features[rows], features[columns])
            _keep_smallest(nearest[rows], block)
            if symmetric and columns.start > rows.start:
                _keep_smallest(nearest[columns], block.T)
    radii: Array = nearest.max(axis=1)
    return radii


def containment(
    reference: Array,
    sample: Array,
    reference_radii: Array,
    sample_radii: Array,
    *,
    distance: Distance = euclidean_distances,
    closed: bool = False,
    row_block: int = SQUARE_BLOCK,
    column_block: int = SQUARE_BLOCK,
) -> Containment:
    """Count the balls around each point of the other set. (N_reference, D), (N_sample, D) and their radii.

    `closed`: a point at exactly the radius is inside. Distances are asked for as (reference rows, sample columns).
    """
    inside = np.less_equal if closed else np.less
    reference_balls = np.zeros(len(sample), dtype=np.int64)
    sample_balls = np.zeros(len(reference), dtype=np.int64)
    nearest_sample = np.full(len(reference), np.inf)
    for rows in _blocks(len(reference), row_block):
        for columns in _blocks(len(sample), column_block):
            block = distance(reference[rows], sample[columns])
            reference_balls[columns] += inside(block, reference_radii[rows, None]).sum(axis=0)
            sample_balls[rows] += inside(block, sample_radii[None, columns]).sum(axis=1)
            nearest_sample[rows] = np.minimum(nearest_sample[rows], block.min(axis=1))
    return Containment(reference_balls=reference_balls, sample_balls=sample_balls, nearest_sample=nearest_sample)


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _keep_smallest(nearest: Array, block: Array) -> None:
    """Update the smallest entries of each row, (R, k + 1) unordered, with those of a block (R, C), in place."""
    count = nearest.shape[1]
    if block.shape[1] > count:
        block = np.partition(block, count - 1, axis=1)[:, :count]
    both = np.concatenate([nearest, block], axis=1)
    nearest[:] = np.partition(both, count - 1, axis=1)[:, :count]


# --- the conventions -------------------------------------------------------------------------------------------------


def prdc(reference: Array, sample: Array, *, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of (N_reference, D) against (N_sample, D) features.

    Raises ValueError when a set has no more than k images or the widths differ.
    """
    return prdc_with_counts(reference, sample, k=k)[0]


def prdc_with_counts(reference: Array, sample: Array, *, k: int = 5) -> tuple[PRDC, Containment]:
    """As `prdc`, and which points lie in which balls; `nearest_sample` is a squared distance here."""
    _same_width(reference, sample)
    reference, sample = _centred(reference, sample)
    # Squared distances have the same order as distances, and save a root per entry.
    reference_radii, sample_radii = (
        neighbour_radii(features, k, distance=squared_distances, symmetric=True) for features in (reference, sample)
    )
    inside = containment(reference, sample, reference_radii, sample_radii, distance=squared_distances)
    manifold = PRDC(
        precision=inside.precision,
        recall=inside.recall,
        density=float(inside.reference_balls.mean() / k),
        coverage=float(np.mean(inside.nearest_sample < reference_radii)),
    )
    return manifold, inside


def adm_radii(
    features: Array, *, k: int = 3, distance: Distance = half_precision_squared_distances, block: int = ADM_BLOCK
) -> Array:
    """Squared radii (N,) of a set in the ADM evaluator's arithmetic; those of a reference can be stored."""
    return neighbour_radii(features, k, distance=distance, row_block=block, column_block=block)


def adm_precision_recall(
    reference: Array,
    sample: Array,
    *,
    k: int = 3,
    distance: Distance = half_precision_squared_distances,
    block: int = ADM_BLOCK,
    reference_radii: Array | None = None,
) -> Containment:
    """Precision and recall as the ADM evaluator reports them, from float32 pool features (N, D) of both sets.

    `reference_radii`: the result of `adm_radii` for the reference with the same settings, if known.
    """
    _same_width(reference, sample)
    if reference_radii is None:
        reference_radii = adm_radii(reference, k=k, distance=distance, block=block)
    sample_radii = adm_radii(sample, k=k, distance=distance, block=block)
    return containment(
        reference,
        sample,
        reference_radii,
        sample_radii,
        distance=distance,
        closed=True,
        row_block=block,
        column_block=block,
    )


def exact_precision_recall(reference: Array, sample: Array, *, k: int = 3) -> Containment:
    """The same metrics without rounding to float16: squared distances in float64, closed balls.

    It differs from `adm_precision_recall` by up to 0.03 on a few thousand images, so compare published numbers only
    with that one. Features may be memory-mapped: they are cast block by block.
    """
    _same_width(reference, sample)
    centre = reference.mean(axis=0, dtype=np.float64)  # distances do not change, and small norms keep their digits

    def distance(rows: Array, columns: Array) -> Array:
        return squared_distances(rows - centre, columns - centre)

    radii = [neighbour_radii(features, k, distance=distance, symmetric=True) for features in (reference, sample)]
    return containment(reference, sample, *radii, distance=distance, closed=True)


def draw_rows(features: Array, count: int, generator: np.random.RandomState) -> Array:
    """`count` rows in drawn order, without replacement; the unchanged set (and no draw) when it is no larger.

    NumPy's legacy generator is what the published GPIC evaluator draws from.
    """
    if len(features) <= count:
        return features
    return features[generator.choice(len(features), count, replace=False)]


def _centred(reference: Array, sample: Array) -> tuple[Array, Array]:
    """Both sets in float64, shifted by the reference's mean: distances do not change, and small norms keep
    |u|^2 - 2 u.v + |v|^2 from cancelling."""
    centre = reference.mean(axis=0, dtype=np.float64)
    return reference - centre, sample - centre


def _enough(features: Array, k: int) -> None:
    if len(features) <= k:
        raise ValueError(f"the distance to neighbour {k} needs at least {k + 1} images, got {len(features)}")


def _same_width(reference: Array, sample: Array) -> None:
    if reference.ndim != 2 or sample.ndim != 2 or reference.shape[1] != sample.shape[1]:
        raise ValueError(f"features must be (N, D) of one width D, got {reference.shape} and {sample.shape}")
