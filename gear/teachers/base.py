"""What GEAR needs of a teacher: patch features of the raw image, one per image token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from gear.align import spatial_norm
from gear.ranges import OneOrFrom, Weight
from harness.contract.errors import UserError

SpatialNorm = Literal["none", "demean", "zscore"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    name: str = "lite0"
    """Which frozen network gives the alignment targets: lite0, or <family>-vit-<size> as in dinov2-vit-b. Several,
    separated by commas, have a projector each and count the same."""
    weights: str | None = None
    """File, hub folder or address (`gear.assets`) of its weights, one per teacher and separated by commas; an empty one
    or None: the published weights. `random` leaves a transformer untrained: for tests and measuring speed."""
    layer: Annotated[int, OneOrFrom(-1, 1)] = -1
    """-1: the network's output after its final norm; n: the output of block n, counted from 1, before that norm."""
    spatial_norm: SpatialNorm = "none"
    """Normalisation of the targets over the tokens of an image: none, demean or zscore."""
    spatial_norm_alpha: Weight = 0.6
    """Share of the spatial mean that is subtracted."""

    def __post_init__(self) -> None:
        if self.spatial_norm not in get_args(SpatialNorm):
            raise UserError(
                f"teacher.spatial_norm is {self.spatial_norm!r}; choose one of {', '.join(get_args(SpatialNorm))}."
            )
        if self.weights is not None and len(self.weights.split(",")) != len(self.names):
            raise UserError(
                f"teacher.weights names {len(self.weights.split(','))} files for {len(self.names)} teachers; "
                "separate one per teacher by commas, empty for the published ones."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The teachers, in the order of their projectors."""
        return tuple(name.strip() for name in self.name.split(","))

    @property
    def sources(self) -> tuple[str | None, ...]:
        """Where each teacher's weights are; None: the published ones."""
        if self.weights is None:
            return (None,) * len(self.names)
        return tuple(source.strip() or None for source in self.weights.split(","))


class Teacher(nn.Module, ABC):
    """A frozen feature network. `grid` patches on a side, `dim` channels each."""

    dim: int
    grid: int

    @abstractmethod
    def features(self, images_u8: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, grid^2, dim) float32, patches in raster order."""


class Targets:
    """The alignment targets of a batch, cached per sample where the data set repeats exactly.

    Without augmentation an image's target never changes, so the teachers need to run only once per image. Targets are
    kept in float16 on the CPU; the rounding (1e-3 relative) does not matter for cosine alignment.
    """

    def __init__(self, teachers: Sequence[Teacher], config: TeacherConfig, *, cached: bool) -> None:
        self.teachers, self.config, self.cached = tuple(teachers), config, cached
        self._known: dict[int, list[Tensor]] = {}

    @property
    def dims(self) -> list[int]:
        """Width d_i of each teacher's patches, the output width of its projector."""
        return [teacher.dim for teacher in self.teachers]

    @torch.inference_mode()
    def _fresh(self, images_u8: Tensor) -> list[Tensor]:
        norm, alpha = self.config.spatial_norm, self.config.spatial_norm_alpha
        return [spatial_norm(teacher.features(images_u8), norm, alpha) for teacher in self.teachers]

    def __call__(self, images_u8: Tensor, ids: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8 and sample ids (B,) -> (B, L, d_i) float32 per teacher, without gradient."""
        if not self.cached:
            return [target.clone() for target in self._fresh(images_u8)]  # autograd may not save inference tensors
        keys = ids.tolist()
        new = [position for position, key in enumerate(keys) if key not in self._known]
        if new:
            fresh = [target.half().cpu() for target in self._fresh(images_u8[new])]
            for row, position in enumerate(new):
                self._known[keys[position]] = [target[row] for target in fresh]
        known = zip(*(self._known[key] for key in keys), strict=True)
        return [torch.stack(rows).to(images_u8.device).float() for rows in known]
