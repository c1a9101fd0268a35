"""Which points lie in the other set's balls, in float32 arithmetic, without computing most of the distances.

Let Q be an orthonormal basis of a few directions, h = Qx the coordinates of a feature vector x in it, and t the norm of
what Q leaves of x. By Cauchy-Schwarz x.y <= h_x.h_y + t_x t_y, so

    |x|^2 + |y|^2 - 2 (h_x.h_y + t_x t_y)  <=  |x - y|^2

for every Q, and nearly equal where Q holds most of the variance. The left side is a product of a fraction of the width.
Only the pairs that it leaves are measured, one by one and compiled (numba), as the sum of (x - y)^2. So nothing is
approximated: the answers are those of all distances, up to float32 rounding.

Strips of rows are shared out among the cores. Their order decides how much work is saved, and no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import threadpool_limits

from harness.metrics.cores import usable_cores

Array = npt.NDArray[Any]

DIRECTIONS = 288
"""Directions of the bound, at most: with more, its product costs what fewer measured pairs save."""
COARSE_DIRECTIONS = 32
"""The first of them, which suffice to guess which points are near."""
GUESSES = 4
"""Points measured in a guess for each neighbour sought."""
BASIS_ROWS = 2_000
"""Rows of each set that the directions are fitted to, at most,"""
BASIS_STEP = 3
"""and no more than every so many-th: of a small set, all distances would take no longer than the fit."""
BASIS_PASSES = 2
"""Products with the scatter matrix that turn random directions into those of most variance."""
GUESS_STEP = 4
"""Every how many-th point stands for its set in a guess,"""
GUESS_ROWS = 64
"""which is made for so many points at once."""
TILE = 512
"""Points of either set whose bounds are one product: these and what they are computed from stay in the cache."""
DENSE = 0.3
"""Share of a tile's pairs left by the bound from which a product of all features, a tighter bound, is faster."""
PROBE = 16
"""Every how many-th column tells whether a tile is dense."""
SLACK = 2.0**-12
"""By how much of |x|^2 + |y|^2 a bound is lowered, so that rounding loses no pair.

A float32 sum of m products is off by at most m 2^-24 of their absolute sum: less than SLACK for |x|^2 of 4,096 features
and for the product of the bound. The coordinates h are off by less than 1e-6 |x| (7e-7 at 2,048 features), a
two-hundredth of it.
"""
MOST_THREADS = 8


def _compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code that runs without the interpreter's lock, kept on disk where that can be written.

    Sums may be reordered, which vector units need; infinities stay what they are.
    """
    compile_: Any = partial(numba.njit, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
    try:
        return compile_(function, cache=True)
    except RuntimeError:  # neither beside this file nor in a home: each process compiles again, for two seconds
        return compile_(function)


class _Points(NamedTuple):
    """A set of N feature vectors, and what bounds on their distances need: a tuple, as compiled functions take one."""

    features: Array
    """(N, D) float32."""
    middle: Array
    """(D,) what is taken off them before products."""
    squares: Array
    """(N,) |x|^2, lowered by SLACK."""
    lifted: Array
    """(N, d + 3) columns h, t, |x|^2, 1: factors of the bounds."""
    reach: Array
    """(N,) squared radius of the point's ball; while that is sought, the most that it can be."""
    open: Array
    """(N,) bool: whether no ball of the other set is known yet that holds the point."""


def exact_memberships(reference: Array, sample: Array, k: int) -> tuple[Array, Array]:
    """Whether each sample lies in a ball of the reference, (N_sample,) bool, and the other way, (N_reference,) bool.

    Features are (N, D), used as float32. A ball is closed and reaches to the k-th nearest other point of its set, of
    which there must be k.
    """
    reference, sample = (np.ascontiguousarray(features, dtype=np.float32) for features in (reference, sample))
    rows = _some_rows(reference, sample)
    middle = rows.mean(axis=0)  # around it small norms keep |x|^2 - 2 x.y + |y|^2 from cancelling
    rows -= middle
    scatter = rows.T @ rows
    # The rest is shared out here; BLAS's own threads would wait for each other at every small product.
    with threadpool_limits(limits=1, user_api="blas"):
        basis = _principal_directions(scatter, len(rows))
        references, samples = (_points(features, middle, basis) for features in (reference, sample))
        for points in (references, samples):
            _find_radii(points, k)
        _find_members(samples, references)
    return ~samples.open, ~references.open


