"""What GEAR asks of a teacher: patch features of the raw image, one per image token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gear.align import spatial_norm
from harness.contract.errors import UserError

SpatialNorm = Literal["none", "demean", "zscore"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    name: str = "lite0"
    """Which frozen network gives the alignment targets."""
    weights: str | None = None
    """File of its weights; None takes the ones that come with its package."""
    spatial_norm: SpatialNorm = "none"
    """Normalisation of the targets over the tokens of an image: none, demean or zscore."""
    spatial_norm_alpha: float = 0.6
    """Share of the spatial mean that is taken away."""

    def __post_init__(self) -> None:
        if self.spatial_norm not in get_args(SpatialNorm):
            raise UserError(
                f"teacher.spatial_norm is {self.spatial_norm!r}; choose one of {', '.join(get_args(SpatialNorm))}."
            )


class Teacher(nn.Module, ABC):
    """A frozen feature network. `grid` patches on a side, `dim` channels each."""

    dim: int
    grid: int

    @abstractmethod
    def features(self, images_u8: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, grid^2, dim) float32, patches in raster order."""


class Targets:
    """The alignment targets of a batch, remembered per sample where the data set repeats exactly.

    Without augmentation an image's target never changes, so that the teacher need run only once per image. Targets
    are kept in float16 on the CPU; cosine alignment does not notice the rounding (1e-3 relative).
    """

    def __init__(self, teacher: Teacher, config: TeacherConfig, *, remember: bool) -> None:
        self.teacher, self.config, self.remember = teacher, config, remember
        self._known: dict[int, Tensor] = {}

    @torch.inference_mode()
    def _fresh(self, images_u8: Tensor) -> Tensor:
        return spatial_norm(self.teacher.features(images_u8), self.config.spatial_norm, self.config.spatial_norm_alpha)

    def __call__(self, images_u8: Tensor, ids: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 and sample ids (B,) -> (B, L, dim) float32 without gradient."""
        if not self.remember:
            return self._fresh(images_u8).clone()
        keys = ids.tolist()
        new = [position for position, key in enumerate(keys) if key not in self._known]
        if new:
            for position, target in zip(new, self._fresh(images_u8[new]).half().cpu(), strict=True):
                self._known[keys[position]] = target
        return torch.stack([self._known[key] for key in keys]).to(images_u8.device).float()
