"""Several images as one picture: a grid, row by row from the top left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tile_boxes(side: int, grid: int, count: int) -> list[tuple[int, int, int, int]]:
    """The first `count` tiles of a grid x grid picture as (left, top, right, bottom), for tiles of `side` pixels."""
    if not 1 <= count <= grid * grid:
        raise ValueError(f"a {grid}x{grid} grid has 1 to {grid * grid} tiles, not {count}")
    corners = [(column * side, row * side) for row in range(grid) for column in range(grid)]
    return [(left, top, left + side, top + side) for left, top in corners[:count]]


def make_grid(images_u8: Sequence[np.ndarray], grid: int) -> np.ndarray:
    """Paste (S, S, 3) uint8 images into one (grid S, grid S, 3). Missing tiles are black, surplus images left out."""
    side = images_u8[0].shape[0]
    picture_u8 = np.zeros((grid * side, grid * side, 3), np.uint8)
    shown = images_u8[: grid * grid]
    for image_u8, (left, top, right, bottom) in zip(shown, tile_boxes(side, grid, len(shown)), strict=True):
        picture_u8[top:bottom, left:right] = image_u8
    return picture_u8


def cut_grid(picture_u8: np.ndarray, grid: int, count: int) -> list[np.ndarray]:
    """The first `count` tiles of a (grid S, grid S, 3) picture, each (S, S, 3)."""
    boxes = tile_boxes(picture_u8.shape[0] // grid, grid, count)
    return [picture_u8[top:bottom, left:right] for left, top, right, bottom in boxes]