def _find_radii(points: _Points, k: int) -> None:
    """Set the reach of each point to its squared distance from the k-th nearest other point."""
    _in_threads(partial(_guess_reach, points, k), _strips(points, GUESS_ROWS))
    nearest = np.repeat(points.reach[:, None], k, axis=1)
    lock = Lock()

    def keep(rows: Array, columns: Array, distances: Array) -> None:
        with lock:
            _keep_nearest(nearest, points.reach, rows, distances)
            _keep_nearest(nearest, points.reach, columns, distances)

    _in_threads(partial(_for_near_pairs, keep, points, points), _strips(points))


def _find_members(points: _Points, others: _Points) -> None:
    """Close each point of both sets that lies in a closed ball around some point of the other."""

    def close(rows: Array, columns: Array, distances: Array) -> None:
        points.open[rows[distances <= others.reach[columns]]] = False
        others.open[columns[distances <= points.reach[rows]]] = False

    _in_threads(partial(_for_near_pairs, close, points, others), _strips(points))


def _guess_reach(points: _Points, k: int, rows: slice) -> None:
    """Set the reach of each row to at least its radius, and mostly no more: the k-th nearest among likely points."""
    coarse = points.lifted[:, :-3][:, :COARSE_DIRECTIONS]
    scores = points.squares[::GUESS_STEP] - 2.0 * coarse[rows] @ coarse[::GUESS_STEP].T
    _reach_likeliest(scores, points.features, rows.start, k, points.reach)


def _for_near_pairs(
    visit: Callable[[Array, Array, Array], None], points: _Points, others: _Points, rows: slice
) -> None:
    """Visit the pairs of rows and others of which one lies in the other's reach, and is open.

    visit takes those of a tile, (P,) each: indices of points, indices of others, and squared distances. Where both sets
    are one, a pair is met by its lower row alone, and no point meets itself.
    """
    once = points is others
    for columns in _strips(others):
        if once and columns.stop <= rows.start:
            continue
        corner = rows.start, columns.start
        some = _bounds(points.lifted[rows], others.lifted[columns][::PROBE])
        if _share_near(some, *corner, points, others) > DENSE:
            bounds = _tight_bounds(points, rows, others, columns)
        else:
            bounds = _bounds(points.lifted[rows], others.lifted[columns])
        visit(*_near_pairs(bounds, *corner, points, others, once))


def _strips(points: _Points, size: int = TILE) -> list[slice]:
    count = len(points.features)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _in_threads(task: Callable[[slice], None], strips: list[slice]) -> None:
    """Run the task on all cores: NumPy lets other threads run in its products, and so do compiled functions."""
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS)) as pool:
        for _ in pool.map(task, strips):
            pass  # an error of a strip is raised here


# --- products --------------------------------------------------------------------------------------------------------


def _points(features: Array, middle: Array, basis: Array) -> _Points:
    count = len(features)
    points = _Points(
        features=features,
        middle=middle,
        squares=np.empty(count, dtype=np.float32),
        lifted=np.empty((count, basis.shape[1] + 3), dtype=np.float32),
        reach=np.empty(count, dtype=np.float32),
        open=np.ones(count, dtype=bool),
    )

    def fill(rows: slice) -> None:
        centred = features[rows] - middle
        coordinates = centred @ basis
        squares = np.einsum("nd,nd->n", centred, centred)
        # SLACK widens t^2, in which an error may be large beside a small t, and lowers |x|^2.
        rest = np.maximum(squares - np.einsum("nd,nd->n", coordinates, coordinates), 0.0) + SLACK * squares
        points.squares[rows] = (1.0 - SLACK) * squares
        points.lifted[rows] = np.column_stack([coordinates, np.sqrt(rest), points.squares[rows], np.ones_like(squares)])

    _in_threads(fill, _strips(points))
    return points


def _bounds(rows: Array, columns: Array) -> Array:
    """Lower bounds (R, C) of squared distances from lifted rows (R, d + 3) and columns (C, d + 3): one product.

    (-2h, -2t, 1, |x|^2) . (h', t', |y|^2, 1) = |x|^2 + |y|^2 - 2 (h.h' + t t'), and t t' >= what is left of x.y.
    """
    left = -2.0 * rows
    left[:, -2], left[:, -1] = 1.0, rows[:, -2]
    bounds: Array = left @ columns.T
    return bounds


def _tight_bounds(points: _Points, rows: slice, others: _Points, columns: slice) -> Array:
    """Lower bounds (R, C) of squared distances, below them by no more than rounding and its SLACK."""
    bounds: Array = (points.features[rows] - points.middle) @ (others.features[columns] - others.middle).T
    bounds *= -2.0
    bounds += points.squares[rows, None]
    bounds += others.squares[columns]
    return bounds


