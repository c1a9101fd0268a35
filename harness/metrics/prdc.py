"""Improved precision and recall, density and coverage: which images lie in the other set's manifold.

A set's manifold is the union of balls around its points, each reaching to the point's k-th nearest neighbour
(Kynkaanniemi et al. 2019, arXiv:1904.06991; density and coverage: Naeem et al. 2020, arXiv:2002.09797). Two published
conventions are built here from the same two passes over blocks of distances, `neighbour_radii` and `containment`:

* `prdc`: k = 5, Euclidean distance, a ball is open (`<`);
* `adm_precision_recall`: k = 3, squared distance in float16, a ball is closed (`<=`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Distance = Callable[[Array, Array], Array]
"""(R, D) and (C, D) features -> (R, C) distances."""

ADM_BLOCK = 10_000
"""Side of the ADM evaluator's distance blocks; each block chooses its float16 or float32 path on its own."""
STRIP_ROWS = 1_024
"""Rows computed at once inside a float16 block, which bounds the float32 temporaries."""


@dataclass(frozen=True, kw_only=True)
class PRDC:
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Containment:
    """Who lies in whose balls."""

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


# --- distances -------------------------------------------------------------------------------------------------------


def squared_distances(rows: Array, columns: Array) -> Array:
    """max(|u|^2 - 2 u.v + |v|^2, 0) in float64; (R, D), (C, D) -> (R, C)."""
    return _expanded_squares(rows.astype(np.float64), columns.astype(np.float64))


def euclidean_distances(rows: Array, columns: Array) -> Array:
    """Euclidean distances in float64; (R, D), (C, D) -> (R, C)."""
    return np.sqrt(squared_distances(rows, columns))


def half_precision_squared_distances(rows: Array, columns: Array) -> Array:
    """The ADM evaluator's squared distances: every operation rounded to float16; (R, D), (C, D) -> (R, C) float32.

    Sums of products are formed in float32 and rounded once, as a GPU's half-precision matrix product does. If any value
    of the block is not finite (a square beyond 65,504), the whole block is computed again in float32 from the features
    as given, not from their float16 roundings.
    """
    block = np.empty((len(rows), len(columns)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        rows_half, columns_half = _to_half(rows), _to_half(columns)
        column_norms = _to_half(_to_half(np.square(columns_half)).sum(axis=1))
        row_norms = _to_half(_to_half(np.square(rows_half)).sum(axis=1))
        for start in range(0, len(rows), STRIP_ROWS):
            strip = slice(start, start + STRIP_ROWS)
            twice = _to_half(2.0 * _to_half(rows_half[strip] @ columns_half.T))
            # The order of the roundings is the reference's, (|u|^2 - 2 u.v) + |v|^2; it makes the block asymmetric.
            distance = _to_half(_to_half(row_norms[strip, None] - twice) + column_norms[None, :])
            # The maximum comes before the test: -inf becomes 0 and is not a reason to fall back; NaN stays.
            np.maximum(distance, 0.0, out=block[strip])
    if np.isfinite(block).all():
        return block
    return _expanded_squares(rows.astype(np.float32), columns.astype(np.float32))


def _to_half(values: Array) -> Array:
    """Round to float16, kept in float32: float32 arithmetic then rounds once more, which is float16 arithmetic."""
    return values.astype(np.float16).astype(np.float32)


def _expanded_squares(rows: Array, columns: Array) -> Array:
    squares = np.square(rows).sum(axis=1)[:, None] - 2.0 * (rows @ columns.T) + np.square(columns).sum(axis=1)[None, :]
    return np.maximum(squares, 0.0, out=squares)


# --- the two passes --------------------------------------------------------------------------------------------------


def neighbour_radii(
    features: Array,
    k: int,
    *,
    distance: Distance = euclidean_distances,
    row_block: int = 1_000,
    column_block: int = 10_000,
) -> Array:
    """Distance from each point to its k-th nearest other point: (N, D) -> (N,).

    A point counts as its own nearest neighbour, so this is the (k + 1)-th smallest entry of its row; of two equal
    points, one is the other's neighbour at distance 0. Raises ValueError when there are not k other points.
    """
    if len(features) <= k:
        raise ValueError(f"the distance to neighbour {k} needs at least {k + 1} images, got {len(features)}")
    radii = np.empty(len(features))
    for rows in _blocks(len(features), row_block):
        nearest = np.empty((rows.stop - rows.start, 0))
        for columns in _blocks(len(features), column_block):
            block = distance(features[rows], features[columns])
            nearest = _smallest(np.concatenate([nearest, _smallest(block, k + 1)], axis=1), k + 1)
        radii[rows] = nearest.max(axis=1)
    return radii


def containment(
    reference: Array,
    sample: Array,
    reference_radii: Array,
    sample_radii: Array,
    *,
    distance: Distance = euclidean_distances,
    closed: bool = False,
    row_block: int = 1_000,
    column_block: int = 10_000,
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


def _smallest(block: Array, count: int) -> Array:
    """The `count` smallest entries of each row, unordered; the block itself when it is no wider."""
    if block.shape[1] <= count:
        return block
    return np.partition(block, count - 1, axis=1)[:, :count]


# --- the two conventions ---------------------------------------------------------------------------------------------


def prdc(reference: Array, sample: Array, *, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of (N_reference, D) against (N_sample, D) features.

    Raises ValueError when a set has no more than k images or the widths differ.
    """
    _same_width(reference, sample)
    # Distances do not change under a shift, and small norms keep |u|^2 - 2 u.v + |v|^2 from cancelling.
    centre = reference.mean(axis=0, dtype=np.float64)
    reference, sample = reference - centre, sample - centre
    reference_radii, sample_radii = neighbour_radii(reference, k), neighbour_radii(sample, k)
    inside = containment(reference, sample, reference_radii, sample_radii)
    return PRDC(
        precision=inside.precision,
        recall=inside.recall,
        density=float(inside.reference_balls.mean() / k),
        coverage=float(np.mean(inside.nearest_sample < reference_radii)),
    )


def adm_precision_recall(
    reference: Array,
    sample: Array,
    *,
    k: int = 3,
    distance: Distance = half_precision_squared_distances,
    row_block: int = ADM_BLOCK,
    column_block: int = ADM_BLOCK,
) -> Containment:
    """Precision and recall as the ADM evaluator reports them, from float32 pool features (N, D) of both sets.

    `distance=squared_distances` gives the exact values instead; they differ by up to 0.03 on a few thousand images,
    so a published number is comparable only with the float16 ones.
    """
    _same_width(reference, sample)
    reference_radii, sample_radii = (
        neighbour_radii(features, k, distance=distance, row_block=row_block, column_block=column_block)
        for features in (reference, sample)
    )
    return containment(
        reference,
        sample,
        reference_radii,
        sample_radii,
        distance=distance,
        closed=True,
        row_block=row_block,
        column_block=column_block,
    )


def draw_rows(features: Array, count: int, generator: np.random.RandomState) -> Array:
    """`count` rows in drawn order, without replacement; the set as it is (and no draw) when it is no larger.

    NumPy's legacy generator is what the published GPIC evaluator draws from.
    """
    if len(features) <= count:
        return features
    return features[generator.choice(len(features), count, replace=False)]


def _same_width(reference: Array, sample: Array) -> None:
    if reference.ndim != 2 or sample.ndim != 2 or reference.shape[1] != sample.shape[1]:
        raise ValueError(f"features must be (N, D) of one width D, got {reference.shape} and {sample.shape}")
