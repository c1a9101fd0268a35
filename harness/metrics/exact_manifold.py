"""Which points lie in the other set's balls, in float32 arithmetic, without computing most of the distances.

Let Q be an orthonormal basis of a few directions, h = Qx the coordinates of a feature vector x in it, and t the norm of
what Q leaves of x. By Cauchy-Schwarz x.y <= h_x.h_y + t_x t_y, so

    |x|^2 + |y|^2 - 2 (h_x.h_y + t_x t_y)  <=  |x - y|^2

for every Q, and nearly equal where Q holds most of the variance. The left side is a product of a fraction of the width.
Distances are computed only where it does not exceed the radius in question, so nothing is approximated: the answers are
those of all distances, up to ties within float32 rounding.

Points are sorted so that neighbours stand near each other. A few rows then share the columns that their bounds leave,
and their distances are one small product. Strips of rows are shared out among the cores; their order changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.cores import usable_cores

Array = npt.NDArray[Any]

DIRECTIONS = 384
"""Directions of the bound, at most: with more, its product costs what fewer distances save."""
COARSE_DIRECTIONS = 32
"""Directions that suffice to guess which points are near, and to sort them."""
GUESSES = 4
"""Points tried in a guess for each neighbour sought."""
BASIS_ROWS = 1_024
"""Rows of each set that the directions are fitted to."""
STRIP_ROWS = 256
"""Rows whose bounds are one product."""
GROUP_ROWS = 16
"""Rows whose distances are one product."""
GATHER_COLUMNS = 1_024
"""Feature vectors copied together at once, which bounds the memory of a thread."""
DENSE = 0.4
"""Share of the columns left to a group from which the distances of the whole strip are faster."""
PROBE = 16
"""Every how many-th column tells whether a strip is dense."""
SLACK = 2.0**-12
"""By how much of |x|^2 + |y|^2 the bound is lowered, so that rounding loses no pair. A float32 sum of m products is off
by at most m 2^-24 of their absolute sum: less than SLACK for |x|^2 of 4,096 features and for the product of the bound.
The coordinates h are off by less than 1e-6 |x| (7e-7 at 2,048 features), a two-hundredth of it."""
MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class _Points:
    """A set of N feature vectors, sorted, and what bounds on their distances need."""

    order: Array
    """(N,) where each stood in the set as given."""
    features: Array
    """(N, D) float32."""
    squares: Array
    """(N,) |x|^2."""
    fine: Array
    """(N, d + 3) of `_lifted`, in all directions."""
    coarse: Array
    """The same in the first few."""


def exact_memberships(reference: Array, sample: Array, k: int) -> tuple[Array, Array]:
    """Whether each sample lies in a ball of the reference, (N_sample,) bool, and the other way, (N_reference,) bool.

    Features are float32 (N, D), centred, so that small norms keep |x|^2 - 2 x.y + |y|^2 from cancelling. A ball is
    closed and reaches to the k-th nearest other point of its set, of which there must be k.
    """
    from threadpoolctl import threadpool_limits  # only this needs it: not in every scorer's environment

    # The strips are shared out here; BLAS's own threads would wait for each other at every small product.
    with threadpool_limits(limits=1, user_api="blas"):
        basis = _principal_directions(reference, sample)
        references, samples = (_points(features, basis) for features in (reference, sample))
        in_reference = _inside(samples, references, _radii(references, k))
        return in_reference, _inside(references, samples, _radii(samples, k))


def _radii(points: _Points, k: int) -> Array:
    """Squared distance from each point to its k-th nearest other point, (N,) float32."""
    reach = np.empty(len(points.features), dtype=np.float32)
    _for_strips(partial(_guess_radii, points, k, reach), np.arange(len(reach)))
    nearest = _Nearest(reach, k)
    _for_strips(partial(_find_nearest, points, nearest), np.arange(len(reach)))
    return nearest.distances.max(axis=1)


def _inside(points: _Points, centres: _Points, radii: Array) -> Array:
    """Whether each point lies in a closed ball around some centre: (N,) bool, in the order of the set as given."""
    inside = np.zeros(len(points.features), dtype=bool)
    for look in (_look_at_likeliest, _look_at_all):
        _for_strips(partial(look, points, centres, radii, inside), np.flatnonzero(~inside))
    answer = np.empty_like(inside)
    answer[points.order] = inside
    return answer


# --- strips of rows --------------------------------------------------------------------------------------------------


class _Nearest:
    """The k smallest distances of each point so far, (N, k): the same in whatever order they come."""

    def __init__(self, reach: Array, k: int) -> None:
        """reach: at least the k-th smallest of each point."""
        self.reach = reach
        self.distances = np.repeat(reach[:, None], k, axis=1)
        self._lock = Lock()

    def add(self, owners: Array, distances: Array) -> None:
        """Distances (P, M) of M other points from each of P."""
        closer = np.flatnonzero(distances.min(axis=1, initial=np.inf) < self.reach[owners])
        owners, k = owners[closer], self.distances.shape[1]
        with self._lock:
            both = np.concatenate([self.distances[owners], distances[closer]], axis=1)
            self.distances[owners] = np.partition(both, k - 1, axis=1)[:, :k]


def _guess_radii(points: _Points, k: int, reach: Array, rows: Array) -> None:
    """Write at least the radius of each row, and mostly no more: the k-th nearest among likely points."""
    # One more than k, since a point is nearest to itself.
    for group, columns in _likeliest(points.coarse[rows], points.coarse, 0.0, k + 1):
        block = _distances(points, rows[group], points, columns)
        reach[rows[group]] = np.partition(block, k, axis=1)[:, k]


def _find_nearest(points: _Points, nearest: _Nearest, rows: Array) -> None:
    """Add the distances between these rows, and between them and all later ones, where they can matter."""
    first, size = rows[0], len(rows)
    limits = nearest.reach[rows, None], nearest.reach[None, first:]
    for group, columns in _surviving(points.fine[rows], points.fine[first:], *limits):
        owners, others = rows[group], first + columns
        block = _distances(points, owners, points, others)
        block[owners[:, None] == others] = np.inf
        nearest.add(owners, block)
        later = columns >= size  # pairs within the strip are met from both sides
        nearest.add(others[later], block[:, later].T)


def _look_at_likeliest(points: _Points, centres: _Points, radii: Array, inside: Array, rows: Array) -> None:
    """Note which rows lie in one of the balls likely to hold them."""
    for group, columns in _likeliest(points.coarse[rows], centres.coarse, radii, 1):
        block = _distances(points, rows[group], centres, columns)
        inside[rows[group]] = (block <= radii[columns]).any(axis=1)


def _look_at_all(points: _Points, centres: _Points, radii: Array, inside: Array, rows: Array) -> None:
    """Note which rows lie in any ball."""
    for group, columns in _surviving(points.fine[rows], centres.fine, radii):
        block = _distances(points, rows[group], centres, columns)
        inside[rows[group]] = (block <= radii[columns]).any(axis=1)


def _surviving(rows: Array, columns: Array, *limits: Array) -> Iterator[tuple[slice, Array]]:
    """Groups of lifted rows, and the columns (C,) whose bounds are within a limit for one of them.

    limits: each is broadcast against (rows, columns); a pair counts when it is within any of them.
    """

    def near(step: int) -> list[Array]:
        bounds = _bounds(rows, columns[::step])
        within = np.logical_or.reduce([bounds <= limit[..., ::step] for limit in limits])
        return [within[group].any(axis=0) for group in _groups(rows)]

    if np.mean(near(PROBE)) > DENSE:
        yield slice(0, len(rows)), np.arange(len(columns))
        return
    for group, left in zip(_groups(rows), near(1), strict=True):
        yield group, np.flatnonzero(left)


def _likeliest(rows: Array, columns: Array, radii: float | Array, count: int) -> Iterator[tuple[slice, Array]]:
    """Groups of lifted rows, and columns with a low bound, less radius, for one of them.

    Each row picks the lowest of every so many columns; near points stand together, and should not shut each other out.
    """
    picks = min(GUESSES * count, len(columns))
    spread = np.arange(len(columns) // picks * picks).reshape(-1, picks).T.ravel()  # one pick's columns lie together
    scores = _bounds(rows, columns[spread]) - np.broadcast_to(radii, len(columns))[spread]
    lowest = scores.reshape(len(rows), picks, -1).argmin(axis=2) * picks + np.arange(picks)
    for group in _groups(rows):
        yield group, np.unique(lowest[group])


def _groups(rows: Array) -> list[slice]:
    return [slice(start, start + GROUP_ROWS) for start in range(0, len(rows), GROUP_ROWS)]


def _for_strips(task: Callable[[Array], None], rows: Array) -> None:
    """Run the task on strips of the rows, on all cores: NumPy lets other threads run in its products and loops."""
    strips = [rows[start : start + STRIP_ROWS] for start in range(0, len(rows), STRIP_ROWS)]
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS)) as pool:
        for _ in pool.map(task, strips):
            pass  # an error of a strip is raised here


# --- distances and bounds --------------------------------------------------------------------------------------------


def _distances(points: _Points, rows: Array, others: _Points, columns: Array) -> Array:
    """Squared distances (R, C) of chosen rows and rising columns; good to some 1e-6 of the largest |x|^2."""
    left = -2.0 * points.features[rows]
    distances = np.empty((len(rows), len(columns)), dtype=np.float32)
    for start in range(0, len(columns), GATHER_COLUMNS):
        chunk = columns[start : start + GATHER_COLUMNS]
        whole = chunk[-1] - chunk[0] + 1 == len(chunk)  # a view then, no copy
        vectors = others.features[chunk[0] : chunk[-1] + 1] if whole else others.features[chunk]
        np.matmul(left, vectors.T, out=distances[:, start : start + GATHER_COLUMNS])
    distances += points.squares[rows, None]
    distances += others.squares[columns]
    return np.maximum(distances, 0.0, out=distances)


def _bounds(rows: Array, columns: Array) -> Array:
    """Lower bounds (R, C) of squared distances from lifted rows (R, d + 3) and columns (C, d + 3): one product.

    (-2h, -2t, 1, |x|^2) . (h', t', |y|^2, 1) = |x|^2 + |y|^2 - 2 (h.h' + t t'), and t t' >= what is left of x.y.
    """
    left = -2.0 * rows
    left[:, -2], left[:, -1] = 1.0, rows[:, -2]
    bounds: Array = left @ columns.T
    return bounds


def _lifted(coordinates: Array, squares: Array) -> Array:
    """(N, d + 3) columns h, t, |x|^2, 1 of points with coordinates h (N, d).

    SLACK widens t^2, in which an error may be large beside a small t, and lowers |x|^2.
    """
    rest = np.maximum(squares - np.einsum("nd,nd->n", coordinates, coordinates), 0.0) + SLACK * squares
    return np.column_stack([coordinates, np.sqrt(rest), (1.0 - SLACK) * squares, np.ones_like(squares)])


def _points(features: Array, basis: Array) -> _Points:
    coordinates = features @ basis
    order = _neighbours_together(coordinates[:, :COARSE_DIRECTIONS], np.arange(len(features)))
    features, coordinates = features[order], coordinates[order]
    squares = np.einsum("nd,nd->n", features, features)
    fine, coarse = _lifted(coordinates, squares), _lifted(coordinates[:, :COARSE_DIRECTIONS], squares)
    return _Points(order=order, features=features, squares=squares, fine=fine, coarse=coarse)


def _neighbours_together(coordinates: Array, chosen: Array) -> Array:
    """The chosen points, halved again and again at the median of the coordinate in which they differ most."""
    if len(chosen) <= GROUP_ROWS:
        return chosen
    widest = coordinates[chosen].var(axis=0).argmax()
    chosen = chosen[np.argsort(coordinates[chosen, widest], kind="stable")]
    halves = np.array_split(chosen, 2)
    return np.concatenate([_neighbours_together(coordinates, half) for half in halves])


def _principal_directions(reference: Array, sample: Array) -> Array:
    """(D, d) float32, orthonormal, of falling variance: randomized subspace iteration on some rows of both sets (Halko,
    Martinsson and Tropp 2011, arXiv:0909.4061). Any basis gives the same answers; a good one gives them sooner.

    Few images or narrow features get fewer directions, or finding them would take longer than all distances do.
    """
    rows = np.concatenate([features[:: -(-len(features) // BASIS_ROWS)] for features in (reference, sample)])
    count = max(1, min(DIRECTIONS, rows.shape[1] // 4, len(rows) // 4))
    start = rows.T @ np.random.default_rng(0).standard_normal((len(rows), count), dtype=np.float32)
    basis = np.linalg.qr(rows.T @ (rows @ np.linalg.qr(start)[0]))[0]
    coordinates = rows @ basis
    directions: Array = np.linalg.eigh(coordinates.T @ coordinates)[1]
    return basis @ directions[:, ::-1]
