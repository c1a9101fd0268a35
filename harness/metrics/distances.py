"""Distances between feature vectors, a block at a time, in the arithmetics that published evaluators use.

Shapes: rows (R, D), columns (C, D) -> distances (R, C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Distance = Callable[[Array, Array], Array]
"""(R, D) and (C, D) features -> (R, C) distances."""

STRIP_ROWS = 1_024
"""Rows computed at once inside a float16 block, which bounds the float32 temporaries."""


def squared_distances(rows: Array, columns: Array) -> Array:
    """max(|u|^2 - 2 u.v + |v|^2, 0) in float64."""
    return _expanded_squares(rows.astype(np.float64, copy=False), columns.astype(np.float64, copy=False))


def euclidean_distances(rows: Array, columns: Array) -> Array:
    """Euclidean distances in float64."""
    distances: Array = np.sqrt(squared_distances(rows, columns))
    return distances


def half_precision_squared_distances(rows: Array, columns: Array) -> Array:
    """The ADM evaluator's squared distances: every operation rounded to float16; (R, D), (C, D) -> (R, C) float32.

    Sums of products are formed in float32 and rounded once, as a GPU's half-precision matrix product does. If any value
    of the block is not finite (a square beyond 65,504), the whole block is computed again in float32 from the original
    features, not from their float16 roundings.
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
    squares: Array = rows @ columns.T
    squares *= -2.0
    squares += np.einsum("rd,rd->r", rows, rows)[:, None]
    squares += np.einsum("cd,cd->c", columns, columns)[None, :]
    return np.maximum(squares, 0.0, out=squares)
