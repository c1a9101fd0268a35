"""uint8 pictures (NHWC) put together and turned into PNG data URIs. Gaps are transparent: any page colour works."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]

SMALL_PX = 128
"""Smaller pictures are enlarged to at least this by whole factors, without interpolation: no pixel is invented."""
LARGE_PX = 160
"""Larger ones are reduced to this in grids, where number matters more than detail."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG ready for an img element, and what was done to get it."""

    data_uri: str
    width: int
    height: int
    shown_px: int
    """Side of one picture inside, after enlarging or reducing."""
    native_px: int
    """Side of one picture as it was made."""

    @property
    def scale_note(self) -> str:
        """The caption's remark about the size; empty when pixels are shown one to one or enlarged whole."""
        if self.shown_px >= self.native_px:
            return ""
        return f"Shown at {self.shown_px} of {self.native_px} pixels."


def grid(rows: Sequence[Images], *, cell_px: int = LARGE_PX) -> Picture:
    """Lay out rows of equally large pictures; shorter rows end in transparency.

    Args:
        rows: one (n_i, H, W, 3) uint8 array per row, the same H and W throughout; at least one picture in all.
        cell_px: pictures with a longer side than this are reduced to it.
    """
    shape = _common_shape(rows)
    native_px = max(shape)
    cells = [[_scaled(image, cell_px) for image in row] for row in rows]
    height, width = next(cell.shape[:2] for row in cells for cell in row)
    gap = max(2, width // 24)
    num_columns = max(len(row) for row in cells)
    canvas = np.zeros((len(rows) * (height + gap) - gap, num_columns * (width + gap) - gap, 4), dtype=np.uint8)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width, :3] = cell
            canvas[top : top + height, left : left + width, 3] = 255
    return Picture(
        data_uri=png_data_uri(canvas),
        width=canvas.shape[1],
        height=canvas.shape[0],
        shown_px=max(height, width),
        native_px=native_px,
    )


def single(image: NDArray[np.uint8], *, largest_px: int = 320) -> Picture:
    """A single (H, W, 3) uint8 picture."""
    return grid([image[None]], cell_px=largest_px)


def png_data_uri(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3 or 4) uint8 -> `data:image/png;base64,...`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _common_shape(rows: Sequence[Images]) -> tuple[int, int]:
    shapes = set()
    for row in rows:
        if row.dtype != np.uint8 or row.ndim != 4 or row.shape[3] != 3:
            raise ValueError(f"pictures are uint8 (n, H, W, 3), not {row.dtype} {row.shape}")
        if len(row):
            shapes.add((row.shape[1], row.shape[2]))
    if len(shapes) != 1:
        raise ValueError(f"a grid needs pictures of one size, not of {len(shapes)}: {sorted(shapes)}")
    return shapes.pop()


def _scaled(image: NDArray[np.uint8], cell_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> its shown size: enlarged by a whole factor below SMALL_PX, reduced by Lanczos above `cell_px`."""
    longest = max(image.shape[:2])
    if longest < SMALL_PX:
        factor = -(-SMALL_PX // longest)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    if longest <= cell_px:
        return image
    height, width = (max(1, round(side * cell_px / longest)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
