"""EfficientNet-Lite0 as a teacher: small enough for a CPU, with ImageNet weights that a pip package carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gear.teachers.base import Teacher
from gear.teachers.family import Family
from gear.teachers.layers import FINAL_LAYER
from harness.contract.errors import UserError
from harness.scoring.networks.lite0 import load_lite0

_LAST_BLOCK = 10  # of 16: the end of the stage with stride 16 and 112 channels
_DIM = 112
_STRIDE = 16
_CPU_CHUNK = 8  # images whose activations stay in a CPU's cache; five times as fast as 64 at once


class Lite0Family(Family):
    """One teacher, whose weights come with a package; it takes images of any size."""

    name = "lite0"

    def teachers(self) -> list[str]:
        return [self.name]

    def weights(self, teacher: str, image_size: int) -> None:
        return None

    def build(self, teacher: str, *, image_size: int, grid: int, layer: int, weights: Path | None) -> Teacher:
        if layer != FINAL_LAYER:
            raise UserError("the teacher lite0 gives its output only, no inner layer; set teacher.layer=-1.")
        return Lite0Teacher(grid, weights)


LITE0 = Lite0Family()


class Lite0Teacher(Teacher):
    """Patch features of stride 16 (112 channels), from the image enlarged until the grids match.

    Preprocessing as the network was trained: (255 x - 127) / 128. The image is enlarged bicubically to
    `16 * grid` pixels, so that one feature belongs to one image token.
    """

    dim = _DIM

    def __init__(self, grid: int, weights: Path | None = None) -> None:
        super().__init__()
        self.grid = grid
        self.network: Any = load_lite0(weights).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, images_u8: Tensor) -> Tensor:
        chunk = len(images_u8) if images_u8.is_cuda else _CPU_CHUNK
        return torch.cat([self._features(part) for part in images_u8.split(chunk)])

    def _features(self, images_u8: Tensor) -> Tensor:
        side = self.grid * _STRIDE
        enlarged = F.interpolate(images_u8.float(), size=(side, side), mode="bicubic", align_corners=False)
        hidden = ((enlarged.clamp(0.0, 255.0) - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        network = self.network
        hidden = network._swish(network._bn0(network._conv_stem(hidden)))
        for block in network._blocks[: _LAST_BLOCK + 1]:
            hidden = block(hidden)
        return hidden.flatten(2).transpose(1, 2)  # (B, grid^2, 112)
