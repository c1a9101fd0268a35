"""Getting patch features out of a vision transformer: at its end, or after any block.

Shapes: B images, S special tokens (class, registers) in front of g^2 patches in raster order, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINAL_LAYER = -1
"""The standard output, after the final norm; blocks are numbered from 1."""


def patch_features(
    forward: Callable[[Tensor], Any], blocks: Sequence[nn.Module], x: Tensor, *, layer: int, num_special: int
) -> Tensor:
    """Patches (B, g^2, d) of one layer, special tokens removed.

    forward: the whole network, returning all tokens after the final norm (B, S + g^2, d). layer: FINAL_LAYER for that
    output, or n in 1 .. len(blocks) for the output of block n, before the final norm.
    Raises ValueError for any other layer.
    """
    tokens = forward(x) if layer == FINAL_LAYER else block_output(forward, blocks, x, layer)
    return _first(tokens)[:, num_special:]


def block_output(forward: Callable[[Tensor], Any], blocks: Sequence[nn.Module], x: Tensor, layer: int) -> Tensor:
    """All tokens (B, S + g^2, d) that block `layer` (1-based) puts out while `forward(x)` runs.

    Raises ValueError when there is no such block, or when `forward` never reaches it.
    """
    if not 1 <= layer <= len(blocks):
        raise ValueError(f"layer {layer} is not one of the teacher's blocks 1 to {len(blocks)} (or -1, its output)")
    seen: list[Tensor] = []
    handle = blocks[layer - 1].register_forward_hook(lambda module, inputs, output: seen.append(_first(output)))
    try:
        forward(x)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the teacher's forward pass does not run its block {layer}")
    return seen[-1]


def _first(output: Any) -> Tensor:
    """A block's tensor; some blocks return a tuple or list whose first entry it is."""
    return output[0] if isinstance(output, tuple | list) else output


def resample_position_table(table: Tensor, grid_side: int, num_special: int = 1) -> Tensor:
    """A learned position table (1, S + g^2, d) for another grid: (1, S + grid_side^2, d), in the table's dtype.

    Rows of special tokens stay as they are; the grid is resampled in float32, bicubic with antialiasing, so that
    the table of DINOv2 (37 x 37) serves 16 x 16 patches. Raises ValueError when the table's patches form no square.
    """
    special, grid = table[:, :num_special], table[:, num_special:]
    side = math.isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise ValueError(f"{grid.shape[1]} positions do not form a square grid")
    if side == grid_side:
        return table
    image = grid.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, d, g, g)
    resampled = F.interpolate(image, size=(grid_side, grid_side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([special, resampled.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)