def _some_rows(reference: Array, sample: Array) -> Array:
    """Rows of both sets that directions are fitted to, (R, D)."""
    steps = (max(BASIS_STEP, -(-len(features) // BASIS_ROWS)) for features in (reference, sample))
    return np.concatenate([features[::step] for features, step in zip((reference, sample), steps, strict=True)])


def _principal_directions(scatter: Array, rows: int) -> Array:
    """(D, d) float32, orthonormal, of falling variance: randomized subspace iteration (Halko, Martinsson and Tropp
    2011, arXiv:0909.4061) on the scatter matrix (D, D) of so many rows.

    Any basis gives the same answers; a good one gives them sooner. Few rows or narrow features get fewer directions, or
    finding them would take longer than all distances do.
    """
    count = max(1, min(DIRECTIONS, len(scatter) // 4, rows // 4))
    basis = np.random.default_rng(0).standard_normal((len(scatter), count), dtype=np.float32)
    for _ in range(BASIS_PASSES):
        basis = scipy.linalg.qr(scatter @ basis, mode="economic", overwrite_a=True, check_finite=False)[0]
    directions: Array = np.linalg.eigh(basis.T @ (scatter @ basis))[1]
    return basis @ directions[:, ::-1]


# --- pair by pair ----------------------------------------------------------------------------------------------------


@_compiled
def _reach_likeliest(scores, features, first, k, reach):
    """Write, for rows from `first` on, the k-th smallest squared distance to points of low scores.

    scores: (R, C) for every GUESS_STEP-th point. Each row picks the lowest of every so many, itself left out. With
    fewer than k picks its reach is infinite.
    """
    picks = GUESSES * k
    lowest, picked = np.empty(picks, np.float32), np.empty(picks, np.int64)
    nearest = np.empty(k, np.float32)
    for row in range(scores.shape[0]):
        lowest[:], picked[:], nearest[:] = np.inf, -1, np.inf
        for start in range(0, scores.shape[1], picks):
            for pick in range(min(picks, scores.shape[1] - start)):
                score, point = scores[row, start + pick], GUESS_STEP * (start + pick)
                if score < lowest[pick] and point != first + row:
                    lowest[pick], picked[pick] = score, point
        for point in picked[picked >= 0]:
            _insert(nearest, _squared_distance(features[first + row], features[point]))
        reach[first + row] = nearest[-1]


@_compiled
def _share_near(bounds, row, column, points, others):
    """Share of the pairs that their bounds leave, of all rows and every PROBE-th column of a tile at (row, column)."""
    near = 0
    for i in range(bounds.shape[0]):
        for j in range(bounds.shape[1]):
            near += bounds[i, j] <= _limit(points, row + i, others, column + PROBE * j)
    return near / bounds.size


@_compiled
def _near_pairs(bounds, row, column, points, others, once):
    """Indices (P,) and (P,) and squared distances (P,) of the pairs of a tile (R, C) at (row, column) within the limit.

    once: only pairs of a lower and a higher index.
    """
    rows, columns = np.empty(bounds.size, np.int64), np.empty(bounds.size, np.int64)
    distances = np.empty(bounds.size, np.float32)
    found = 0
    for i in range(row, row + bounds.shape[0]):
        for j in range(max(column, i + 1) if once else column, column + bounds.shape[1]):
            limit = _limit(points, i, others, j)
            if bounds[i - row, j - column] <= limit:
                distance = _squared_distance(points.features[i], others.features[j])
                if distance <= limit:
                    rows[found], columns[found], distances[found] = i, j, distance
                    found += 1
    return rows[:found], columns[:found], distances[:found]


@_compiled
def _limit(points, i, others, j):
    """The largest squared distance at which an open point of the two lies in the other's reach; negative for none."""
    limit = others.reach[j] if points.open[i] else np.float32(-1.0)
    return max(limit, points.reach[i]) if others.open[j] else limit


@_compiled
def _squared_distance(one, other):
    total = np.float32(0.0)
    for axis in range(len(one)):
        difference = one[axis] - other[axis]
        total += difference * difference
    return total


@_compiled
def _keep_nearest(nearest, reach, owners, distances):
    """Sort distances (P,) from the owners (P,) into their nearest (N, k), whose last is their reach (N,)."""
    for pair in range(len(owners)):
        owner = owners[pair]
        _insert(nearest[owner], distances[pair])
        reach[owner] = nearest[owner, -1]


@_compiled
def _insert(nearest, distance):
    """Sort a distance into the k smallest, (k,) rising, in place of the largest."""
    place = len(nearest) - 1
    if distance >= nearest[place]:
        return
    while place > 0 and nearest[place - 1] > distance:
        nearest[place] = nearest[place - 1]
        place -= 1
    nearest[place] = distance
