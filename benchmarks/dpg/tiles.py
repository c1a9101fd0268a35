"""Where a prompt's four images lie in the one picture that the original scorer reads: a 2x2 grid, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GRID = 2
"""Tiles along a side."""
MAX_TILES = GRID * GRID


def tile_boxes(side: int, count: int = MAX_TILES) -> list[tuple[int, int, int, int]]:
    """The first `count` tiles as (left, top, right, bottom), for tiles of `side` pixels."""
    if not 1 <= count <= MAX_TILES:
        raise ValueError(f"a grid has 1 to {MAX_TILES} tiles, not {count}")
    corners = [(column * side, row * side) for row in range(GRID) for column in range(GRID)]
    return [(left, top, left + side, top + side) for left, top in corners[:count]]


def make_grid(images_u8: Sequence[Array]) -> Array:
    """Paste up to four (S, S, 3) uint8 images into one (2S, 2S, 3); missing tiles stay black, further images are left
    out."""
    side = images_u8[0].shape[0]
    grid = np.zeros((GRID * side, GRID * side, 3), np.uint8)
    shown = images_u8[:MAX_TILES]
    for image_u8, (left, top, right, bottom) in zip(shown, tile_boxes(side, len(shown)), strict=True):
        grid[top:bottom, left:right] = image_u8
    return grid


def cut_grid(grid_u8: Array, count: int = MAX_TILES) -> list[Array]:
    """The first `count` tiles of a (2S, 2S, 3) grid.

    Raises:
        ValueError: the grid has no whole tiles.
    """
    height, width = grid_u8.shape[:2]
    if height != width or height % GRID:
        raise ValueError(f"a grid of {width}x{height} pixels has no {GRID}x{GRID} square tiles")
    return [grid_u8[top:bottom, left:right] for left, top, right, bottom in tile_boxes(height // GRID, count)]
