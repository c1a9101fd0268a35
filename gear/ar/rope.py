"""Rotary position embedding over a 2-D token grid; conditioning slots have no position.

Unlike the textbook: rows take the first half of a head's channels and columns the second; channels are paired with
their neighbour (2i, 2i+1), not with the one half a head away; and the conditioning slots have cos = sin = 0, so that
their queries and keys become zero instead of staying unrotated. Released weights were trained that way. A conditioning
slot therefore attends uniformly to what it may see, and gets logit 0 (not minus infinity) from every image query.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_table(grid_side: int, head_dim: int, num_cond: int, base: float = 10_000.0) -> Tensor:
    """(cos, sin) for every slot: shape (num_cond + grid_side^2, head_dim / 2, 2), float32, on the CPU.

    Slot `num_cond + r * grid_side + c` belongs to row r, column c. Computed on the CPU whatever the default device is,
    so that a model has the same table everywhere.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half
    frequencies = 1.0 / base**exponents  # (h/4,)
    angles = torch.outer(torch.arange(grid_side, dtype=torch.float32, device="cpu"), frequencies)  # (side, h/4)
    rows = angles[:, None, :].expand(grid_side, grid_side, -1)
    columns = angles[None, :, :].expand(grid_side, grid_side, -1)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (side^2, h/2)
    placed = torch.stack([grid.cos(), grid.sin()], dim=-1)
    return torch.cat([torch.zeros(num_cond, half, 2, device="cpu"), placed])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the neighbouring channel pairs of x (B, S, heads, h) by the rows of `table` (S, h/2, 2).

    Computed in float32 (or x's own precision where that is higher) and cast back.
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))  # (B, S, heads, h/2, 2)
    table = table[:, None]  # (S, 1, h/2, 2)
    if not torch.compiler.is_compiling() and not torch.is_grad_enabled():
        # One complex product takes a fifth of the time and differs by a last bit at most. Training keeps the
        # reference's rounding; and a compiler fuses real arithmetic, but not complex.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    else:
        (first, second), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)
