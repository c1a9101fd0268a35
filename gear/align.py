"""Alignment of AR hidden states with a frozen teacher's patches (REPA): projectors, loss, target normalisation.

Shapes: B batch, L patches (= image tokens, raster order), D width of the AR, d_i width of teacher i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SpatialNorm = Literal["none", "demean", "zscore"]


class Projectors(nn.Module):
    """One three-layer MLP per teacher, from the AR's width to the teacher's. State keys `projs.<i>.{0,2,4}.*`."""

    def __init__(self, dim: int, projector_dim: int, z_dims: Sequence[int]) -> None:
        super().__init__()
        self.projs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, projector_dim),
                nn.SiLU(),
                nn.Linear(projector_dim, projector_dim),
                nn.SiLU(),
                nn.Linear(projector_dim, z_dim),
            )
            for z_dim in z_dims
        )

    def as_part(self) -> dict[str, nn.Module]:
        """What a stage stores of it: itself under its published name; nothing where there is no teacher."""
        return {"projectors": self} if len(self.projs) else {}

    def forward(self, hidden: Tensor) -> list[Tensor]:
        """hidden (B, L, D) -> one prediction (B, L, d_i) per teacher."""
        return [proj(hidden) for proj in self.projs]


def alignment_loss(preds: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean over teachers, samples and tokens of minus the cosine similarity; a 0-d tensor in [-1, 1].

    preds, targets: one (B, L, d_i) each per teacher; without any the loss is 0. An all-zero target token adds 0 and no
    gradient.
    Raises ValueError when their number or shapes differ, which usually means that the teacher's patch grid is not the
    tokenizer's token grid.
    """
    shapes = [tuple(z.shape) for z in targets]
    if not preds and not targets:
        return torch.zeros(())
    if [tuple(p.shape) for p in preds] != shapes:
        raise ValueError(f"predictions {[tuple(p.shape) for p in preds]} do not match teacher patches {shapes}")
    return torch.stack([-_cosine(p, z).mean() for p, z in zip(preds, targets, strict=True)]).mean()


def _cosine(p: Tensor, z: Tensor) -> Tensor:
    """Cosine similarity along the last axis, at least in float32, each norm clamped to 1e-12 from below."""
    dtype = torch.promote_types(p.dtype, torch.float32)
    return (F.normalize(p.to(dtype), dim=-1, eps=1e-12) * F.normalize(z.to(dtype), dim=-1, eps=1e-12)).sum(-1)


def spatial_norm(z: Tensor, mode: SpatialNorm, alpha: float = 0.6) -> Tensor:
    """Normalise teacher patches z (B, L, d) over the L tokens of each sample, each channel separately.

    none: z; demean: z - alpha * mean; zscore: that divided by (its unbiased standard deviation + 1e-6).
    """
    if mode == "none":
        return z
    if mode not in ("demean", "zscore"):
        raise ValueError(f"spatial norm {mode!r} is not one of none, demean, zscore")
    centred = z - alpha * z.mean(dim=1, keepdim=True)
    if mode == "demean":
        return centred
    return centred / (centred.std(dim=1, keepdim=True) + 1e-6)
